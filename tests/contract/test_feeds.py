"""Feeds: a numbered, capped, resumable log of lifecycle events per owner, per org, and of all (contract §5)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tidings.protocol import Position
from tidings_tasks.store import Tenant, Verb, commands

from .bench import ALICE, Bench

MINE, ORG, ALL = f"o:{ALICE.scope}", "g:acme", "all"
MONTH_MS = 30 * 86_400_000


def kinds(events: list[bytes]) -> list[str]:
    """Return the kinds of envelopes."""
    return [orjson.loads(text)["kind"] for text in events]


def test_a_feed_has_the_lifecycle_events_of_all_its_jobs(bench: Bench) -> None:
    """Numbered from 1, in the order in which they happened; progress, log and output are left out."""
    start = bench.feed(MINE)
    assert (start.epoch, start.head, start.jobs) == ("0", 0, [])
    claim = bench.start()
    for verb in (Verb.PROGRESS, Verb.LOG, Verb.OUTPUT):
        bench.write(claim, verb, {"n": 1})
    other = bench.add()
    bench.cancel(claim.id)
    bench.complete(claim)
    found = bench.feed(MINE, "0:0")
    assert (found.reset, found.jobs, found.first_seq, found.head) == (False, None, 1, 5)
    assert [(orjson.loads(text)["job_id"], kind) for text, kind in zip(found.events, kinds(found.events), strict=True)] == [
        (claim.id, "queued"),
        (claim.id, "started"),
        (other, "queued"),
        (claim.id, "cancelling"),
        (claim.id, "completed"),
    ]  # fmt: skip


def test_every_kind_of_feed_has_its_own_audience(bench: Bench) -> None:
    """An owner's, their org's and that of all; owners without an org are in no org's."""
    bench.add(ALICE)
    bench.add(Tenant("bob", "acme"))
    bench.add(Tenant("alice", "other"))
    bench.add(Tenant("alice"))
    assert [bench.feed(feed).head for feed in (MINE, ORG, ALL, "g:other", "o:/alice", "g:")] == [
        1,
        2,
        4,
        1,
        1,
        0,
    ]


def test_a_feed_is_resumed_from_every_position(bench: Bench) -> None:
    """In pages of any size, each numbered from where it begins."""
    for _ in range(3):
        bench.complete(bench.start())
    bench.checks = False
    head = bench.feed(MINE)
    whole = bench.feed(MINE, Position(head.epoch, 0)).events
    assert len(whole) == head.head == 9
    for start in range(head.head + 1):
        found = bench.feed(MINE, Position(head.epoch, start))
        assert (found.reset, found.first_seq) == (False, start + 1)
        assert found.events == whole[start:]
        assert bench.feed(MINE, Position(head.epoch, start), limit=2).events == whole[start : start + 2]


@pytest.mark.parametrize("position", ["zz:1", "{epoch}:4", "0:1", "zz:0"])
def test_a_position_that_is_not_of_this_feed_is_reset(bench: Bench, position: str) -> None:
    """The answer is what is open now, and the head to go on from."""
    claim = bench.start()
    waiting = bench.add()
    found = bench.feed(MINE, position.format(epoch=bench.feed(MINE).epoch))
    assert (found.reset, found.events, found.head) == (True, [], 3)
    assert found.jobs is not None
    assert [job.id for job in found.jobs] == [waiting, claim.id]


def test_a_snapshot_has_the_newest_hundred_open_jobs(bench: Bench) -> None:
    """Newest first, in every state that is not an end, each as it is now."""
    ended = bench.start()
    bench.complete(ended)
    batch = [bench.submission(due="+1000" if n % 2 else "") for n in range(120)]
    bench.enqueue(*batch)
    found = bench.feed(ALL)
    assert found.jobs is not None
    assert [job.id for job in found.jobs] == [job.id for job in reversed(batch)][:100]
    assert found.jobs[0] == bench.record(batch[-1].id)
    assert not found.reset


def test_a_feed_keeps_its_newest_thousand_entries(bench: Bench) -> None:
    """Older positions answer reset; the one right before what is kept does not."""
    bench.checks = False
    for size in (700, 700, 1):
        bench.enqueue(*[bench.submission() for _ in range(size)])
    bench.add()
    head = bench.feed(MINE)
    assert head.head == 1_402
    assert bench.feed(MINE, Position(head.epoch, 401)).reset
    kept = bench.feed(MINE, Position(head.epoch, 402), limit=5_000)
    assert (kept.reset, kept.first_seq, len(kept.events)) == (False, 403, 1_000)
    assert bench.feed(MINE, "0:0").reset


def test_one_call_may_bring_more_than_a_feed_keeps(bench: Bench) -> None:
    """All are numbered and published, the newest are kept."""
    bench.checks = False
    for _ in range(3):
        bench.enqueue(*[bench.submission() for _ in range(1_000)])
    command = commands.step(0, worker="w", call=1, lease_ms=6000, wants=[("default", 3_000)], most=3_000)
    assert len(bench.run(command).claims) == 3_000
    head = bench.feed(MINE)
    assert head.head == 6_000
    kept = bench.feed(MINE, Position(head.epoch, 5_000), limit=5_000)
    assert len(kept.events) == 1_000
    assert set(kinds(kept.events)) == {"started"}


def test_a_large_result_is_not_copied_into_feeds(bench: Bench) -> None:
    """It is referred to, although the job's own log has it."""
    claim = bench.start()
    bench.complete(claim, "x" * 9_000)
    found = bench.feed(MINE, "0:0")
    assert orjson.loads(found.events[-1])["data"] == {
        "result_ref": f"/api/jobs/{claim.id}/result",
        "duration_s": 0.0,
    }
    assert bench.last_event(claim.id)["data"]["result"] == "x" * 9_000


def listen(bench: Bench, feed: str) -> Any:
    """Subscribe to a feed's channel."""
    listener = bench.raw.pubsub()
    listener.ssubscribe(bench.keyspace.feed_channel(0, feed))
    assert listener.get_sharded_message(timeout=5) is not None
    return listener


def hear(listener: Any, count: int) -> list[tuple[str, str, float | None]]:
    """Return position, kind and percent of so many messages."""
    heard: list[tuple[str, str, float | None]] = []
    while len(heard) < count:
        message = listener.get_sharded_message(timeout=5)
        assert message is not None
        position, text = message["data"].split(b"\n", 1)
        event = orjson.loads(text)
        heard.append((position.decode(), event["kind"], event["data"].get("percent")))
    return heard


@pytest.mark.parametrize("feed", [MINE, ORG, ALL])
def test_a_feed_is_published_with_its_positions(bench: Bench, feed: str) -> None:
    """Progress passes through without a number, and of one call's progress only the latest."""
    listener = listen(bench, feed)
    claim = bench.start()
    bench.checks = False
    writes = [bench.make_write(claim, Verb.PROGRESS, {"percent": n}) for n in (1, 2, 3)]
    bench.step([*writes, bench.make_write(claim, Verb.LOG, {"message": "x"})])
    bench.step(
        [bench.make_write(claim, Verb.PROGRESS, {"percent": 4}), bench.make_write(claim, Verb.COMPLETE)]
    )
    epoch = bench.feed(feed).epoch
    assert hear(listener, 5) == [
        (f"{epoch}:1", "queued", None),
        (f"{epoch}:2", "started", None),
        ("-", "progress", 3),
        ("-", "progress", 4),
        (f"{epoch}:3", "completed", None),
    ]
    listener.close()


def test_a_position_of_an_empty_feed_leads_to_its_first_entry(bench: Bench) -> None:
    """Nothing was missed since then while the whole log is there."""
    assert bench.feed(MINE, "0:0").events == []
    bench.add()
    found = bench.feed(MINE, "0:0")
    assert (found.reset, kinds(found.events)) == (False, ["queued"])


def test_a_log_that_expired_leaves_no_position_behind_valid(bench: Bench) -> None:
    """The head is kept much longer than the log, so a gap cannot be taken for a beginning."""
    bench.add()
    bench.add()
    head = bench.feed(MINE)
    bench.raw.delete(bench.key(f"fl:{MINE}"))
    for position in ("0:0", f"{head.epoch}:0", f"{head.epoch}:1"):
        assert bench.feed(MINE, position).reset
    assert not bench.feed(MINE, f"{head.epoch}:2").reset
    bench.add()
    assert bench.feed(MINE, "0:0").reset
    assert bench.feed(MINE, f"{head.epoch}:1").reset
    found = bench.feed(MINE, f"{head.epoch}:2")
    assert (found.reset, found.first_seq, kinds(found.events)) == (False, 3, ["queued"])


def test_a_feed_that_was_forgotten_begins_another_history(bench: Bench) -> None:
    """Its epoch is new, so no position of the old one can look like one of the new."""
    bench.add()
    old = bench.feed(MINE)
    bench.raw.delete(bench.key(f"fl:{MINE}"), bench.key(f"f:{MINE}"))
    bench.advance(400 * 86_400_000)
    bench.add()
    bench.add()
    new = bench.feed(MINE)
    assert new.epoch != old.epoch
    assert bench.feed(MINE, Position(old.epoch, 1)).reset
    assert bench.feed(MINE, Position(old.epoch, 0)).reset


def ttl_ms(bench: Bench, key: str) -> int:
    """Return how long a key has left, ms."""
    found: Any = bench.raw.pttl(bench.key(key))
    return int(found)


def test_a_feed_in_use_does_not_expire(bench: Bench) -> None:
    """Its time is set again a day later at the first entry, whatever that entry's number."""
    bench.add()
    log, head = f"fl:{MINE}", f"f:{MINE}"
    assert MONTH_MS - 60_000 < ttl_ms(bench, log) <= MONTH_MS
    assert ttl_ms(bench, head) > 12 * MONTH_MS
    for key in (log, head):
        bench.raw.pexpire(bench.key(key), 1_000_000)
    bench.advance(86_399_999)
    bench.add()
    assert ttl_ms(bench, log) <= 1_000_000
    bench.advance(1)
    bench.add()
    assert ttl_ms(bench, log) > MONTH_MS - 60_000
    assert ttl_ms(bench, head) > 12 * MONTH_MS


def test_a_log_that_begins_anew_expires_too(bench: Bench) -> None:
    """No feed stays for ever because its log was made between two settings of its time."""
    bench.add()
    bench.raw.delete(bench.key(f"fl:{MINE}"))
    bench.add()
    assert 0 < ttl_ms(bench, f"fl:{MINE}") <= MONTH_MS
