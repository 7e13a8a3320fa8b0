"""Whether the store holds what the model holds: no more, no less, and everything at the same place."""

from __future__ import annotations

import itertools

import orjson

from tidings.protocol import JobState
from tidings_tasks.store import BreakerState, commands
from tidings_tasks.store.bulk_commands import read_jobs

from .bench import Bench
from .model import Model
from .model_job import ModelJob
from .snapshot import Snapshot

__all__ = ["compare"]

INDEXES: dict[JobState, str] = {
    JobState.SCHEDULED: ":due",
    JobState.RETRYING: ":due",
    JobState.RUNNING: ":lease",
    JobState.COMPLETED: ":done",
    JobState.FAILED: ":done",
    JobState.CANCELLED: ":done",
}


def compare(bench: Bench, model: Model) -> None:
    """Assert that both hold the same."""
    snapshot = bench.snapshot()
    assert {key[3:] for key in snapshot if key.startswith(":j:")} == set(model.jobs)
    for job in model.jobs.values():
        _compare_job(snapshot, job)
        if job.head <= 2:
            found = bench.store.run(commands.read_events(job.id))
            assert found is not None
            assert [orjson.loads(text) for text in found.events] == job.log
    _compare_turns(snapshot, model)
    _compare_feeds(snapshot, model)
    _compare_keys(snapshot, model)
    _compare_gates(bench, snapshot, model)
    _compare_reasons(bench, model)
    _compare_dead(bench, snapshot, model)


def _compare_job(snapshot: Snapshot, job: ModelJob) -> None:
    content = snapshot[f":j:{job.id}"].content
    record = {k.decode(): v.decode() if isinstance(v, bytes) else v for k, v in content.items()}
    assert job.state is not None
    assert record["s"] == job.state.value
    numbers = {
        "a": job.attempt, "t": job.tries, "lw": job.lost, "w": job.last_write, "n": job.head, "p": job.priority,
        "x": job.expires_ms or 0, "ma": job.submission.spec.max_attempts,
    }  # fmt: skip
    assert {name: record.get(name, 0) for name in numbers} == numbers
    assert record.get("pk", "") == job.gate
    assert record["e"] == job.epoch
    assert record.get("fk", "") == ",".join(f"{epoch}:{head}" for epoch, head in job.forks)
    if job.head > 1 and "dl" not in record:
        assert [orjson.loads(text) for text in snapshot[f":e:{job.id}"].content] == job.log
    if job.progress is not None and "lb" not in record:
        assert orjson.loads(snapshot[f":x:{job.id}"].content[b"p"]) == job.progress
    index = INDEXES.get(job.state, f":p:{job.gate}" if job.gate else f":q:{job.queue}")
    member = f"{job.id}:{job.attempt}" if job.state is JobState.RUNNING else job.id
    assert snapshot[index].content[member.encode()] == job.score


def _compare_turns(snapshot: Snapshot, model: Model) -> None:
    found = {key[3:]: kept.content for key, kept in snapshot.items() if key.startswith(":v:")}
    turns = {
        (queue, member.decode()): turn for queue, members in found.items() for member, turn in members.items()
    }
    assert turns == model.lines.last_turns()


def _compare_feeds(snapshot: Snapshot, model: Model) -> None:
    for name, feed in model.feeds.items():
        head = snapshot[f":f:{name}"].content
        events = [orjson.loads(text) for text in snapshot[f":fl:{name}"].content]
        assert int(head[b"n"]) == len(feed.entries)
        assert [(e["job_id"], e["seq"], e["kind"]) for e in events] == [entry[1:] for entry in feed.entries]
        generations = [generation for generation, _ in itertools.groupby(e[0] for e in feed.entries)]
        forks = [pair.split("_")[0] for pair in head[b"fk"].decode().split(",") if pair]
        assert [*forks, head[b"g"].decode()][-17:] == generations[-17:]


def _compare_keys(snapshot: Snapshot, model: Model) -> None:
    keys = {key: kept.content for key, kept in snapshot.items() if key.startswith(":i:")}
    assert keys == {
        f":i:{scope}:{key}": f"{job_id} {fingerprint}".encode()
        for (scope, key), (job_id, fingerprint) in model.desk.keys.items()
    }
    held = {key: (kept.content, kept.expires) for key, kept in snapshot.items() if key.startswith(":u:")}
    assert held == {
        f":u:{scope}:{key}": (job_id.encode(), until_ms is not None)
        for (scope, key), (job_id, until_ms) in model.desk.dedup.items()
    }


def _compare_gates(bench: Bench, snapshot: Snapshot, model: Model) -> None:
    gates = model.gates
    timers = snapshot[":gates"].content if ":gates" in snapshot else {}
    assert {gate.decode(): ms for gate, ms in timers.items()} == gates.timers
    buckets = {key[3:]: float(kept.content) for key, kept in snapshot.items() if key.startswith(":b:")}
    assert {gate: ms for gate, ms in buckets.items() if ms > model.now_ms} == {
        gate: round(float(ms), 3) for gate, ms in gates.full_at_ms.items() if ms > model.now_ms
    }
    found = bench.store.run(commands.read_breakers(0))
    assert {b.name: (b.state, b.failures, b.open_until_ms) for b in found} == {
        name: (c.state, c.failures, None if c.state is BreakerState.CLOSED else c.until_ms)
        for name, c in gates.circuits.items()
        if c.state is not BreakerState.CLOSED or c.failures
    }


def _compare_reasons(bench: Bench, model: Model) -> None:
    queued = model.in_order(JobState.QUEUED)
    records = bench.store.run(read_jobs(0, [job.id for job in queued])) if queued else []
    for record, job in zip(records, queued, strict=True):
        assert record is not None
        assert record.waiting_for == model.gates.reason_to_wait(job)
        assert record.queue_place == model.gates.place_in_queue(job)


def _compare_dead(bench: Bench, snapshot: Snapshot, model: Model) -> None:
    dead = [job for job in model.jobs.values() if job.dead_group]
    prints = {job.id: snapshot[f":j:{job.id}"].content[b"fp"] for job in dead}
    assert len(set(prints.values())) == len({job.dead_group for job in dead}), "errors are grouped otherwise"
    expected = {}
    for job in dead:
        times = [other.died_ms for other in dead if other.dead_group == job.dead_group]
        assert job.dead_group is not None
        expected[prints[job.id].decode()] = (*job.dead_group[:4], len(times), min(times), max(times))
    groups = bench.store.run(commands.read_dead_groups(0))
    assert {
        f"{g.fingerprint}:{g.queue}": (g.queue, g.type, g.code, g.error_type, g.count, g.first_ms, g.last_ms)
        for g in groups
    } == expected
