"""Plain Dramatiq actors on our broker, run by our worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AgeLimit, Callbacks, CurrentMessage, Pipelines, Retries, TimeLimit
from dramatiq.worker import ConsumerThread, WorkerThread

from tests.integration.running import Jobs, open_jobs, running_worker
from tidings.protocol import JobState, is_job_id
from tidings.protocol.errors import InvalidInput
from tidings_tasks import JobContext, SyncJobContext, current_job, job
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.registry import Registry
from tidings_tasks.settings import Settings
from tidings_tasks.store import Keyspace, commands
from tidings_tasks.store.limits import Rate


@pytest.fixture
def broker(valkey_url: str, keyspace: Keyspace) -> Iterator[TidingsBroker]:
    """Give a broker that is Dramatiq's global one for the test."""
    made = TidingsBroker(valkey_url, keyspace=keyspace)
    before = dramatiq.broker.global_broker
    dramatiq.set_broker(made)
    yield made
    made.close()
    dramatiq.broker.global_broker = before


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, Registry()) as found:
        yield found


@pytest.fixture
async def worker(
    broker: TidingsBroker, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> AsyncIterator[None]:
    """Run a worker. Actors that a test declares later are found too, as long as their queue is a known one."""
    async with running_worker(valkey_url, keyspace, Registry(), tmp_path):
        yield


async def test_sent_message_is_a_job_under_its_id(broker: TidingsBroker, jobs: Jobs) -> None:
    """The message comes back with the job's id; options say whose it is, and don't stay in the message."""

    @dramatiq.actor(max_retries=2, min_backoff=1000, max_backoff=3000, time_limit=5000)
    def add(a: int, b: int) -> int:
        return a + b

    message = add.send_with_options(args=(1,), kwargs={"b": 2}, owner="alice", org="acme")
    assert is_job_id(message.message_id)
    record = await jobs.read(message.message_id)
    assert (record.tenant.owner, record.tenant.org) == ("alice", "acme")
    assert record.state is JobState.QUEUED
    assert record.spec.is_plain_actor
    assert record.spec.type == "add"
    assert record.spec.input == {"args": [1], "kwargs": {"b": 2}, "options": {}}
    assert (record.spec.max_attempts, record.spec.timeout_s) == (3, 5)
    assert record.spec.backoff_s == (1, 2)
    unowned = await jobs.read(add.send(1, 2).message_id)
    assert (unowned.tenant.owner, unowned.tenant.org) == ("system", None)


async def test_delay_and_eta_schedule_the_job(broker: TidingsBroker, jobs: Jobs) -> None:
    """The store keeps what is not due yet; no worker's memory does."""

    @dramatiq.actor
    def later() -> None: ...

    delayed = await jobs.read(later.send_with_options(delay=60_000).message_id)
    assert delayed.state is JobState.SCHEDULED
    assert delayed.due_ms is not None
    assert 59_000 < delayed.due_ms - delayed.created_ms <= 60_000
    eta_ms = delayed.created_ms + 120_000
    at = await jobs.read(later.send_with_options(eta=eta_ms).message_id)
    assert (at.state, at.due_ms) == (JobState.SCHEDULED, eta_ms)


def test_arguments_that_are_no_json_are_refused(broker: TidingsBroker) -> None:
    """The sender learns it, not the worker."""

    @dramatiq.actor
    def take(value: Any) -> None: ...

    with pytest.raises(InvalidInput, match="must be JSON"):
        take.send(object())


@pytest.mark.usefixtures("worker")
async def test_sync_and_async_actors_report_progress_without_being_rewritten(
    broker: TidingsBroker, jobs: Jobs
) -> None:
    """``current_job()`` gives each its context; a result that is JSON is the job's result."""

    @dramatiq.actor
    def plain(n: int) -> int:
        context = current_job()
        assert isinstance(context, SyncJobContext)
        context.progress(50, "half")
        return n * 2

    @dramatiq.actor
    async def native(n: int) -> int:
        context = current_job()
        assert isinstance(context, JobContext)
        await context.progress(50, "half")
        return n * 3

    for actor, result in ((plain, b"8"), (native, b"12")):
        job_id = actor.send(4).message_id
        record = await jobs.until(job_id)
        assert (record.state, record.result) == (JobState.COMPLETED, result)
        (progress,) = await jobs.events(job_id, "progress")
        assert progress["data"]["message"] == "half"


@pytest.mark.usefixtures("worker")
async def test_failing_actor_is_retried_by_its_own_options(broker: TidingsBroker, jobs: Jobs) -> None:
    """``max_retries``, ``throws`` and ``dramatiq.Retry`` mean what they mean in Dramatiq."""

    @dramatiq.actor(max_retries=1, min_backoff=10)
    def always() -> None:
        raise RuntimeError("no")

    @dramatiq.actor(throws=KeyError)
    def expected() -> None:
        raise KeyError("gone")

    @dramatiq.actor(max_retries=1)
    async def asks() -> str:
        if current_job().attempt == 1:
            raise dramatiq.Retry("not yet", delay=20)
        return "yes"

    @dramatiq.actor(retry_when=lambda retries, error: retries < 2, min_backoff=1, max_backoff=2)
    def predicate() -> None:
        raise RuntimeError("again")

    ids = {actor.actor_name: actor.send().message_id for actor in (always, expected, asks, predicate)}
    ended = {name: await jobs.until(job_id) for name, job_id in ids.items()}
    assert (ended["always"].state, ended["always"].attempt) == (JobState.FAILED, 2)
    assert (ended["expected"].state, ended["expected"].attempt) == (JobState.FAILED, 1)
    assert (ended["asks"].state, ended["asks"].attempt) == (JobState.COMPLETED, 2)
    assert (ended["predicate"].state, ended["predicate"].attempt) == (JobState.FAILED, 3)
    dead = {
        name: (await jobs.events(job_id, "failed"))[0]["data"]["dead"]
        for name, job_id in ids.items()
        if name != "asks"
    }
    assert dead == {"always": True, "expected": False, "predicate": True}
    (retrying,) = await jobs.events(ids["asks"], "retrying")
    assert retrying["data"]["delay_s"] == 0.02


@pytest.mark.usefixtures("worker")
async def test_pipeline_and_callbacks_run_for_the_same_owner(broker: TidingsBroker, jobs: Jobs) -> None:
    """Each step gets the result of the one before it; what follows a job belongs to the job's owner."""
    seen: asyncio.Queue[tuple[str, str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def note(name: str, value: Any) -> None:
        context = current_job()
        loop.call_soon_threadsafe(seen.put_nowait, (name, f"{context.owner}/{context.org}", value))

    @dramatiq.actor
    def start(n: int) -> int:
        note("start", n)
        return n + 1

    @dramatiq.actor
    async def double(n: int) -> int:
        note("double", n)
        return n * 2

    @dramatiq.actor
    def succeeded(message: dict[str, Any], result: Any) -> None:
        note("succeeded", (message["actor_name"], result))

    @dramatiq.actor
    def failed(message: dict[str, Any], error: dict[str, str]) -> None:
        note("failed", error)

    @dramatiq.actor(max_retries=0)
    async def broken() -> None:
        raise ValueError("no")

    dramatiq.pipeline(
        [
            start.message_with_options(args=(1,), owner="bob", org="acme"),
            double.message_with_options(on_success=succeeded),
        ]
    ).run()
    got = [await asyncio.wait_for(seen.get(), 10) for _ in range(3)]
    assert got == [
        ("start", "bob/acme", 1),
        ("double", "bob/acme", 2),
        ("succeeded", "bob/acme", ("double", 4)),
    ]
    broken.send_with_options(owner="carol", on_failure=failed)
    assert await asyncio.wait_for(seen.get(), 10) == (
        "failed", "carol/None", {"type": "ValueError", "message": "no"},
    )  # fmt: skip


@pytest.mark.usefixtures("worker")
async def test_too_old_message_expires(broker: TidingsBroker, jobs: Jobs) -> None:
    """``max_age`` is checked when the message is about to run."""

    @dramatiq.actor(max_age=1, queue_name="emails")
    def stale() -> None:
        raise AssertionError("it must not run")

    job_id = stale.send_with_options(delay=50).message_id
    record = await jobs.until(job_id)
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert b'"code":"expired"' in record.error


@pytest.mark.usefixtures("worker")
async def test_actor_over_its_time_limit_times_out(broker: TidingsBroker, jobs: Jobs) -> None:
    """``time_limit`` is the job's timeout, for both kinds."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    @dramatiq.actor(time_limit=50, max_retries=0)
    async def slow() -> None:
        await asyncio.sleep(3600)

    @dramatiq.actor(time_limit=50, max_retries=0)
    def stuck() -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)

    for actor in (slow, stuck):
        record = await jobs.until(actor.send().message_id)
        assert record.state is JobState.FAILED
        assert record.error is not None
        assert b'"code":"timeout"' in record.error
    release.set()


@pytest.mark.usefixtures("worker")
async def test_middleware_of_the_program_is_called(broker: TidingsBroker, jobs: Jobs) -> None:
    """As under the stock worker: around each actor, with the message of the job."""
    broker.add_middleware(CurrentMessage())

    @dramatiq.actor
    def whoami() -> str | None:
        message = CurrentMessage.get_current_message()
        return message.message_id if message else None

    @dramatiq.actor
    async def whoami_async() -> str | None:
        message = CurrentMessage.get_current_message()
        return message.message_id if message else None

    for actor in (whoami, whoami_async):
        job_id = actor.send().message_id
        assert (await jobs.until(job_id)).result == f'"{job_id}"'.encode()


@pytest.mark.usefixtures("worker")
async def test_result_that_is_no_json_does_not_fail_an_actor(broker: TidingsBroker, jobs: Jobs) -> None:
    """Dramatiq discards results; an actor that worked must not fail over one."""

    @dramatiq.actor
    def odd() -> object:
        return object()

    record = await jobs.until(odd.send().message_id)
    assert (record.state, record.result) == (JobState.COMPLETED, b"null")


async def test_actor_nobody_declared_is_dead_with_a_reason(
    broker: TidingsBroker, jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """It is tried again, since another worker may have it, and says what is missing."""
    message: dramatiq.Message[Any] = dramatiq.Message(
        "default", "nowhere", (), {}, {"max_retries": 1, "min_backoff": 1, "max_backoff": 1}
    )
    job_id = broker.enqueue(message).message_id
    async with running_worker(valkey_url, keyspace, Registry(), tmp_path):
        record = await jobs.until(job_id)
    assert (record.state, record.attempt) == (JobState.FAILED, 2)
    assert record.error is not None
    assert b"nowhere" in record.error


def test_replaced_middleware_is_taken_over_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    """Retries, TimeLimit and AgeLimit leave their configuration; the rest stays as it was given."""
    with caplog.at_level(logging.WARNING):
        broker = TidingsBroker(
            "redis://localhost:1",
            middleware=[
                Callbacks(), Pipelines(), Retries(max_retries=7, min_backoff=5), TimeLimit(time_limit=1000), AgeLimit(max_age=9),
            ],
        )  # fmt: skip
    assert [type(m).__name__ for m in broker.middleware] == ["Callbacks", "Pipelines", "Policy"]
    assert (broker.defaults.max_retries, broker.defaults.min_backoff) == (7, 5)
    assert (broker.defaults.time_limit, broker.defaults.max_age) == (1000, 9)
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        "Retries",
        "TimeLimit",
        "AgeLimit",
    ]
    broker.close()


def test_a_broker_of_settings_goes_by_their_queues(
    valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Priority and retention of an actor's jobs, not their times; and the stock worker writes the limits."""
    declared = {"films": {"priority": 2, "rate": "7/s", "timeout_s": 1, "failed_kept_s": 60}}
    settings = Settings.model_validate(
        {
            "env": "test", "redis_url": valkey_url, "key_prefix": keyspace.prefix, "data_dir": tmp_path,
            "queues": declared,
        }
    )  # fmt: skip
    broker = TidingsBroker(settings)
    try:

        @dramatiq.actor(queue_name="films", broker=broker)
        def encode() -> None: ...

        record = broker.store.run(commands.read_job(encode.send().message_id))
        assert record is not None
        assert (record.priority, record.spec.timeout_s, record.spec.max_attempts) == (2, 600, 21)
        broker.consume("films").close()
        (found,) = broker.store.run(commands.read_queues(0, ["films"]))
        assert found.limits.rate == Rate(7, 1, 7)
    finally:
        broker.close()


def test_consumers_of_all_queues_share_one_committer(broker: TidingsBroker) -> None:
    """The stock worker starts them at the same moment; two committers would share neither leases nor outcomes."""
    together = threading.Barrier(8)

    def consume(queue: str) -> None:
        together.wait()
        broker.consume(queue).close()

    consumers = [threading.Thread(target=consume, args=[f"queue{n}"]) for n in range(8)]
    for thread in consumers:
        thread.start()
    for thread in consumers:
        thread.join()
    assert [thread.name for thread in threading.enumerate()].count("tidings-committer") == 1
    broker.close()
    assert "tidings-committer" not in [thread.name for thread in threading.enumerate()]


async def test_job_type_sent_as_an_actor_is_the_same_job(broker: TidingsBroker, jobs: Jobs) -> None:
    """What the stock worker declares for a job type queues what ``submit`` queues."""
    registry = jobs.registry

    @job("report.rows", queue="reports", registry=registry)
    async def rows(ctx: JobContext) -> None: ...

    broker.declare_jobs(registry)
    record = await jobs.read(broker.get_actor("report.rows").send().message_id)
    assert record.spec.type == "report.rows"
    assert not record.spec.is_plain_actor
    assert record.queue == "reports"


@pytest.mark.parametrize("kind", [WorkerThread, ConsumerThread])
def test_stock_worker_that_is_stopped_as_it_starts_ends(
    broker: TidingsBroker, monkeypatch: pytest.MonkeyPatch, kind: type[Any]
) -> None:
    """Its threads say that they run when they come to it; on a busy machine that is after they were told to stop."""

    @dramatiq.actor
    def note() -> None: ...

    run = kind.run

    def run_late(self: Any) -> None:
        threading.Event().wait(0.3)
        run(self)

    monkeypatch.setattr(kind, "run", run_late)
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    worker.stop(timeout=2_000)
    assert not [thread for thread in [*worker.workers, *worker.consumers.values()] if thread.is_alive()]


async def test_message_acknowledged_without_a_decision_has_not_completed(
    broker: TidingsBroker, jobs: Jobs
) -> None:
    """An interrupt that breaks in behind the actor makes Dramatiq acknowledge what nobody has judged."""

    @dramatiq.actor(max_retries=0)
    def note() -> None: ...

    job_id = note.send().message_id
    consumer = broker.consume("default", timeout=1000)
    message = await asyncio.to_thread(next, consumer)
    assert message is not None
    consumer.ack(message)
    record = await jobs.until(job_id)
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert b"interrupted at its end" in record.error
