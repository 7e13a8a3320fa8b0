"""The REST calls, one file a resource. ``routes.ROUTES`` lists them all."""
