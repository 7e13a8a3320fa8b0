"""Schedules in the store: each due time is fired once, whoever tries and however often, and no run is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from tidings.protocol import JobState
from tidings_tasks.store import Command, QueueState, Submission, Verb, commands, schedule_commands
from tidings_tasks.store.schedule_commands import Fired, FireOutcome, PutOutcome, ScheduleRecord

from .bench import START_MS, Bench

DAY_MS = 86_400_000


def put(bench: Bench, name: str = "nightly", version: str = "v1", **fields: Any) -> PutOutcome:
    """Store a schedule that is due at the bench's time."""
    command = {"definition": b"{}", "origin": "api", "timing": "t1", "next_ms": START_MS} | fields
    return bench.run(schedule_commands.put_schedule(0, name, version=version, **command))


def fire(
    bench: Bench, due_ms: int = START_MS, *jobs: Submission, name: str = "nightly", **fields: Any
) -> Fired:
    """Fire a schedule for a due time, by default with one job, and a day until the next."""
    made = jobs or (bench.submission(),)
    command = {
        "version": "v1",
        "last_due_ms": due_ms,
        "next_ms": due_ms + DAY_MS,
        "overlap": "skip",
        "jobs": [(due_ms, job) for job in made],
    } | fields
    return bench.run(schedule_commands.fire_schedule(0, name, due_ms=due_ms, **command))


def read(bench: Bench, name: str = "nightly") -> ScheduleRecord:
    """Read a schedule that must be there."""
    record = bench.run(schedule_commands.read_schedule(0, name)).record
    assert record is not None
    return record


def due(bench: Bench) -> tuple[list[str], int | None]:
    """Return the names of what is due, and how long until something else is."""
    found = bench.run(schedule_commands.due_schedules(0))
    return [entry.name for entry in found.due], found.next_due_ms


def test_a_due_time_is_fired_once(bench: Bench) -> None:
    """The job is stored and the next time set in one step; whoever comes second finds it done."""
    put(bench)
    first, second = bench.submission(), bench.submission()
    assert fire(bench, START_MS, first) == Fired(FireOutcome.FIRED, ("created",))
    # Another process: same due time, same job, since its id is made of them. It is told the same, and nothing is stored.
    assert fire(bench, START_MS, second) == Fired(FireOutcome.FIRED, ("created",))
    assert bench.counts() == {JobState.QUEUED: 1}
    record = read(bench)
    assert (record.runs, record.last_job_id, record.open_jobs) == (1, first.id, (first.id,))
    assert (record.last_due_ms, record.last_run_ms, record.next_ms) == (START_MS, START_MS, START_MS + DAY_MS)


def test_a_due_time_that_is_over_is_fired_no_more(bench: Bench) -> None:
    """Neither an older one, nor with another definition."""
    put(bench)
    fire(bench)
    bench.advance(DAY_MS)
    fire(bench, START_MS + DAY_MS)
    before = bench.snapshot()
    assert fire(bench, START_MS).outcome is FireOutcome.OTHER
    assert fire(bench, START_MS + 2 * DAY_MS, version="v2").outcome is FireOutcome.OTHER
    assert fire(bench, START_MS, name="other").outcome is FireOutcome.OTHER
    assert bench.snapshot() == before


def test_nothing_is_fired_before_its_time(bench: Bench) -> None:
    """The store's clock decides, whatever a process believes."""
    put(bench, next_ms=START_MS + 1)
    assert fire(bench, START_MS + 1).outcome is FireOutcome.EARLY
    assert bench.counts() == {}
    bench.advance(1)
    assert fire(bench, START_MS + 1).outcome is FireOutcome.FIRED


def test_what_is_due_is_told_with_the_time_until_the_next(bench: Bench) -> None:
    """The longest due first; what is paused or never due is not among them."""
    put(bench, "b", next_ms=START_MS - 5)
    put(bench, "a", next_ms=START_MS)
    put(bench, "later", next_ms=START_MS + 700)
    put(bench, "never", next_ms=None)
    put(bench, "paused")
    bench.run(schedule_commands.pause_schedule(0, "paused", pause=True))
    assert due(bench) == (["b", "a"], 700)
    bench.run(schedule_commands.drop_schedule(0, "later"))
    assert due(bench) == (["b", "a"], None)


def test_skip_stores_nothing_while_the_last_job_is_open(bench: Bench) -> None:
    """It is counted, with the job that was in the way; once that has ended the next run is stored."""
    put(bench)
    fire(bench)
    claim = bench.claim()
    bench.advance(DAY_MS)
    assert fire(bench, START_MS + DAY_MS).jobs == ("overlap",)
    record = read(bench)
    assert (record.runs, record.skipped) == (1, 1)
    assert (record.skipped_due_ms, record.skipped_why, record.skipped_for) == (
        START_MS + DAY_MS,
        "overlap",
        claim.id,
    )
    bench.complete(claim)
    bench.advance(DAY_MS)
    assert fire(bench, START_MS + 2 * DAY_MS).jobs == ("created",)
    assert read(bench).runs == 2


def test_queue_stores_behind_the_last_job(bench: Bench) -> None:
    """Its concurrency key lets it wait there until that one has ended."""
    put(bench)
    jobs = [bench.submission(concurrency_key="schedule:nightly") for _ in range(2)]
    fire(bench, START_MS, jobs[0], overlap="queue", next_ms=START_MS + 1)
    claim = bench.claim()
    bench.advance(1)
    assert fire(bench, START_MS + 1, jobs[1], overlap="queue").jobs == ("created",)
    assert read(bench).open_jobs == (jobs[0].id, jobs[1].id)
    assert bench.step(wants=[("default", 1)]).claims == []
    bench.complete(claim)
    assert bench.claim().id == jobs[1].id


def test_queue_is_bounded(bench: Bench) -> None:
    """A schedule whose jobs never end does not fill the store."""
    put(bench)
    bench.checks = False
    jobs = [bench.submission() for _ in range(schedule_commands.MAX_OPEN_JOBS + 1)]
    fired = fire(bench, START_MS, *jobs, overlap="queue")
    assert fired.jobs.count("created") == schedule_commands.MAX_OPEN_JOBS
    assert fired.jobs[-1] == "overlap"


def test_replace_cancels_what_is_open(bench: Bench) -> None:
    """A waiting job at once, a running one by asking its worker."""
    put(bench)
    waiting, running, third = (bench.submission() for _ in range(3))
    fire(bench, START_MS, waiting, overlap="replace")
    bench.advance(1)
    bench.run(
        schedule_commands.put_schedule(
            0, "nightly", version="v2", definition=b"{1}", origin="api", timing="t2", next_ms=bench.now_ms
        )
    )
    fire(bench, bench.now_ms, running, overlap="replace", version="v2", next_ms=bench.now_ms + 1)
    assert bench.state(waiting.id) is JobState.CANCELLED
    assert bench.last_event(waiting.id)["data"] == {
        "by": "schedule",
        "reason": "replaced by the next run of schedule nightly",
    }
    claim = bench.claim()
    bench.advance(1)
    assert fire(bench, bench.now_ms, third, overlap="replace", version="v2").jobs == ("created",)
    assert bench.record(running.id).cancel_requested
    assert bench.kinds(running.id)[-1] == "cancelling"
    bench.write(claim, Verb.CANCEL)
    assert bench.last_event(running.id)["data"]["by"] == "schedule"
    assert read(bench).last_job_id == third.id


@pytest.mark.parametrize("why", ["full", "draining"])
def test_a_queue_that_takes_nothing_is_told(bench: Bench, why: str) -> None:
    """The run is skipped, and the schedule goes on."""
    put(bench)
    if why == "draining":
        bench.run(commands.set_queue_state(0, "default", QueueState.DRAINING))
        assert fire(bench).jobs == ("draining",)
    else:
        made = schedule_commands.fire_schedule(
            0, "nightly", version="v1", due_ms=START_MS, last_due_ms=START_MS, next_ms=START_MS + DAY_MS,
            overlap="skip", jobs=[(START_MS, bench.submission())],
        )  # fmt: skip
        args = [*made.args]
        args[9] = 0
        assert bench.run(Command(made.script, 0, args, made.parse)).jobs == ("full",)
    record = read(bench)
    assert (record.skipped, record.skipped_why, record.skipped_for) == (1, why, None)
    assert record.next_ms == START_MS + DAY_MS


def test_why_nothing_could_be_run_is_kept(bench: Bench) -> None:
    """As when the input is valid no more."""
    put(bench)
    assert fire(bench, jobs=[], why_not="input.rows: too many", missed=2) == Fired(FireOutcome.FIRED, ())
    record = read(bench)
    assert (record.skipped, record.missed, record.skipped_why) == (1, 2, "input.rows: too many")


def test_a_malformed_job_changes_nothing(bench: Bench) -> None:
    """The schedule is due as before."""
    put(bench)
    before = bench.snapshot()
    made = schedule_commands.fire_schedule(
        0, "nightly", version="v1", due_ms=START_MS, last_due_ms=START_MS, next_ms=None,
        overlap="skip", jobs=[(START_MS, bench.submission(due="soon"))],
    )  # fmt: skip
    with pytest.raises(ResponseError, match="INVALID"):
        bench.store.run(made)
    assert bench.snapshot() == before


def test_a_job_that_is_stored_already_is_not_stored_twice(bench: Bench) -> None:
    """As when the store came back without the schedule's last change but with the job: the id is the same."""
    put(bench)
    job = bench.submission()
    bench.enqueue(job)
    claim = bench.claim()
    bench.complete(claim)
    assert fire(bench, START_MS, job).jobs == ("created",)
    assert bench.counts() == {JobState.COMPLETED: 1}
    assert read(bench).open_jobs == ()


def test_run_now_comes_besides_the_due_times(bench: Bench) -> None:
    """Even of a schedule that is paused; a repeat with the same id is one job."""
    put(bench)
    bench.run(schedule_commands.pause_schedule(0, "nightly", pause=True))
    job = bench.submission()
    assert bench.run(schedule_commands.run_schedule(0, "nightly", version="v1", job=job)) == "created"
    assert bench.run(schedule_commands.run_schedule(0, "nightly", version="v2", job=job)) == "changed"
    assert bench.run(schedule_commands.run_schedule(0, "other", version="v1", job=job)) == "gone"
    record = read(bench)
    assert (record.runs, record.open_jobs, record.is_paused) == (1, (job.id,), True)
    assert record.next_ms == START_MS
    assert bench.counts() == {JobState.QUEUED: 1}


def test_a_paused_schedule_is_not_fired(bench: Bench) -> None:
    """It stays so over a new definition, and goes on with the time it is given then."""
    put(bench)
    assert bench.run(schedule_commands.pause_schedule(0, "nightly", pause=True)) == "paused"
    assert due(bench) == ([], None)
    assert fire(bench).outcome is FireOutcome.OTHER
    put(bench, version="v2", definition=b"{2}", timing="t2", next_ms=START_MS + 7)
    assert due(bench) == ([], None)
    assert read(bench).is_paused
    resume = schedule_commands.pause_schedule(0, "nightly", pause=False, next_ms=START_MS + 9)
    assert bench.run(resume) == "active"
    assert due(bench) == ([], 9)
    late = schedule_commands.pause_schedule(0, "nightly", pause=False, next_ms=START_MS + 90)
    assert bench.run(late) == "active", "it was not paused any more"
    assert due(bench) == ([], 9)
    assert bench.run(schedule_commands.pause_schedule(0, "none", pause=True)) == "gone"


def test_a_definition_keeps_when_it_is_due_unless_its_timing_is_another(bench: Bench) -> None:
    """So that a restart with the same settings loses nothing that was due meanwhile."""
    assert put(bench) is PutOutcome.STORED
    assert put(bench, version="v2", next_ms=START_MS + 5) is PutOutcome.UNCHANGED
    assert read(bench).version == "v1"
    assert put(bench, version="v3", definition=b"{3}", next_ms=START_MS + 5) is PutOutcome.STORED
    assert read(bench).next_ms == START_MS
    assert put(bench, version="v4", definition=b"{4}", timing="t2", next_ms=START_MS + 5) is PutOutcome.STORED
    assert read(bench).next_ms == START_MS + 5


def test_a_definition_may_have_to_be_new_or_old(bench: Bench) -> None:
    """So that nobody's schedule is replaced or brought back by accident."""
    assert put(bench, must="old") is PutOutcome.GONE
    assert put(bench, must="new") is PutOutcome.STORED
    assert put(bench, version="v2", must="new") is PutOutcome.EXISTS
    assert put(bench, version="v2", definition=b"{2}", must="old") is PutOutcome.STORED


def test_a_shard_takes_so_many_schedules(bench: Bench) -> None:
    """One more is refused; what is there may still be changed."""
    put(bench)
    made = schedule_commands.put_schedule(
        0, "more", version="v", definition=b"{}", origin="api", timing="t", next_ms=None
    )
    args = [*made.args]
    args[7] = 1
    assert bench.run(Command(made.script, 0, args, made.parse)) is PutOutcome.FULL
    assert [record.name for record in bench.run(schedule_commands.list_schedules(0))[1]] == ["nightly"]


def test_schedules_are_listed_by_name_in_pages(bench: Bench) -> None:
    """Each page begins behind the last name of the one before."""
    for name in ("c", "a", "d", "b"):
        put(bench, name)
    now_ms, page = bench.run(schedule_commands.list_schedules(0, limit=3))
    assert (now_ms, [record.name for record in page]) == (START_MS, ["a", "b", "c"])
    _, rest = bench.run(schedule_commands.list_schedules(0, after="c", limit=3))
    assert [record.name for record in rest] == ["d"]


def test_dropping_leaves_what_others_made(bench: Bench) -> None:
    """Of a given origin only; the jobs stay."""
    put(bench)
    fire(bench)
    assert bench.run(schedule_commands.drop_schedule(0, "nightly", origin="settings")) == "gone"
    assert bench.run(schedule_commands.drop_schedule(0, "nightly", origin="api")) == "dropped"
    assert bench.run(schedule_commands.read_schedule(0, "nightly")).record is None
    assert due(bench) == ([], None)
    assert bench.counts() == {JobState.QUEUED: 1}
