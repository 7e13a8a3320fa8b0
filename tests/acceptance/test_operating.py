"""What operators do, on a real stack: pause and resume over deaths of its parts, see workers, bring dead letters back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stack import LiveStack
from tests.support.timing import eventually_sync, scaled
from tidings import JobState, SubmitJob, SyncClient, errors
from tidings.protocol.admin import DeadFilter, Queue, Worker

QUEUE = "integrations"


@pytest.fixture
def owner(live_stack: LiveStack) -> Iterator[SyncClient]:
    """Give a client of somebody who submits."""
    with SyncClient(live_stack.url, live_stack.token("olga", org="acme")) as client:
        yield client


@pytest.fixture
def operator(live_stack: LiveStack) -> Iterator[SyncClient]:
    """Give a client with the scope `admin`, which leaves the queue as it found it."""
    with SyncClient(live_stack.url, live_stack.token("root", scope="admin")) as client:
        yield client
        client.admin.steer_queue(QUEUE, "resume")


def queue_of(operator: SyncClient) -> Queue:
    """How the queue stands."""
    return next(queue for queue in operator.admin.queues() if queue.name == QUEUE)


def steps(number: int, delay_ms: int = 0, **more: int) -> SubmitJob:
    """A job of so many steps for the queue."""
    return SubmitJob(type="demo.steps", input={"steps": number, "delay_ms": delay_ms, **more}, queue=QUEUE)


def test_a_pause_outlives_worker_server_and_store(
    live_stack: LiveStack, owner: SyncClient, operator: SyncClient
) -> None:
    """Nothing begins until the queue is resumed; then everything does, once."""
    operator.admin.steer_queue(QUEUE, "pause")
    jobs = owner.submit_many([steps(1)] * 20)
    live_stack.kill_worker()
    live_stack.kill_store()
    live_stack.restart_server()
    # A job of another queue is done by the worker that leaves these alone.
    assert owner.result(owner.submit("demo.steps", {"steps": 1}).id, scaled(30)) == {"steps": 1, "attempt": 1}
    assert {(owner.status(job.id).status, owner.status(job.id).waiting_for) for job in jobs} == {
        (JobState.QUEUED, "paused")
    }
    assert (queue_of(operator).state, queue_of(operator).queued) == ("paused", 20)
    operator.admin.steer_queue(QUEUE, "resume")
    for job in jobs:
        assert owner.result(job.id, scaled(30)) == {"steps": 1, "attempt": 1}
    assert queue_of(operator).queued == 0


def test_a_pause_lets_what_runs_go_on(owner: SyncClient, operator: SyncClient) -> None:
    """And a draining queue runs what it has, but takes nothing."""
    running = owner.submit_many([steps(10, 100)])[0]
    eventually_sync(lambda: owner.status(running.id).status is JobState.RUNNING)
    operator.admin.steer_queue(QUEUE, "pause")
    waiting = owner.submit_many([steps(1)])[0]
    assert owner.result(running.id, scaled(30))["attempt"] == 1
    assert owner.status(waiting.id).status is JobState.QUEUED
    operator.admin.steer_queue(QUEUE, "drain")
    with pytest.raises(errors.QueueDraining):
        owner.submit_many([steps(1)])
    assert owner.result(waiting.id, scaled(30))["attempt"] == 1


def test_a_worker_says_who_it_is_and_what_it_runs(
    live_stack: LiveStack, owner: SyncClient, operator: SyncClient
) -> None:
    """By its process id; the one that took a killed one's place too."""
    job = owner.submit_many([steps(600, 100)])[0]

    def found() -> Worker | None:
        pid = live_stack.pid("worker")
        listed = (worker for worker in operator.admin.workers() if worker.pid == pid)
        return next((w for w in listed if job.id in [running.id for running in w.running]), None)

    try:
        eventually_sync(found, 30)
        live_stack.kill_worker()
        worker = eventually_sync(found, 60)
        assert worker is not None
        assert worker.rss_bytes > 10 * 2**20
        assert QUEUE in worker.queues
        assert owner.status(job.id).attempt == 2
    finally:
        owner.cancel(job.id)


def test_dead_letters_are_grouped_and_brought_back(owner: SyncClient, operator: SyncClient) -> None:
    """Mended, they run as new jobs of the same owner."""
    # They fail on their first three attempts, of which a job has three.
    jobs = owner.submit_many([steps(2, fail_at=1, fail_times=3)] * 3)
    for job in jobs:
        with pytest.raises(errors.JobFailed):
            owner.result(job.id, scaled(60))
    (group,) = [group for group in operator.admin.dead_groups() if group.queue == QUEUE]
    assert (group.count, group.type, group.error_type) == (3, "demo.steps", "RuntimeError")
    letter = operator.admin.dead_letter(jobs[0].id)
    assert "RuntimeError: step 1 fails" in (letter.job.stack or "")
    wanted = DeadFilter(fingerprint=group.fingerprint)
    assert operator.admin.retry_dead_letters(wanted).matched == 3
    done = operator.admin.retry_dead_letters(wanted.model_copy(update={"dry_run": False}))
    assert (done.retried, done.refused) == (3, 0)
    again = [job for job in owner.jobs(queue=QUEUE, limit=10) if job.retry_of is not None]
    assert {job.retry_of for job in again} == {job.id for job in jobs}
    assert {(job.owner, job.org) for job in again} == {("olga", "acme")}
    for job in again:
        with pytest.raises(errors.JobFailed):
            owner.result(job.id, scaled(60))
    wanted = DeadFilter(queue=QUEUE, dry_run=False)
    assert operator.admin.purge_dead_letters(wanted).purged == 3
    with pytest.raises(errors.JobNotFound):
        owner.get(again[0].id)
