"""Dead letters: jobs that failed for good, in groups of errors that look the same; and purging a queue."""

from __future__ import annotations

import pytest

from tidings.protocol import JobState
from tidings_tasks.store import DeadPage, Tenant, Verb, commands

from .bench import LEASE_MS, Bench

DAY_MS = 86_400_000


def error(message: str = "no", *, code: str = "exception", type: str = "ValueError") -> dict[str, str]:
    """Describe what went wrong."""
    return {"code": code, "type": type, "message": message}


def bury(
    bench: Bench, message: str = "no", *, queue: str = "default", stack: str | None = None, **options: str
) -> str:
    """Make a dead letter."""
    claim = bench.start(queue=queue)
    more = {"dead": True} | ({"stack": stack} if stack else {})
    bench.write(claim, Verb.FAIL, error(message, **options), more)
    return claim.id


def page(bench: Bench, **options: object) -> DeadPage:
    """Read a page of dead letters."""
    return bench.run(commands.list_dead(0, **options))  # type: ignore[arg-type]


def ids(bench: Bench, **options: object) -> list[str]:
    """Read which dead letters there are."""
    return [job.id for job in page(bench, **options).jobs]


def test_a_job_that_failed_for_good_is_a_dead_letter(bench: Bench) -> None:
    """With its whole error, its traceback and its fingerprint."""
    job_id = bury(bench, "it broke", stack="Traceback …\n")
    [record] = page(bench).jobs
    assert (record.id, record.state, record.stack) == (job_id, JobState.FAILED, "Traceback …\n")
    assert record.error == b'{"code":"exception","type":"ValueError","message":"it broke"}'
    assert record.fingerprint is not None
    assert len(record.fingerprint) == 16


@pytest.mark.parametrize("data", [7, True, None, "text", [1]])
def test_an_error_that_is_no_object_is_buried_all_the_same(bench: Bench, data: object) -> None:
    """Whatever a worker wrote: a script that stops half-way would leave half a failure."""
    claim = bench.start()
    bench.write(claim, Verb.FAIL, data, {"dead": True})
    assert ids(bench) == [claim.id]


def test_what_its_author_failed_is_no_dead_letter(bench: Bench) -> None:
    """Nor what was cancelled or expired."""
    bench.write(bench.start(), Verb.FAIL, error(), {"dead": False})
    bench.cancel(bench.add())
    bench.add(expires="+1")
    bench.advance(1)
    bench.step()
    assert ids(bench) == []


def test_a_job_that_kills_three_workers_is_a_dead_letter(bench: Bench) -> None:
    """The reaper buries it, tries left or not."""
    job_id = bench.add(max_attempts=10)
    for _ in range(3):
        bench.claim()
        bench.advance(LEASE_MS)
        bench.step()
    [record] = page(bench).jobs
    assert record.id == job_id
    [group] = bench.run(commands.read_dead_groups(0))
    assert (group.code, group.type, group.count) == ("worker_lost", "demo.steps", 1)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("row 17 of 20 is bad", "row 3 of 9 is bad", True),
        ("id 3f2504e0-4f89-11d3-9a0c-0305e82c3301 is gone", "id 9b2d04e0-aa89-41d3-8a0c-1105e82c3302 is gone", True),
        ("the file is missing", "the file is locked", False),
    ],
)  # fmt: skip
def test_errors_that_differ_in_numbers_look_the_same(
    bench: Bench, one: str, other: str, is_same: bool
) -> None:
    """So that one fault is one group."""
    bury(bench, one)
    bury(bench, other)
    groups = bench.run(commands.read_dead_groups(0))
    assert [group.count for group in groups] == ([2] if is_same else [1, 1])


def test_groups_tell_queue_type_error_and_times(bench: Bench) -> None:
    """The latest first."""
    bury(bench, "a 1")
    bench.advance(1000)
    bury(bench, "b", queue="other", code="timeout", type="JobTimedOut")
    bench.advance(1000)
    bury(bench, "a 2")
    first, second = bench.run(commands.read_dead_groups(0))
    assert (first.queue, first.code, first.error_type, first.message) == (
        "default",
        "exception",
        "ValueError",
        "a 1",
    )
    assert (first.count, first.last_ms - first.first_ms) == (2, 2000)
    assert (second.queue, second.code, second.type, second.count) == ("other", "timeout", "demo.steps", 1)


def test_dead_letters_are_filtered(bench: Bench) -> None:
    """By queue, type and fingerprint, alone or together."""
    here, there = bury(bench, "a"), bury(bench, "a", queue="other")
    third = bury(bench, "b")
    print_of = {job.id: job.fingerprint or "" for job in page(bench).jobs}
    assert ids(bench) == [third, there, here]
    assert ids(bench, queue="other") == [there]
    assert ids(bench, fingerprint=print_of[here]) == [there, here]
    assert ids(bench, fingerprint=print_of[here], queue="default") == [here]
    assert ids(bench, type="demo.steps") == [third, there, here]
    assert ids(bench, type="another") == ids(bench, queue="none") == ids(bench, fingerprint="none") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10])
def test_pages_hold_each_letter_once(bench: Bench, limit: int) -> None:
    """Also where many died in one millisecond, and while others are taken out."""
    bench.checks = False
    buried = [bury(bench, "a") for _ in range(7)]
    bench.advance(1)
    buried += [bury(bench, "b") for _ in range(3)]
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        got = page(bench, limit=limit, after=after)
        found += [job.id for job in got.jobs]
        bench.run(commands.release_dead(0, [job.id for job in got.jobs]))
        after = got.next
    assert sorted(found) == sorted(buried)
    assert len(found) == len(set(found))
    assert ids(bench) == []


def test_a_place_that_is_none_is_refused(bench: Bench) -> None:
    """Before anything is asked."""
    with pytest.raises(ValueError, match="not a place"):
        page(bench, after="x")


def test_a_released_letter_stays_failed(bench: Bench) -> None:
    """And is not released twice."""
    job_id, other = bury(bench), bury(bench)
    assert bench.store.run(commands.release_dead(0, [job_id, bench.new_id()])) == [job_id]
    assert bench.run(commands.release_dead(0, [job_id])) == []
    assert bench.state(job_id) is JobState.FAILED
    assert bench.record(job_id).fingerprint is None
    assert ids(bench) == [other]


def test_a_dead_letter_is_kept_for_a_month(bench: Bench) -> None:
    """Longer than the fourteen days that are promised; then its group goes with it."""
    bury(bench)
    bench.advance(14 * DAY_MS)
    bench.step()
    assert len(ids(bench)) == 1
    bench.advance(16 * DAY_MS)
    bench.step()
    assert ids(bench) == []
    assert bench.run(commands.read_dead_groups(0)) == []


def test_a_thousand_kinds_of_error_are_told_apart_and_no_more(bench: Bench) -> None:
    """What comes after that is one group of its queue."""
    bench.checks = False
    words = [f"{chr(97 + n // 676)}{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}q" for n in range(1005)]
    bench.enqueue(*[bench.submission() for _ in words])
    claims = bench.step(wants=[("default", 1005)]).claims
    claims += bench.step(wants=[("default", 1005)]).claims
    bench.step(
        [
            bench.make_write(claim, Verb.FAIL, error(word), {"dead": True})
            for claim, word in zip(claims, words, strict=True)
        ]
    )
    groups = {group.fingerprint: group for group in bench.run(commands.read_dead_groups(0))}
    assert len(groups) == 1001
    assert (groups["other"].count, groups["other"].type) == (5, "")


# Purging a queue


def test_a_queue_is_purged(bench: Bench) -> None:
    """What waits in it is cancelled and says so; what runs goes on, other queues are left alone."""
    running = bench.start(queue="a")
    waiting = [bench.add(queue="a"), bench.add(queue="a", due="+1000"), bench.add(Tenant("bob"), queue="a")]
    other = bench.add(queue="b")
    dry = bench.run(commands.purge_queue(0, "a", by=b'"root"', dry_run=True))
    assert (dry.waiting, dry.cancelled, dry.next_id) == (3, 0, None)
    done = bench.run(commands.purge_queue(0, "a", by=b'"root"'))
    assert (done.waiting, done.cancelled) == (3, 3)
    for job_id in waiting:
        assert bench.last_event(job_id)["data"] == {"by": "root", "reason": "the queue was purged"}
    assert bench.state(running.id) is JobState.RUNNING
    assert bench.state(other) is JobState.QUEUED


def test_a_long_queue_is_purged_in_pages(bench: Bench) -> None:
    """Each looks at so many open jobs, whose they are."""
    bench.checks = False
    bench.enqueue(*[bench.submission(queue="ab"[n % 2]) for n in range(50)])
    counted, after = 0, ""
    while True:
        found = bench.run(commands.purge_queue(0, "a", by=b'"root"', after_id=after, limit=20))
        counted += found.cancelled
        if found.next_id is None:
            break
        after = found.next_id
    assert counted == 25
    bench.checks = True
    bench.step()
