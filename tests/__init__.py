"""The tests of Tidings; what they share is in ``tests.support``."""
