"""Fixtures that all tests share: real stores, a whole stack, and checks that nothing is left running."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

# `--import-mode=importlib` leaves sys.path alone; this makes `tests.support` importable however pytest is started.
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.leaks import describe_processes, list_children, wait_for_leaked_tasks
from tests.support.timing import TIMEOUT_FACTOR
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Keyspace


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Scale the time limit of each test as all others, before pytest-timeout reads it."""
    if config.option.timeout is None:
        config.option.timeout = float(config.getini("timeout")) * TIMEOUT_FACTOR


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check every asynchronous test for leaked tasks: first to be set up, so last to be torn down."""
    for item in items:
        if isinstance(item, pytest.Function) and asyncio.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_leaked_tasks")


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail a test that leaves an asyncio task running."""
    before = asyncio.all_tasks()
    yield
    leaked = await wait_for_leaked_tasks(before)
    assert not leaked, f"the test left tasks running: {leaked}"


@pytest.fixture(autouse=True)
def no_leaked_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a child process running."""
    # What lives for the whole session is started before the children are counted.
    for name in ("valkey_server", "live_stack"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    before = list_children()
    yield
    leaked = list_children() - before
    described = describe_processes(leaked)
    for process in leaked:
        process.kill()
    assert not leaked, f"the test left processes running: {described}"


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """Run one real Valkey for all tests of this process; never flush it, use ``key_prefix``."""
    with EmbeddedValkey(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: EmbeddedValkey) -> str:
    """Give the URL of the Valkey that the tests of this process share."""
    return valkey_server.url


@pytest.fixture
def key_prefix() -> str:
    """Give a key prefix that no other test has."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def keyspace(key_prefix: str) -> Keyspace:
    """Give a keyspace that no other test has, with one shard."""
    return Keyspace(prefix=key_prefix)


@pytest.fixture
def private_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """Run a Valkey for this test alone, which it may ``kill()`` and ``start()`` again on the same data."""
    with EmbeddedValkey(tmp_path / "private") as server:
        yield server
