"""Fixtures of the store's contract: a bench on a keyspace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tidings_tasks.store import Keyspace

from .bench import Bench


@pytest.fixture
def bench(valkey_url: str, keyspace: Keyspace) -> Iterator[Bench]:
    """Give a store whose clock the test moves, with every call made twice and checked."""
    made = Bench(valkey_url, keyspace)
    yield made
    made.close()
