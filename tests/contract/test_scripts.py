"""The scripts say what they do: edges equal the protocol's, and every key that is touched is documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, Self

import pytest

from tidings.protocol import EDGES, TERMINAL_STATES, EventKind, JobState
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import (
    Breaker,
    Command,
    Keyspace,
    QueueLimits,
    QueueState,
    Rate,
    Submission,
    Tenant,
    Verb,
    bulk_commands,
    commands,
    schedule_commands,
    worker_commands,
)
from tidings_tasks.store.flow_plan import FlowPlan, PlannedStep
from tidings_tasks.store.scripts import load_script, make_script

from .bench import ALICE, READING, START_MS, Bench, spec_of

LUA = resources.files("tidings_tasks.store") / "lua"
SCRIPTS = sorted(entry.name.removesuffix(".lua") for entry in LUA.iterdir() if entry.name.endswith(".lua"))
PRELUDES = {
    "shared",
    "prelude",
    "feeds",
    "lines",
    "transitions",
    "gates",
    "creation",
    "flows",
    "writing",
    "upkeep",
    "claiming",
    "schedules",
    "storing",
    "read_prelude",
}
UNBOUNDED = {"KEYS", "SCAN", "SMEMBERS", "HSCAN", "SSCAN", "ZSCAN", "FLUSHALL", "FLUSHDB", "SORT"}


def read_lua(name: str) -> str:
    """Read a script's own text."""
    return (LUA / f"{name}.lua").read_text("utf-8")


def read_edges(source: str) -> dict[str, set[str]]:
    """Read the Lua table of edges: a state, or nothing, and the states that may follow it."""
    match = re.search(r"local EDGES = \{\n(.*?)\n\}\n", source, re.DOTALL)
    assert match is not None
    rows = re.findall(r"(?:\['(\w*)'\]|(\w+)) = '([\w ]*)'", match[1])
    return {quoted or plain: set(targets.split()) for quoted, plain, targets in rows}


def test_the_scripts_edges_are_the_protocols() -> None:
    """The table that refuses transitions is the one that clients are told of, the first state included."""
    found = read_edges(read_lua("transitions"))
    assert found == {
        "" if state is None else state.value: {target.value for target in targets}
        for state, targets in EDGES.items()
    }


def test_no_state_is_part_of_anothers_name() -> None:
    """The scripts look for a state in a line of states."""
    pairs = [(one, other) for one in JobState for other in JobState if one is not other]
    assert not [pair for pair in pairs if pair[0].value in pair[1].value]


def test_the_scripts_terminal_states_are_the_protocols() -> None:
    """Those that have no edge."""
    found = re.search(r"local TERMINAL = \{ (.*?) \}", read_lua("transitions"))
    assert found is not None
    assert set(re.findall(r"(\w+) = 1", found[1])) == {state.value for state in TERMINAL_STATES}


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in PRELUDES])
def test_a_script_begins_with_what_it_takes_and_returns(name: str) -> None:
    """The header has the keys, the arguments and the answer."""
    header = read_lua(name).split("\nlocal ")[0].split("\nreturn ")[0]
    assert header.startswith("-- ")
    for word in ("KEYS[1]", "ARGV", "Returns"):
        assert word in header


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in PRELUDES | {"attach"}])
def test_a_script_is_known_by_its_whole_text(name: str) -> None:
    """Another text is another function; a script that reads is not allowed to write, and one that writes is."""
    script = load_script(name)
    assert read_lua(name) in script.library
    assert script.library.startswith(f"#!lua name={script.function}\n")
    assert make_script(name, read_lua(name) + " ").function != script.function
    flags = re.search(r"flags = \{ (.*?) \}", script.library)
    assert flags is not None
    assert ("no-writes" in flags[1]) == (name in READING)


def test_every_script_has_a_command() -> None:
    """No script lies about that nothing calls."""
    bench_id = "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0"
    made: list[Command[Any]] = [
        commands.enqueue(0, []),
        commands.step(0, worker="w", call=1, lease_ms=1),
        commands.renew(0, [], lease_ms=1),
        commands.cancel(bench_id, by=b"null"),
        commands.change(bench_id),
        commands.delete(bench_id),
        commands.configure(0),
        commands.set_queue_state(0, "a", QueueState.ACTIVE),
        commands.read_queues(0, []),
        commands.list_queues(0),
        commands.purge_queue(0, "a", by=b"null"),
        commands.read_breakers(0),
        commands.read_dead_groups(0),
        commands.list_dead(0),
        commands.release_dead(0, []),
        commands.read_job(bench_id),
        commands.read_events(bench_id),
        commands.read_heads(0, []),
        commands.list_jobs(0, ALICE),
        commands.read_feed(0, "all"),
        commands.count_jobs(0, ALICE),
        worker_commands.beat("w", b"{}", 0, {}, run="r", number=1),
        worker_commands.list_workers(),
        worker_commands.read_durations([]),
        bulk_commands.read_jobs(0, []),
        bulk_commands.list_open(0, ALICE),
        schedule_commands.put_schedule(
            0, "a", version="v", definition=b"{}", origin="api", timing="t", next_ms=1
        ),
        schedule_commands.fire_schedule(
            0, "a", version="v", due_ms=1, last_due_ms=1, next_ms=None, overlap="skip"
        ),
        schedule_commands.run_schedule(0, "a", version="v", job=Submission(bench_id, spec_of(), "a", 1)),
        schedule_commands.pause_schedule(0, "a", pause=True),
        schedule_commands.drop_schedule(0, "a"),
        schedule_commands.list_schedules(0),
        schedule_commands.read_schedule(0, "a"),
        schedule_commands.due_schedules(0),
    ]
    assert {command.script for command in made} | {"attach"} | PRELUDES == set(SCRIPTS)


class Monitor:
    """What the store was told by scripts while this was open."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._monitor = bench.raw.monitor()

    def __enter__(self) -> Self:
        self._monitor.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.__exit__(None, None, None)

    def commands(self) -> Iterator[list[str]]:
        """Yield the scripts' commands up to now."""
        self._bench.raw.echo("that is all")
        while True:
            heard: Any = self._monitor.next_command()
            if heard["command"] == "ECHO that is all":
                return
            if heard["client_type"] == "lua":
                yield heard["command"].split(" ")


def do_what_schedules_need(bench: Bench) -> None:
    """Store a schedule, fire it, run it, pause it, and remove it."""
    bench.run(
        schedule_commands.put_schedule(
            0, "s", version="v", definition=b"{}", origin="api", timing="t", next_ms=START_MS
        )
    )
    bench.run(schedule_commands.due_schedules(0))
    for due_ms in (START_MS, START_MS + 1):
        bench.run(
            schedule_commands.fire_schedule(
                0, "s", version="v", due_ms=due_ms, last_due_ms=due_ms, next_ms=due_ms + 1,
                overlap="replace", jobs=[(due_ms, bench.submission())],
            )
        )  # fmt: skip
    bench.run(schedule_commands.run_schedule(0, "s", version="v", job=bench.submission()))
    for pause in (True, False):
        bench.run(schedule_commands.pause_schedule(0, "s", pause=pause))
    bench.run(schedule_commands.read_schedule(0, "s"))
    bench.run(schedule_commands.list_schedules(0))
    bench.run(schedule_commands.drop_schedule(0, "s"))


def do_everything(bench: Bench) -> None:
    """Call every script so that each of its branches touches what it may touch."""
    bench.enqueue(bench.submission(idempotency_key="k"), bench.submission(due="+5", priority=1))
    bench.enqueue(bench.submission(idempotency_key="k"), bench.submission(Tenant("alone")))
    bench.add(priority=9, due="+5")
    claims = bench.step(wants=[("default", 9)]).claims
    for verb in (Verb.PROGRESS, Verb.PROGRESS, Verb.LOG, Verb.OUTPUT):
        bench.write(claims[0], verb, {})
    bench.cancel(claims[0].id)
    bench.write(claims[0], Verb.CANCEL)
    bench.write(claims[1], Verb.RETRY, {}, {"delay_ms": 5})
    bench.advance(5)
    bench.step()
    done, failed, lost = (bench.claim() for _ in range(3))
    bench.complete(done)
    bench.write(failed, Verb.FAIL, {})
    bench.run(commands.renew(0, [(lost.id, lost.attempt)], lease_ms=10))
    bench.advance(10)
    bench.step()
    bench.cancel(lost.id)
    bench.run(commands.delete(done.id))
    do_what_gates_and_graves_need(bench)
    do_what_schedules_need(bench)
    do_what_flows_need(bench)
    for job_id in (failed.id, done.id):
        bench.run(commands.read_job(job_id))
        bench.run(commands.read_events(job_id))
    bench.run(commands.read_heads(0, [failed.id]))
    bench.run(commands.list_jobs(0, ALICE))
    bench.run(commands.count_jobs(0, ALICE))
    bench.run(worker_commands.beat("w", b"{}", 15_000, {"demo.steps": {3: 1}}, run="r", number=1))
    bench.run(worker_commands.list_workers())
    bench.run(worker_commands.read_durations(["demo.steps"]))
    for feed in ("all", "g:acme"):
        bench.feed(feed)
        bench.feed(feed, "0:0")
    bench.begin_generation()
    bench.advance(31 * 86_400_000)
    bench.step()


def do_what_flows_need(bench: Bench) -> None:
    """A flow that completes, one that fails, and one that is cancelled."""
    step = PlannedStep("a", Submission("", spec_of(), "default", 3))
    needy = PlannedStep(
        "b", Submission("", spec_of(input={"n": {"$result": "a"}}), "default", 3), (0,), {"a": 0}
    )
    for verb in (Verb.COMPLETE, Verb.FAIL, Verb.CANCEL):
        plan = FlowPlan((step, needy), "continue", 60)
        bench.enqueue(Submission(bench.new_id(), spec_of(), "flows", 3, flow=plan))
        claim = bench.claim()
        bench.write(claim, Verb.PROGRESS, {"percent": 1})
        bench.write(claim, verb, {})
    bench.complete(bench.claim())


def do_what_gates_and_graves_need(bench: Bench) -> None:
    """Limits, keys, breakers, expiry, dead letters, and what operators do."""
    limits = QueueLimits(100, 100, Rate(9, 60), Rate(1, 60), Rate(8, 60))
    bench.run(commands.configure(0, queues={"a": limits}, dependencies={"api": Breaker(failures=1)}))
    made = {"queue": "a", "concurrency_key": "k", "dedup_key": "d", "dependency": "api", "expires": "+900000"}
    first = bench.start(Tenant("zoe", "z"), **made)
    bench.add(Tenant("zoe", "z"), queue="a", concurrency_key="k")
    other = bench.add(Tenant("zoe", "z"), queue="a", priority=4)
    bench.step(wants=[("a", 5)])
    bench.run(commands.set_queue_state(0, "a", QueueState.PAUSED))
    bench.run(commands.change(other, priority=1))
    bench.run(commands.change(other, due_ms=bench.now_ms + 60_000))
    bench.run(commands.read_queues(0, ["a"]))
    bench.run(commands.list_queues(0))
    bench.run(commands.read_job(other))
    bench.write(first, Verb.FAIL, {"code": "c", "type": "T", "message": "m"}, {"dead": True, "stack": "s"})
    bench.run(commands.set_queue_state(0, "a", QueueState.ACTIVE))
    for read in (commands.read_breakers(0), commands.read_dead_groups(0), commands.list_dead(0)):
        bench.run(read)
    bench.run(commands.list_dead(0, queue="a", fingerprint="f"))
    bench.run(commands.release_dead(0, [first.id]))
    bench.add(Tenant("zoe", "z"), queue="a", dependency="api")
    bench.step(wants=[("a", 5)])
    bench.advance(120_000)
    bench.step(wants=[("a", 5)])
    bench.run(commands.purge_queue(0, "a", by=b'"root"'))


@pytest.fixture
def monitored(private_valkey: EmbeddedValkey, keyspace: Keyspace) -> Iterator[tuple[Bench, list[list[str]]]]:
    """Give what the scripts told a store while everything was done to it."""
    bench = Bench(private_valkey.url, keyspace)
    bench.checks = False
    listener = bench.raw.pubsub()
    listener.ssubscribe(bench.keyspace.feed_channel(0, "all"))
    assert listener.get_sharded_message(timeout=5) is not None
    with Monitor(bench) as monitor:
        do_everything(bench)
        heard = list(monitor.commands())
    yield bench, heard
    listener.close()
    bench.close()


def test_every_key_the_scripts_touch_is_documented_and_no_other(
    monitored: tuple[Bench, list[list[str]]],
) -> None:
    """The prelude's header is the list of keys and channels, and all of them begin with the shard's prefix."""
    bench, heard = monitored
    header = read_lua("prelude").split("\nlocal ")[0]
    keys = set(re.findall(r"(?:--|  ) +:(\w+)(?::<\w+>)* +(?:hash|string|list|zset)", header))
    channels = set(re.findall(r" :(\w+):<\w+> (?:a job|\")", header))
    touched: dict[str, set[str]] = {"keys": set(), "channels": set()}
    for name, *args in heard:
        if name in {"TIME", "INFO"}:
            continue
        is_about_channels = name in {"PUBSUB", "SPUBLISH"}
        names = args[1:] if name == "PUBSUB" else args[::2] if name == "MSET" else args[:1]
        for touched_name in names:
            assert touched_name.startswith(bench.prefix + ":"), f"{name} touches {touched_name}"
            family = touched_name.removeprefix(bench.prefix + ":").split(":")[0]
            touched["channels" if is_about_channels else "keys"].add(family)
    assert touched == {"keys": keys, "channels": channels}


def test_no_script_walks_over_all_keys(monitored: tuple[Bench, list[list[str]]]) -> None:
    """Nor reads a collection without a bound, nor publishes but on sharded channels."""
    _, heard = monitored
    names = {name for name, *_ in heard}
    assert not names & (UNBOUNDED | {"PUBLISH"})
    assert {"SPUBLISH", "MSET", "ZADD"} <= names


def test_every_kind_of_event_is_written(monitored: tuple[Bench, list[list[str]]]) -> None:
    """What was done above covers the whole table of events (contract §3)."""
    _, heard = monitored
    texts = " ".join(" ".join(command) for command in heard if command[0] in {"RPUSH", "LSET"})
    written = set(re.findall(r'\\?"kind\\?":\\?"(\w+)', texts))
    assert written == {kind.value for kind in EventKind}


def test_every_field_of_a_record_is_documented() -> None:
    """The prelude's header names each that a script loads or sets."""
    header = read_lua("prelude").split("\nlocal ")[0]
    described = " ".join(line.removeprefix("--") for line in header.splitlines()).split("Its fields:")[1]
    text = "".join(read_lua(name) for name in SCRIPTS)
    fields = set(re.findall(r"set\(job, '(\w+)'", text)) | set(re.findall(r"job\.(\w+) = ", text))
    for table in re.findall(r"(?:__index = |local job = setmetatable\()\{(.*?)\}", text, re.DOTALL):
        fields |= set(re.findall(r"(\w+) = ", table))
    fields -= {"id"}
    assert len(fields) > 20
    for field in fields:
        assert re.search(rf"[, ]{field} ", described), f"{field} is not described"
