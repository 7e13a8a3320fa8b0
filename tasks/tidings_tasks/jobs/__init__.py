"""Ready-made job types. Importing a module here registers its type; importing this package registers nothing."""
