"""Parts of the REST server by themselves: limits, intake, streams, ETags, queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from multidict import MultiDict
from pydantic import BaseModel, ConfigDict

from tidings.protocol.errors import InvalidInput, QueueFull, RateLimited, ServerDraining, StoreUnavailable
from tidings_server import intake as intake_module
from tidings_server.api.conditional import etag_of, matches
from tidings_server.api.query import parse_query
from tidings_server.auth import Identity
from tidings_server.intake import Intake
from tidings_server.limits import Limiter
from tidings_server.streams import End, Ended, Stream, Streams
from tidings_tasks.store import Spec, Store, Submission


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_evenly() -> None:
    """A minute's worth at once, then one each second of sixty a minute."""
    clock = Clock()
    limiter = Limiter(60, now=clock)
    left = [limiter.take("a").remaining for _ in range(60)]
    assert left == list(range(59, -1, -1))
    with pytest.raises(RateLimited) as caught:
        limiter.take("a")
    assert caught.value.retry_after_s == pytest.approx(1)
    clock.now += 0.5
    with pytest.raises(RateLimited) as caught:
        limiter.take("a")
    assert caught.value.retry_after_s == pytest.approx(0.5)
    clock.now += 0.5
    assert limiter.take("a").remaining == 0
    clock.now += 1000
    assert limiter.look("a").remaining == 60


def test_many_are_taken_together_or_not_at_all() -> None:
    """And the wait is until so many are there."""
    clock = Clock()
    limiter = Limiter(60, now=clock)
    assert limiter.take("a", 50).remaining == 10
    with pytest.raises(RateLimited) as caught:
        limiter.take("a", 15)
    assert caught.value.retry_after_s == pytest.approx(5)
    assert limiter.look("a").remaining == 10
    assert limiter.take("a", 10).remaining == 0


def test_looking_takes_nothing_and_callers_are_apart() -> None:
    """Each caller has a bucket of their own."""
    limiter = Limiter(2, now=Clock())
    limiter.take("a")
    assert [limiter.look("a").remaining for _ in range(3)] == [1, 1, 1]
    assert limiter.look("b").remaining == 2
    assert limiter.look("a").headers() == {
        "RateLimit-Limit": "2",
        "RateLimit-Remaining": "1",
        "RateLimit-Reset": "30",
    }


def test_the_limiters_memory_is_bounded() -> None:
    """The caller who was longest away is forgotten."""
    limiter = Limiter(2, now=Clock())
    for number in range(20_005):
        limiter.take(str(number))
    assert len(limiter._buckets) == 20_000
    assert limiter.look("0").remaining == 2
    assert limiter.look("20004").remaining == 1


class RecordingStore(Store):
    """A store whose calls wait until they are let through, and are counted."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self._real: Store | None = None

    async def run(self, command: Any) -> Any:
        ids = [command.args[at] for at in range(2, len(command.args), 11)]
        self.batches.append(len(ids))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return command.parse([(b"created", job_id.encode(), b"e", b"1") for job_id in ids])


def submission(number: int, *, key: str = "", size: int = 0, owner: str = "a") -> Submission:
    """A job to store."""
    spec = Spec("t", owner, None, {"x": "y" * size}, 1, 1, (1,))
    return Submission(f"{number:026d}s0", spec, "default", 3, idempotency_key=key)


async def begin(intake: Intake, *submissions: Submission) -> list[asyncio.Task[Any]]:
    """Submit, and let all get in line."""
    tasks = [asyncio.create_task(intake.submit(0, each)) for each in submissions]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


@pytest.fixture
async def recording() -> AsyncIterator[tuple[Intake, RecordingStore]]:
    """An intake on a store that waits."""
    store = RecordingStore()
    intake = Intake(store)
    yield intake, store
    store.gate.set()
    await intake.aclose()


async def test_what_arrives_during_a_call_goes_with_the_next(
    recording: tuple[Intake, RecordingStore],
) -> None:
    """The first goes alone, all others together; each gets its own answer."""
    intake, store = recording
    tasks = await begin(intake, *(submission(number) for number in range(10)))
    store.gate.set()
    found = await asyncio.gather(*tasks)
    assert [each.id for each in found] == [f"{number:026d}s0" for number in range(10)]
    assert sum(store.batches) == 10
    assert len(store.batches) <= 2
    assert intake.waiting == 0


async def test_a_call_is_bounded_in_jobs_and_bytes(
    recording: tuple[Intake, RecordingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More goes with the call after."""
    intake, store = recording
    monkeypatch.setattr(intake_module, "_MAX_BATCH", 4)
    monkeypatch.setattr(intake_module, "_MAX_BATCH_BYTES", 2500)
    tasks = await begin(intake, *(submission(number, size=1000 if number < 4 else 0) for number in range(12)))
    store.gate.set()
    await asyncio.gather(*tasks)
    assert sum(store.batches) == 12
    assert max(store.batches) <= 4
    assert store.batches[:2] == [2, 4] or store.batches[:3] == [1, 2, 4]


async def test_two_of_one_key_never_share_a_call(recording: tuple[Intake, RecordingStore]) -> None:
    """The script looks all keys up before it stores; in one call both would be stored."""
    intake, store = recording
    await begin(intake, submission(0))
    tasks = await begin(
        intake,
        submission(1, key="k"),
        submission(2, key="k"),
        submission(3, key="l"),
        submission(4, key="k", owner="b"),
        submission(5, key="k"),
    )
    store.gate.set()
    await asyncio.gather(*tasks)
    assert sorted(store.batches) == [1, 1, 1, 3]


async def test_a_debounced_repeat_never_shares_a_call_with_its_former(
    recording: tuple[Intake, RecordingStore],
) -> None:
    """It can only take the place of a job that is stored; a plain repeat may be beside it."""
    intake, store = recording
    await begin(intake, submission(0))

    def repeat(number: int, *, debounce: bool, owner: str = "a") -> Submission:
        return replace(submission(number, owner=owner), dedup_key="k", debounce=debounce)

    tasks = await begin(
        intake,
        repeat(1, debounce=True),
        repeat(2, debounce=True),
        repeat(3, debounce=False),
        repeat(4, debounce=True, owner="b"),
        repeat(5, debounce=True),
    )
    store.gate.set()
    await asyncio.gather(*tasks)
    assert store.batches == [1, 3, 1, 1]


async def test_batches_of_a_shard_go_one_after_the_other(recording: tuple[Intake, RecordingStore]) -> None:
    """So that single submissions come in between."""
    intake, store = recording
    batches = [
        asyncio.create_task(intake.submit_batch(0, [submission(10 * number), submission(10 * number + 1)]))
        for number in range(3)
    ]
    (single,) = await begin(intake, submission(99))
    assert store.batches == [2, 1]
    assert intake.waiting == 6
    store.gate.set()
    found = await asyncio.gather(*batches)
    assert [[entry.id[:26] for entry in batch] for batch in found] == [
        [f"{10 * number:026d}", f"{10 * number + 1:026d}"] for number in range(3)
    ]
    await single
    assert (store.batches, intake.waiting) == ([2, 1, 2, 2], 0)


async def test_a_batch_waits_in_the_same_bound_and_none_is_taken_when_closing(
    recording: tuple[Intake, RecordingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is stored then; a fault makes room again."""
    intake, store = recording
    monkeypatch.setattr(intake_module, "_MAX_WAITING", 3)
    with pytest.raises(QueueFull):
        await intake.submit_batch(0, [submission(number) for number in range(4)])
    store.gate.set()
    store.error = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        await intake.submit_batch(0, [submission(1), submission(2)])
    assert intake.waiting == 0
    await intake.aclose()
    with pytest.raises(ServerDraining):
        await intake.submit_batch(0, [submission(1)])
    assert store.batches == [2]


async def test_a_failed_call_is_told_to_each_of_its_callers(recording: tuple[Intake, RecordingStore]) -> None:
    """With an error of their own, and the lane goes on afterwards."""
    intake, store = recording
    store.error = StoreUnavailable("gone")
    tasks = await begin(intake, submission(1), submission(2))
    store.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, StoreUnavailable) for error in found)
    assert found[0] is not found[1]
    store.error = None
    assert (await intake.submit(0, submission(3))).id.startswith("0")


async def test_an_intake_that_is_full_says_so(
    recording: tuple[Intake, RecordingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of letting memory grow."""
    intake, store = recording
    monkeypatch.setattr(intake_module, "_MAX_WAITING", 3)
    tasks = await begin(intake, submission(0))
    tasks += await begin(intake, *(submission(number) for number in range(1, 4)))
    with pytest.raises(QueueFull) as caught:
        await intake.submit(0, submission(9))
    assert caught.value.retry_after_s
    store.gate.set()
    await asyncio.gather(*tasks)


async def test_a_caller_who_left_before_the_call_is_left_out(
    recording: tuple[Intake, RecordingStore],
) -> None:
    """Nobody waits for that job."""
    intake, store = recording
    tasks = await begin(intake, submission(0))
    tasks += await begin(intake, submission(1), submission(2))
    tasks[1].cancel()
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(store.batches) == 2


async def test_closing_stores_what_waits_and_takes_no_more(recording: tuple[Intake, RecordingStore]) -> None:
    """Then it refuses."""
    intake, store = recording
    tasks = await begin(intake, submission(0))
    tasks += await begin(intake, submission(1))
    closing = asyncio.create_task(intake.aclose())
    await asyncio.sleep(0)
    store.gate.set()
    await closing
    assert len(await asyncio.gather(*tasks)) == 2
    with pytest.raises(ServerDraining):
        await intake.submit(0, submission(2))


def identity(ends_at: float) -> Identity:
    """A caller whose token ends then."""
    return Identity("alice", None, frozenset(), ends_at)


async def test_a_wait_ends_for_the_first_reason_there_is() -> None:
    """While it is on, before it begins, and with the token."""
    clock = Clock()
    stream = Stream(identity(2000).expires_at, clock)
    assert await stream.wait_for(asyncio.sleep(0, "news")) == "news"
    waiting = asyncio.create_task(stream.wait_for(asyncio.Event().wait()))
    await asyncio.sleep(0)
    stream.end(End.CLIENT_GONE)
    stream.end(End.DRAINING)
    for attempt in (waiting, stream.wait_for(asyncio.Event().wait())):
        with pytest.raises(Ended) as caught:
            await attempt
        assert caught.value.reason is End.CLIENT_GONE

    late = Stream(clock.now - 1, clock)
    with pytest.raises(Ended) as caught:
        await late.wait_for(asyncio.Event().wait())
    assert caught.value.reason is End.TOKEN_EXPIRED
    soon = Stream(clock.now + 0.01, clock)
    with pytest.raises(Ended) as caught:
        await soon.wait_for(asyncio.Event().wait())
    assert caught.value.reason is End.TOKEN_EXPIRED


async def test_a_time_out_of_the_news_itself_is_not_the_streams_end() -> None:
    """It goes through as it is."""

    async def fail() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await Stream(2e9, Clock()).wait_for(fail())


def test_streams_are_bounded_in_all() -> None:
    """Also over many callers."""
    from aiohttp.test_utils import make_mocked_request

    ended: list[str] = []
    streams = Streams(
        max_open=2, max_per_subject=5, lasted=lambda kind, seconds: ended.append(kind), now=Clock()
    )
    request = make_mocked_request("GET", "/")
    callers = [Identity(name, None, frozenset(), 2e9) for name in "abc"]
    with streams.open(request, callers[0], "sse"), streams.open(request, callers[1], "poll"):
        with pytest.raises(RateLimited), streams.open(request, callers[2], "sse"):
            pass
        assert len(streams) == 2
    assert ended == ["poll", "sse"]
    assert (len(streams), len(streams._by_subject)) == (0, 0)
    streams.drain()
    with pytest.raises(ServerDraining), streams.open(request, callers[0], "sse"):
        pass


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], False),
        (["*"], True),
        ([" * "], True),
        (['W/"k:7"'], True),
        (['"k:7"'], True),
        (['"a", W/"k:7", "b"'], True),
        (['"a"', '"k:7"'], True),
        (['W/"k:77"'], False),
        (["k:7"], False),
        (['"k:7'], False),
        (['""'], False),
    ],
)
def test_etags_match_by_weak_comparison(fields: list[str], expected: bool) -> None:
    """RFC 9110 §8.8.3.2."""
    assert matches(fields, "k:7") is expected
    assert matches([etag_of("k:7")], "k:7")


class Query(BaseModel):
    """A query with a list and a number."""

    model_config = ConfigDict(extra="forbid")

    tag: list[str] = []
    limit: int = 5


@pytest.mark.parametrize(
    ("pairs", "tags"),
    [
        ([], []),
        ([("tag", "a")], ["a"]),
        ([("tag", "a,b"), ("tag", " c ")], ["a", "b", "c"]),
        ([("tag", ",,")], []),
    ],
)
def test_lists_in_queries_are_repeated_or_written_with_commas(
    pairs: list[tuple[str, str]], tags: list[str]
) -> None:
    """Both, also mixed."""
    assert parse_query(MultiDict(pairs), Query).tag == tags


@pytest.mark.parametrize(
    "pairs", [[("limit", "1"), ("limit", "1")], [("x", "1")], [("limit", "")], [("limit", "1.5")]]
)
def test_a_query_that_is_not_meant_is_refused(pairs: list[tuple[str, str]]) -> None:
    """Twice, unknown, empty or of another type."""
    with pytest.raises(InvalidInput) as caught:
        parse_query(MultiDict(pairs), Query)
    assert caught.value.errors[0].field == pairs[0][0]
