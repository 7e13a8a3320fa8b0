"""Forks: a store that comes back with another history begins a new epoch, and old positions are judged by what it found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidings.protocol import Position
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Keyspace, Verb

from .bench import ALICE, Bench

MINE = f"o:{ALICE.scope}"


@pytest.fixture
def own_bench(private_valkey: EmbeddedValkey, keyspace: Keyspace) -> Iterator[Bench]:
    """Give a bench on a Valkey that the test may kill."""
    made = Bench(private_valkey.url, keyspace)
    yield made
    made.close()


def test_the_next_change_begins_a_new_epoch(bench: Bench) -> None:
    """seq goes on from the head that was found; until then the old epoch stands."""
    claim = bench.start()
    old = bench.record(claim.id).epoch
    new = bench.begin_generation()
    assert new != old
    assert bench.record(claim.id).position == f"{old}:2"
    bench.progress(claim, 10)
    assert bench.record(claim.id).position == f"{new}:3"
    assert [(e["epoch"], e["seq"]) for e in bench.events(claim.id)] == [(old, 1), (old, 2), (new, 3)]


def test_old_positions_up_to_the_fork_stay_valid(bench: Bench) -> None:
    """Those beyond it never were in this history; those of the new epoch cannot be older than its first."""
    claim = bench.start()
    bench.progress(claim, 1)
    old = bench.record(claim.id).epoch
    new = bench.begin_generation()
    bench.progress(claim, 2)
    bench.complete(claim)
    for seq in range(4):
        found = bench.read(claim.id, f"{old}:{seq}")
        assert not found.reset
        assert found.head == 5
    for seq in (4, 5, 6):
        found = bench.read(claim.id, f"{old}:{seq}")
        assert found.reset
        assert found.job is not None
        assert len(found.events) == 1
        assert b'"completed"' in found.events[0]
    assert not bench.read(claim.id, f"{new}:5").reset
    assert bench.read(claim.id, f"{new}:6").reset


def test_progress_is_not_folded_over_a_fork(bench: Bench) -> None:
    """What was before the fork is known to those who saw it; the log keeps it apart."""
    claim = bench.start()
    bench.progress(claim, 1)
    bench.progress(claim, 2)
    bench.begin_generation()
    bench.progress(claim, 3)
    bench.progress(claim, 4)
    assert [(e["seq"], e.get("prev")) for e in bench.events(claim.id)] == [
        (1, None),
        (2, None),
        (4, 2),
        (6, 4),
    ]


def test_a_job_that_nobody_touches_keeps_its_epoch(bench: Bench) -> None:
    """Forks are remembered where they matter."""
    job_id = bench.add()
    position = bench.record(job_id).position
    for _ in range(3):
        bench.begin_generation()
    assert bench.record(job_id).position == position
    assert not bench.read(job_id, position).reset


def test_many_forks_are_remembered_in_order_and_bounded(bench: Bench) -> None:
    """The sixteen newest; a position from before them answers reset, which is always safe."""
    claim = bench.start(max_attempts=100)
    positions = [bench.record(claim.id).position]
    for n in range(20):
        bench.begin_generation()
        bench.progress(claim, n)
        positions.append(bench.record(claim.id).position)
    resets = [bench.read(claim.id, position).reset for position in positions]
    assert resets == [True] * 4 + [False] * 17


def test_a_feed_begins_a_new_epoch_with_its_next_entry(bench: Bench) -> None:
    """Its numbering goes on, and old positions are valid up to the fork."""
    bench.add()
    before = bench.feed(MINE)
    bench.begin_generation()
    assert bench.feed(MINE).epoch == before.epoch
    bench.add()
    after = bench.feed(MINE)
    assert after.epoch != before.epoch
    assert after.head == 2
    old = bench.feed(MINE, Position(before.epoch, 1))
    assert (old.reset, old.first_seq, len(old.events)) == (False, 2, 1)
    assert bench.feed(MINE, Position(before.epoch, 2)).reset
    assert not bench.feed(MINE, Position(before.epoch, 0)).reset


def test_a_restarted_store_with_all_its_data_keeps_every_position(
    own_bench: Bench, private_valkey: EmbeddedValkey
) -> None:
    """Killed and started on its append-only file: nothing was lost, nobody is reset."""
    claim = own_bench.start()
    own_bench.progress(claim, 10)
    positions = [f"{own_bench.record(claim.id).epoch}:{seq}" for seq in range(4)]
    # While it syncs, a store may put off writing to its file.
    assert own_bench.raw.execute_command("WAITAOF", 1, 0, 30_000)[0] == 1
    private_valkey.kill()
    private_valkey.start()
    own_bench.reconnect()
    own_bench.progress(claim, 20)
    assert own_bench.record(claim.id).head == 4
    assert [own_bench.read(claim.id, position).reset for position in positions] == [False] * 4
    assert len({event["epoch"] for event in own_bench.events(claim.id)}) == 2


def test_a_store_restored_to_an_older_state_resets_whoever_saw_more(
    own_bench: Bench, private_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """A position from the lost part never looks valid again, however far the new history goes."""
    claim = own_bench.start()
    data = private_valkey.directory / "appendonlydir"
    private_valkey.stop()
    shutil.copytree(data, tmp_path / "saved")
    private_valkey.start()
    own_bench.reconnect()
    for n in range(3):
        own_bench.write(claim, Verb.LOG, {"message": f"lost {n}"})
    own_bench.complete(claim)
    lost = [Position(own_bench.record(claim.id).epoch, seq) for seq in (3, 4, 5, 6)]
    lost_feed = own_bench.feed(MINE)
    private_valkey.stop()
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "saved", data)
    private_valkey.start()
    own_bench.reconnect()
    first = own_bench.events(claim.id)[0]["epoch"]
    own_bench.numbers.clear()
    for n in range(6):
        assert [own_bench.read(claim.id, position).reset for position in lost] == [True] * 4
        assert [own_bench.read(claim.id, f"{first}:{seq}").reset for seq in range(4)] == [False] * 3 + [True]
        own_bench.write(claim, Verb.LOG, {"message": f"anew {n}"})
    own_bench.complete(claim)
    own_bench.add()
    own_bench.add()
    assert own_bench.feed(MINE).head > lost_feed.head
    assert own_bench.feed(MINE, Position(lost_feed.epoch, lost_feed.head)).reset
