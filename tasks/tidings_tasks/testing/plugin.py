"""Pytest's fixtures. Nothing here runs in a project that does not name this module in its ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..queue.broker import installed_broker
from .jobs import InMemoryJobs

__all__ = ["pytest_configure", "tidings_jobs"]


def pytest_configure(config: pytest.Config) -> None:
    """Set our broker, unless the program has one: modules with plain actors then import as in the worker."""
    installed_broker()


@pytest.fixture
def tidings_jobs() -> Iterator[InMemoryJobs]:
    """Catch all that is submitted in this process during the test, in memory, to be looked at and run."""
    jobs = InMemoryJobs()
    with jobs.installed():
        yield jobs
