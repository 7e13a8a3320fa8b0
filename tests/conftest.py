"""Fixtures that all tests share: real stores, a whole stack, and checks that nothing is left running."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

# `--import-mode=importlib` leaves sys.path alone; this makes `tests.support` importable however pytest is started.
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.leaks import describe_processes, list_children, wait_for_leaked_tasks
from tests.support.node import Node, NodeMissing
from tests.support.stack import LiveStack
from tests.support.timing import TIMEOUT_FACTOR
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Keyspace

_long_lived: set[psutil.Process] = set()


hypothesis.settings.register_profile("no-clock", deadline=None)  # a timing never decides a test
hypothesis.settings.load_profile("no-clock")


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


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Iterator[object]:
    """Remember which processes belong to fixtures that outlive a test."""
    if fixturedef.scope == "function":
        return (yield)
    before = list_children()
    try:
        return (yield)
    finally:
        _long_lived.update(list_children() - before)


@pytest.fixture(autouse=True)
def no_leaked_processes() -> Iterator[None]:
    """Fail a test that leaves a child process running."""
    before = list_children()
    yield
    leaked = list_children() - before - _long_lived
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


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """Run one real `tidings dev` for all tests of this process; its parts may be killed, and come back."""
    stack = LiveStack(tmp_path_factory.mktemp("stack"))
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def node() -> Node:
    """Give Node with the stock `socket.io-client`; without it the test is skipped, but fails under CI."""
    try:
        return Node.find()
    except NodeMissing as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error} (CI skips nothing)")
        pytest.skip(str(error))
