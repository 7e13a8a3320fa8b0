"""Logs: what folds, what is bounded, and reading from every position (contract §3)."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from tidings.protocol import BEGINNING, Position, accepts
from tidings_tasks.store import Claim, EventsRead, Verb, commands

from .bench import Bench

VERBS = (Verb.PROGRESS, Verb.LOG, Verb.OUTPUT)


def places(texts: list[bytes]) -> list[tuple[int, int | None, str]]:
    """Return seq, prev and kind of envelopes."""
    events = [orjson.loads(text) for text in texts]
    return [(event["seq"], event.get("prev"), event["kind"]) for event in events]


def write_at_random(bench: Bench, claim: Claim, seed: int, length: int) -> None:
    """Write a log with runs of progress of all lengths, in batches of all lengths."""
    rng = random.Random(seed)
    left = length
    while left:
        size = min(left, rng.randint(1, 7))
        verbs = rng.choices(VERBS, weights=(6, 1, 1), k=size)
        bench.step([bench.make_write(claim, verb, {"n": rng.random()}) for verb in verbs])
        left -= size


def test_progress_that_follows_progress_takes_its_place(bench: Bench) -> None:
    """And says by `prev` what it follows on; what comes between begins a new run."""
    claim = bench.start()
    for percent in (10, 20, 30):
        bench.progress(claim, percent)
    bench.write(claim, Verb.LOG, {"message": "half"})
    for percent in (40, 50):
        bench.progress(claim, percent)
    bench.complete(claim)
    assert places(bench.read(claim.id).events) == [
        (1, None, "queued"),
        (2, None, "started"),
        (5, 2, "progress"),
        (6, None, "log"),
        (8, 6, "progress"),
        (9, None, "completed"),
    ]


def test_folding_is_the_same_in_one_batch_and_in_many(bench: Bench) -> None:
    """Only writes are batched, not events."""
    one, many = bench.start(), bench.start(queue="other")
    verbs = [Verb.PROGRESS, Verb.PROGRESS, Verb.LOG, Verb.PROGRESS, Verb.OUTPUT, Verb.PROGRESS, Verb.PROGRESS]
    bench.step([bench.make_write(one, verb, {"n": n}) for n, verb in enumerate(verbs)])
    for n, verb in enumerate(verbs):
        bench.write(many, verb, {"n": n})
    assert places(bench.read(one.id).events) == places(bench.read(many.id).events)


def test_every_event_is_published_as_it_happened(bench: Bench) -> None:
    """Live watchers get each progress event, without `prev`, and otherwise what the log keeps."""
    claim = bench.start()
    listener = bench.raw.pubsub()
    listener.ssubscribe(bench.keyspace.job_channel(0, claim.id))
    assert listener.get_sharded_message(timeout=5) is not None
    bench.checks = False
    bench.step([bench.make_write(claim, Verb.PROGRESS, {"percent": n}) for n in (1, 2, 3)])
    bench.complete(claim)
    heard: list[dict[str, Any]] = []
    while len(heard) < 4:
        message: Any = listener.get_sharded_message(timeout=5)
        assert message is not None
        heard.append(orjson.loads(message["data"]))
    listener.close()
    assert [(e["seq"], e.get("prev"), e["kind"]) for e in heard] == [
        (3, None, "progress"),
        (4, None, "progress"),
        (5, None, "progress"),
        (6, None, "completed"),
    ]
    kept = bench.events(claim.id)[2:]
    assert kept == [heard[2] | {"prev": 2}, heard[3]]


@pytest.mark.parametrize("seed", range(4))
def test_a_log_is_read_from_every_position(bench: Bench, seed: int) -> None:
    """From each, what comes is accepted one by one and ends at the head: nothing twice, nothing missed."""
    claim = bench.start()
    write_at_random(bench, claim, seed, 60)
    bench.checks = False
    whole = bench.read(claim.id)
    for start in range(whole.head + 1):
        found = bench.read(claim.id, Position(whole.epoch, start))
        assert not found.reset
        at = start
        for seq, prev, _ in places(found.events):
            assert accepts(at, seq=seq, prev=prev)
            at = seq
        assert at == whole.head
        assert found.events == whole.events[len(whole.events) - len(found.events) :]


@pytest.mark.parametrize(("limit", "max_bytes"), [(1, 10**6), (7, 10**6), (1000, 1), (1000, 700), (3, 500)])
def test_pages_join_to_the_whole_log(bench: Bench, limit: int, max_bytes: int) -> None:
    """Each page has at least one event, and no more than either bound allows."""
    claim = bench.start()
    write_at_random(bench, claim, 7, 50)
    bench.checks = False
    whole = bench.read(claim.id)
    at, joined = BEGINNING, []
    while at.seq < whole.head:
        page = bench.read(claim.id, at, limit=limit, max_bytes=max_bytes)
        assert 1 <= len(page.events) <= limit
        assert len(page.events) == 1 or sum(map(len, page.events)) <= max_bytes
        joined += page.events
        at = Position(page.epoch, places(page.events)[-1][0])
    assert joined == whole.events


def test_a_reader_at_the_head_gets_nothing(bench: Bench) -> None:
    """And no job, unless it asks for one."""
    claim = bench.start()
    head = bench.read(claim.id)
    found = bench.read(claim.id, Position(head.epoch, head.head))
    assert (found.events, found.reset, found.job) == ([], False, None)
    with_job = bench.read(claim.id, Position(head.epoch, head.head), with_job=True)
    assert with_job.job == bench.record(claim.id)


@pytest.mark.parametrize("position", ["zz:1", "zz:0", "{epoch}:3", "{epoch}:9999999999999999", "0:0"])
def test_a_position_that_is_not_of_this_log_is_reset(bench: Bench, position: str) -> None:
    """An unknown epoch, or a number the log has not reached: the answer is the job as it is."""
    claim = bench.start()
    epoch = bench.record(claim.id).epoch
    found = bench.read(claim.id, position.format(epoch=epoch))
    assert (found.reset, found.events, found.head) == (True, [], 2)
    assert found.job == bench.record(claim.id)
    assert (found.scope, found.state) == ("acme/alice", "running")


def test_a_reset_of_an_ended_job_brings_its_last_event(bench: Bench) -> None:
    """So that a watcher learns of the end as it always does."""
    claim = bench.start()
    bench.complete(claim, 5)
    found = bench.read(claim.id, "zz:1")
    assert found.reset
    assert places(found.events) == [(3, None, "completed")]


def test_a_log_that_is_not_there_is_none(bench: Bench) -> None:
    """For a job that never was, and for one that was deleted."""
    claim = bench.start()
    bench.complete(claim)
    bench.run(commands.delete(claim.id))
    assert bench.run(commands.read_events(claim.id)) is None
    assert bench.run(commands.read_events(bench.new_id())) is None
    assert bench.run(commands.read_heads(0, [claim.id, bench.new_id()])) == [None, None]


def test_heads_are_read_together(bench: Bench) -> None:
    """In the order asked for, with None for what is gone."""
    claim, waiting = bench.start(), bench.add()
    epoch = bench.record(waiting).epoch
    assert bench.run(commands.read_heads(0, [waiting, bench.new_id(), claim.id])) == [
        commands.Head(epoch, 1, bench.state(waiting)),
        None,
        commands.Head(epoch, 2, bench.state(claim.id)),
    ]


def read_all(bench: Bench, claim: Claim, after: Position) -> EventsRead:
    """Read whatever a log still has."""
    return bench.read(claim.id, after, limit=20_000, max_bytes=100_000_000)


def test_a_log_keeps_its_newest_ten_thousand_entries(bench: Bench) -> None:
    """Positions older than what is kept answer reset, the one right before it does not."""
    claim = bench.start()
    bench.checks = False
    for _ in range(51):
        bench.step([bench.make_write(claim, Verb.LOG, {"message": "x"}) for _ in range(200)])
    head = bench.record(claim.id)
    assert head.head == 10_202
    assert read_all(bench, claim, BEGINNING).reset
    assert read_all(bench, claim, Position(head.epoch, 201)).reset
    kept = read_all(bench, claim, Position(head.epoch, 202))
    assert not kept.reset
    assert [seq for seq, _, _ in places(kept.events)] == list(range(203, 10_203))
    bench.checks = True
    bench.complete(claim)
    assert bench.kinds(claim.id)[-1] == "completed"


def test_a_log_keeps_its_newest_four_mebibytes(bench: Bench) -> None:
    """Counted in the bytes of the entries; folded progress gives back what it took."""
    claim = bench.start()
    bench.checks = False
    chunk = "x" * 100_000
    for n in range(60):
        bench.step([bench.make_write(claim, Verb.OUTPUT, {"chunk": chunk}) for _ in range(1)])
        bench.step([bench.make_write(claim, Verb.PROGRESS, {"message": chunk, "n": n}) for _ in range(2)])
    bench.checks = True
    bench.complete(claim)
    record = bench.record(claim.id)
    texts: Any = bench.raw.lrange(bench.key(f"e:{claim.id}"), 0, -1)
    size = sum(map(len, texts))
    assert 4_194_304 - 101_000 < size <= 4_194_304
    first = orjson.loads(texts[0])
    base = first.get("prev", first["seq"] - 1)
    assert read_all(bench, claim, Position(record.epoch, base - 1)).reset
    assert not read_all(bench, claim, Position(record.epoch, base)).reset


def test_progress_that_grows_in_place_is_counted(bench: Bench) -> None:
    """The bound holds too when no entry is added and the last one becomes larger."""
    claim = bench.start()
    bench.checks = False
    bench.step([bench.make_write(claim, Verb.OUTPUT, {"chunk": "x" * 1_000_000}) for _ in range(4)])
    bench.progress(claim, 1)
    assert len(bench.events(claim.id)) == 7
    bench.checks = True
    bench.write(claim, Verb.PROGRESS, {"message": "x" * 1_000_000})
    assert [event["kind"] for event in bench.events(claim.id)] == ["output"] * 3 + ["progress"]


def test_an_event_larger_than_the_bound_is_kept_alone(bench: Bench) -> None:
    """The newest entry always stays: there is no log without its head."""
    claim = bench.start()
    bench.checks = False
    bench.write(claim, Verb.OUTPUT, {"chunk": "x" * 5_000_000})
    assert bench.kinds(claim.id) == ["output"]
    bench.checks = True
    bench.complete(claim)
    assert bench.kinds(claim.id) == ["completed"]


def test_twenty_thousand_steps_keep_a_short_log(bench: Bench) -> None:
    """Progress folds, however long it goes on."""
    claim = bench.start()
    bench.checks = False
    for batch in range(20):
        bench.step([bench.make_write(claim, Verb.PROGRESS, {"n": batch}) for _ in range(1_000)])
    bench.checks = True
    bench.complete(claim)
    assert places(bench.read(claim.id).events) == [
        (1, None, "queued"),
        (2, None, "started"),
        (20_002, 2, "progress"),
        (20_003, None, "completed"),
    ]
    assert orjson.loads(bench.record(claim.id).progress or b"") == {"n": 19}


def test_data_is_kept_byte_for_byte(bench: Bench) -> None:
    """What looks like an envelope inside data changes nothing."""
    claim = bench.start()
    nasty = {"message": '{"job_id":"x","epoch":"y","seq":99,"prev":1,"kind":"completed"}\n\\"☃ %d %s \u0000'}
    bench.write(claim, Verb.LOG, nasty)
    bench.write(claim, Verb.PROGRESS, nasty)
    bench.write(claim, Verb.PROGRESS, nasty)
    bench.complete(claim, nasty)
    events = bench.events(claim.id)
    assert [event["data"] for event in events[2:4]] == [nasty, nasty]
    assert events[4]["data"]["result"] == nasty
    for start in range(6):
        bench.read(claim.id, Position(events[0]["epoch"], start))
