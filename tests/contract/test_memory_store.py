"""The store in memory that is shipped for tests: whatever is done to it, it keeps and answers what a real one does."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import resources

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tidings_tasks.store import Keyspace, submissions
from tidings_tasks.testing.valkey import Clock, MemoryValkey

from . import (
    test_breakers,
    test_claiming,
    test_dead_letters,
    test_edges,
    test_feeds,
    test_flows,
    test_gates,
    test_keeping,
    test_leases,
    test_lines,
    test_logs,
    test_options,
    test_submitting,
    test_transitions,
)
from .bench import ALICE
from .machine import StoreMachine
from .machine_inputs import MAX_QUEUE_LENGTH
from .twins import TwinBench

MODULES = (
    test_breakers, test_claiming, test_dead_letters, test_edges, test_feeds, test_flows, test_gates, test_keeping, test_leases, test_lines, test_logs,
    test_options, test_submitting, test_transitions,
)  # fmt: skip


def contract_tests() -> list[Callable[..., None]]:
    """Find the tests of the contract that need a bench alone, and do nothing to Valkey behind its back."""
    found = []
    for module in MODULES:
        for name, test in vars(module).items():
            if name.startswith("test_") and list(inspect.signature(test).parameters) == ["bench"]:
                source = inspect.getsource(test)
                if not any(
                    word in source
                    for word in (".raw.", ".store.run", "begin_generation", "reconnect", "take_token")
                ):
                    found.append(test)
    return found


@pytest.fixture
def twins(valkey_url: str, keyspace: Keyspace) -> Iterator[TwinBench]:
    """Give two stores that are driven as one."""
    made = TwinBench(valkey_url, keyspace)
    yield made
    made.close()


@pytest.mark.parametrize("check", contract_tests(), ids=lambda check: check.__name__)
def test_the_contract_holds_in_memory_too(check: Callable[..., None], twins: TwinBench) -> None:
    """What the store promises, and after each command the same replies and the same keys as in Valkey."""
    check(twins)


def test_most_of_the_contract_is_checked() -> None:
    """The tests are found."""
    assert len(contract_tests()) > 100


@pytest.mark.timeout(600)
def test_any_sequence_of_commands_leaves_both_alike(
    twins: TwinBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies, records, logs, feeds, counts and indexes, byte for byte, in any order of commands."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", MAX_QUEUE_LENGTH)

    class Machine(StoreMachine):
        pass

    Machine.bench = twins
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, database=None, print_blob=False,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
        ),
    )  # fmt: skip
    assert Machine.steps_done > 100


def test_a_store_in_memory_that_differs_is_noticed(twins: TwinBench) -> None:
    """The checker is checked: one more entry, field or place is found."""
    job_id = twins.add(ALICE)
    for name, key, *args in (
        ("RPUSH", f"e:{job_id}", "{}"),
        ("HSET", f"x:{job_id}", "p", "1"),
        ("ZADD", "due", "1", job_id),
    ):
        twins.compare()
        twins.call(name, key, *args)
        with pytest.raises(AssertionError):
            twins.compare()
        twins.call("DEL", key)


def test_every_command_that_the_scripts_call_is_there() -> None:
    """A script that begins to use another command of Valkey finds out here."""
    folder = resources.files("tidings_tasks.store") / "lua"
    source = "".join(entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".lua"))
    used = set(re.findall(r"call\('([A-Z]+)'", source))
    assert len(used) > 20
    assert used <= MemoryValkey(Clock(0)).commands
