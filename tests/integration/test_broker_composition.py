"""Dramatiq's ways to combine messages, on our broker: groups with results and callbacks, pipelines, priorities, times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend as StubRateBackend
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import StubBackend

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.support.timing import scaled
from tidings.protocol import is_job_id
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace


@pytest.fixture
def broker(valkey_url: str, keyspace: Keyspace) -> Iterator[TidingsBroker]:
    """Give a broker with results and group callbacks, which is Dramatiq's global one for the test."""
    made = TidingsBroker(valkey_url, keyspace=keyspace)
    made.add_middleware(Results(backend=StubBackend(), store_results=True))
    made.add_middleware(GroupCallbacks(StubRateBackend()))
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
    async with running_worker(valkey_url, keyspace, Registry(), tmp_path):
        yield


_MS = round(scaled(10) * 1000)


@pytest.mark.usefixtures("worker", "broker")
async def test_a_group_gives_its_results() -> None:
    """Its messages get their jobs' ids when the group runs, under which the backend keeps the results; so does one sent alone."""

    @dramatiq.actor
    def add(a: int, b: int) -> int:
        return a + b

    group = dramatiq.group([add.message(1, 2), add.message(3, 4)]).run()
    assert all(is_job_id(child.message_id) for child in group.children)
    assert await asyncio.to_thread(lambda: list(group.get_results(block=True, timeout=_MS))) == [3, 7]
    assert group.completed
    alone = add.send(5, 6)
    assert await asyncio.to_thread(lambda: alone.get_result(block=True, timeout=_MS)) == 11
    later = add.send_with_options(args=(1, 1), delay=60_000)
    with pytest.raises(ResultMissing):
        later.get_result()


@pytest.mark.usefixtures("worker", "broker")
async def test_a_group_calls_back_when_it_is_complete() -> None:
    """Also when a part of it is a pipeline."""
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    seen: list[int] = []

    @dramatiq.actor
    def double(n: int) -> int:
        seen.append(n)
        return n * 2

    @dramatiq.actor
    def complete() -> None:
        loop.call_soon_threadsafe(called.set)

    group = dramatiq.group([double.message(1), double.message(10) | double.message()])
    group.add_completion_callback(complete.message())
    group.run()
    await asyncio.wait_for(called.wait(), scaled(10))
    assert sorted(seen) == [1, 10, 20]


@pytest.mark.usefixtures("worker", "broker")
async def test_a_pipelines_result_that_cannot_be_had_says_why() -> None:
    """The last step is sent by a worker; it does not look as if it were still running."""
    loop, called = asyncio.get_running_loop(), asyncio.Event()

    @dramatiq.actor
    def one() -> int:
        return 1

    @dramatiq.actor
    def last(n: int) -> None:
        loop.call_soon_threadsafe(called.set)

    pipe = (one.message() | last.message()).run()
    await asyncio.wait_for(called.wait(), scaled(10))
    with pytest.raises(RuntimeError, match="last was not sent by this program"):
        pipe.get_result()
    assert await asyncio.to_thread(lambda: pipe.messages[0].get_result(block=True, timeout=_MS)) == 1


async def test_a_message_can_be_sent_again(broker: TidingsBroker, jobs: Jobs) -> None:
    """Each sending is a job of its own."""

    @dramatiq.actor
    def note() -> None: ...

    message = note.message()
    first, second = broker.enqueue(message).message_id, broker.enqueue(message).message_id
    assert first != second
    assert message.message_id == second
    assert {(await jobs.read(job_id)).spec.type for job_id in (first, second)} == {"note"}


@pytest.mark.parametrize(
    ("given", "queue", "priority"),
    [(0, "default", 3), (-1, "default", 2), (-5, "emails", 1), (50, "emails", 9)],
)
async def test_an_actors_priority_shifts_its_queues(
    broker: TidingsBroker, jobs: Jobs, given: int, queue: str, priority: int
) -> None:
    """Lower is sooner in Dramatiq too; the room is from 1 to 9."""

    @dramatiq.actor(priority=given, queue_name=queue)
    def ranked() -> None: ...

    assert (await jobs.read(ranked.send().message_id)).priority == priority


@pytest.mark.usefixtures("worker")
async def test_a_messages_time_is_its_jobs(broker: TidingsBroker, jobs: Jobs) -> None:
    """``message_timestamp`` is when it was sent, to the millisecond of the job's id."""
    times: list[Any] = []

    class Times(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            times.append(message.message_timestamp)

    broker.add_middleware(Times())

    @dramatiq.actor
    def note() -> None: ...

    record = await jobs.until(note.send().message_id)
    assert abs(times[0] - record.created_ms) < 5_000
