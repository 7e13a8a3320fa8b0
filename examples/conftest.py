"""Gives the tests of ``myapp`` the fixture ``tidings_jobs``."""

pytest_plugins = ["tidings_tasks.testing.plugin"]
