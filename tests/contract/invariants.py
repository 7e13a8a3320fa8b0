"""What holds in the store after every step: indexes, counts, logs and feeds agree with the records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import orjson
import pytest

from tidings.protocol import LIFECYCLE, TERMINAL_KINDS, TERMINAL_STATES, Event, EventKind, JobState
from tidings.protocol.events import ENVELOPE_HEAD

from .gate_invariants import check_gates
from .snapshot import Snapshot

__all__ = ["check_feed", "check_flows", "check_invariants", "check_log", "feed_names", "job_ids"]

LOG_MAX_ENTRIES, LOG_MAX_BYTES, FEED_MAX_ENTRIES = 10_000, 4_194_304, 1_000
WAITING_FOR_TIME = {JobState.SCHEDULED, JobState.RETRYING}
NEWEST_KINDS: dict[JobState, set[EventKind]] = {
    JobState.SCHEDULED: {EventKind.SCHEDULED},
    JobState.QUEUED: {EventKind.QUEUED},
    JobState.RUNNING: {
        EventKind.STARTED,
        EventKind.PROGRESS,
        EventKind.LOG,
        EventKind.OUTPUT,
        EventKind.CANCELLING,
    },
    JobState.RETRYING: {EventKind.RETRYING},
    JobState.COMPLETED: {EventKind.COMPLETED},
    JobState.FAILED: {EventKind.FAILED},
    JobState.CANCELLED: {EventKind.CANCELLED},
}
"""Which event a log ends with, given the job's state."""


def job_ids(snapshot: Snapshot) -> set[str]:
    """Return the ids of all jobs in the store."""
    return {key.removeprefix(":j:") for key in snapshot if key.startswith(":j:")}


def feed_names(owner_scope: str) -> list[str]:
    """Return the feeds that a job of this owner writes to."""
    org, _, _ = owner_scope.partition("/")
    return [f"o:{owner_scope}", "all", *([f"g:{org}"] if org else [])]


def check_invariants(snapshot: Snapshot) -> None:
    """Assert everything that one snapshot can show."""
    records = {job_id: _read_record(snapshot, job_id) for job_id in job_ids(snapshot)}
    _check_indexes(snapshot, records)
    for job_id, record in records.items():
        if record["n"] == 1:
            assert f":e:{job_id}" not in snapshot, "a log is kept for an event that needs none"
            assert record["s"] in ("scheduled", "queued")
            continue
        if record.get("dl"):
            assert f":e:{job_id}" not in snapshot, "a log is kept that needs not be"
            assert (record["s"], record["n"], record["a"]) == ("running", 2, 1)
            continue
        check_log(snapshot[f":e:{job_id}"].content, record, job_id)
        progress = [e for e in _events(snapshot[f":e:{job_id}"].content) if e.kind is EventKind.PROGRESS]
        extras = snapshot[f":x:{job_id}"].content if f":x:{job_id}" in snapshot else {}
        if progress and "lb" not in record:
            assert orjson.loads(extras[b"p"]) == progress[-1].data
    for family in ("m", "x", "e"):
        orphans = {k for k in snapshot if k.startswith(f":{family}:")} - {f":{family}:{i}" for i in records}
        assert not orphans, f"left behind: {orphans}"
    check_flows(snapshot, records)
    for key, kept in snapshot.items():
        if key.startswith(":wake:"):
            assert len(kept.content) == 1
        if key.startswith((":i:", ":t:", ":f:", ":fl:", ":k:", ":mb:", ":b:")):
            assert kept.expires, f"{key} never expires"
        if key.startswith(":u:") and not kept.expires:
            holder = records.get(kept.content.decode(), {"s": "completed"})
            assert JobState(holder["s"]) not in TERMINAL_STATES, f"{key} is held for ever"
        if key.startswith(":f:"):
            log = snapshot.get(":fl:" + key.removeprefix(":f:"))
            check_feed(kept.content, log.content if log else [])


def check_log(texts: list[bytes], record: dict[str, Any], job_id: str) -> None:
    """Assert that a log covers its numbers without a gap up to the head, and ends as the job's state says."""
    events = _events(texts)
    head, state = int(record["n"]), JobState(record["s"])
    assert events, f"{job_id} has no log"
    assert len(events) <= LOG_MAX_ENTRIES
    size = sum(map(len, texts))
    assert size == int(record["b"]), "the record's count of the log's bytes is off"
    assert size <= LOG_MAX_BYTES or len(events) == 1
    at = events[0].prev if events[0].prev is not None else events[0].seq - 1
    epochs = dict(pair.split(":") for pair in record.get("fk", "").split(",") if pair)
    for text, event in zip(texts, events, strict=True):
        base = event.prev if event.prev is not None else event.seq - 1
        assert base == at, f"{job_id}: event {event.seq} follows on {base}, the one before is {at}"
        assert event.seq > base
        assert event.prev is None or event.kind is EventKind.PROGRESS
        assert event.job_id == job_id
        match = ENVELOPE_HEAD.match(text)
        assert match is not None, f"not how an envelope begins: {text[:100]!r}"
        assert match[5].decode() == event.kind
        if event.epoch != record["e"]:
            # An epoch older than those the record remembers is possible; one it remembers has a bound.
            assert event.seq <= int(epochs.get(event.epoch, head))
        at = event.seq
    assert at == head, f"{job_id}: the log ends at {at}, the head is {head}"
    assert events[-1].kind in NEWEST_KINDS[state], f"{job_id} is {state}, its log ends with {events[-1].kind}"
    assert not [e for e in events[:-1] if e.kind in TERMINAL_KINDS], "an event follows the terminal one"
    for event, following in pairwise(events):
        is_run = event.kind is following.kind is EventKind.PROGRESS and event.epoch == following.epoch
        assert not is_run, "a run of progress is not folded"


def check_feed(head: dict[bytes, bytes], texts: list[bytes]) -> None:
    """Assert that a feed has a name for its history, holds lifecycle events alone, and no more than it counts."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,32}", head[b"e"].decode())
    assert len(texts) <= min(FEED_MAX_ENTRIES, int(head[b"n"]))
    last: dict[str, int] = {}
    for event in _events(texts):
        assert event.kind in LIFECYCLE
        assert last.get(event.job_id, 0) < event.seq, "a job's events are out of order in a feed"
        last[event.job_id] = event.seq


def check_flows(snapshot: Snapshot, records: dict[str, dict[str, Any]]) -> None:
    """Assert that what is kept of each open flow agrees with its steps' jobs, and that nothing is kept of others."""
    flows = {i for i, r in records.items() if "fl" in r and JobState(r["s"]) not in TERMINAL_STATES}
    assert {key.removeprefix(":fw:") for key in snapshot if key.startswith(":fw:")} == flows
    for flow_id in flows:
        kept = {name.decode(): value for name, value in snapshot[f":fw:{flow_id}"].content.items()}
        count = int(kept["n"])
        states = {i: kept[f"s{i}"].decode() for i in range(1, count + 1) if f"s{i}" in kept}
        ended = [state for state in states.values() if state != "open"]
        assert int(kept.get("e", 0)) == len(ended)
        assert int(kept.get("k", 0)) == ended.count("completed")
        percents = [float(kept.get(f"c{i}", 0)) for i in range(1, count + 1)]
        assert float(kept.get("x", 0)) == pytest.approx(sum(percents), abs=0.01 * count)
        parts = {int(r["pi"]): r for r in records.values() if r.get("pa") == flow_id}
        assert set(parts) <= set(states)
        for i in range(1, count + 1):
            state, part = states.get(i), parts.get(i)
            assert (f"m{i}" in kept) == (state is None), f"step {i} is {state}"
            if state == "open":
                assert part is not None
                assert JobState(part["s"]) not in TERMINAL_STATES
            elif part is not None:
                assert part["s"] == state
        if records[flow_id]["s"] == "running":
            assert "open" in states.values(), "nothing will end this flow"
            is_stopped = "g" in kept or "cb" in records[flow_id]
            assert is_stopped or all(i in states for i in range(1, count + 1) if kept[f"w{i}"] == b"0")
        else:
            is_parked = records[flow_id]["s"] == "queued" and "pk" in records[flow_id]
            assert is_parked or records[flow_id]["s"] == "scheduled"
            assert not states
    open_parts = [i for i, r in records.items() if "pa" in r and JobState(r["s"]) not in TERMINAL_STATES]
    assert all(records[i]["pa"] in flows for i in open_parts), "a step outlives its flow"


def _read_record(snapshot: Snapshot, job_id: str) -> dict[str, Any]:
    content = snapshot[f":j:{job_id}"].content
    return {k.decode(): v.decode() if isinstance(v, bytes) else v for k, v in content.items()}


def _events(texts: Iterable[bytes]) -> list[Event]:
    return [Event.model_validate_json(text) for text in texts]


def _check_indexes(snapshot: Snapshot, records: dict[str, dict[str, Any]]) -> None:
    states = {job_id: JobState(record["s"]) for job_id, record in records.items()}
    families: dict[str, dict[str, Any]] = {}
    for key, kept in snapshot.items():
        _, family, rest = f"{key}:".split(":", 2)
        families.setdefault(family, {})[rest.rstrip(":")] = kept.content

    def members(family: str) -> dict[str, float]:
        return {m.decode(): score for zset in families.get(family, {}).values() for m, score in zset.items()}

    queued = [(i, records[i]) for i, s in states.items() if s is JobState.QUEUED]
    for family, place in (("q", "q"), ("p", "pk")):
        standing = {
            (name, member.decode(), int(score) >> 48)
            for name, zset in families.get(family, {}).items()
            for member, score in zset.items()
        }
        assert standing == {
            (r[place], i, int(r["p"])) for i, r in queued if ("pk" in r) == (family == "p")
        }, f"{family}: not where the records say"
    check_gates(families, records, states)
    waiting = {*WAITING_FOR_TIME, JobState.QUEUED}
    assert members("exp") == {
        i: float(records[i]["x"]) for i, s in states.items() if s in waiting and "x" in records[i]
    }
    dead = {i: r["fp"] for i, r in records.items() if "fp" in r}
    assert set(members("dead")) == set(dead)
    assert {m.decode(): group for group, zset in families.get("dl", {}).items() for m in zset} == dead
    assert {group.decode() for group in families.get("dg", {}).get("", {})} == set(dead.values())
    assert members("due") == {i: float(records[i]["d"]) for i, s in states.items() if s in WAITING_FOR_TIME}
    assert set(members("lease")) == {
        f"{i}:{records[i]['a']}" for i, s in states.items() if s is JobState.RUNNING
    }
    assert set(members("done")) == {i for i, s in states.items() if s in TERMINAL_STATES}

    ended: dict[str, set[str]] = {}
    open_jobs: dict[str, set[str]] = {}
    counted: dict[str, Counter[str]] = {}
    for job_id, record in records.items():
        counted.setdefault(record["ow"], Counter())[record["s"]] += 1
        if states[job_id] in TERMINAL_STATES:
            ended.setdefault(record["ow"], set()).add(job_id)
        else:
            for feed in feed_names(record["ow"]):
                open_jobs.setdefault(feed, set()).add(job_id)
    assert {o: {m.decode() for m in z} for o, z in families.get("o", {}).items()} == ended
    assert {f: {m.decode() for m in z} for f, z in families.get("w", {}).items()} == open_jobs
    assert {
        o: {s.decode(): int(c) for s, c in counts.items()} for o, counts in families.get("n", {}).items()
    } == counted
    numbers = Counter(record["q"] for i, record in records.items() if states[i] is JobState.RUNNING)
    numbers.update(f"w:{record['q']}" for _, record in queued)
    assert {field.decode(): int(n) for field, n in families.get("qn", {}).get("", {}).items()} == numbers
