"""Watching a job over real sockets: every event once and in order, whatever the server does to the stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.integration.sdk_double import GOOD_TOKEN, IMPATIENT, Double, ScriptedJob, running
from tests.support.timing import eventually, scaled
from tidings import Backoff, Client, ConnectionState, Event, Reset, Snapshot, Watch, WatchPolicy, errors

TRANSPORTS = ["socket.io", "sse", "long-poll"]
BLOCK = {"socket.io": set[str](), "sse": {"websocket"}, "long-poll": {"websocket", "sse"}}


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    """Give a running double."""
    async with running() as server:
        yield server


@pytest.fixture
async def client(double: Double) -> AsyncIterator[Client]:
    """Give a client of the double that tries again quickly."""
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        yield client


async def take(watch: Watch, count: int) -> list[Any]:
    """Take so many items."""
    async with asyncio.timeout(scaled(10)):
        return [await anext(watch) for _ in range(count)]


async def rest(watch: Watch) -> list[Any]:
    """Take what is left."""
    async with asyncio.timeout(scaled(10)):
        return [item async for item in watch]


def seqs(items: list[Any]) -> list[int]:
    """List the numbers, refusing anything but events."""
    assert all(isinstance(item, Event) for item in items), items
    return [item.seq for item in items]


async def test_watch_yields_the_log_and_what_follows_and_ends_with_the_job(
    double: Double, client: Client
) -> None:
    """From event 1 to the terminal event."""
    job = double.add()
    double.append(job, "started")
    watch = client.watch(job.id)
    first = await take(watch, 2)
    assert watch.connection is ConnectionState.LIVE
    assert watch.transport == "socket.io"
    double.progress(job, 3)
    double.append(job, "completed", {"result": {"ok": 1}})
    events = first + await rest(watch)
    assert seqs(events) == [1, 2, 3, 4, 5, 6]
    assert events[-1].data["result"] == {"ok": 1}
    assert watch.position == job.position


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_transport_carries_a_job_to_its_end(
    double: Double, client: Client, transport: str
) -> None:
    """Where the better transports are blocked the next one is used, in the same order of events."""
    double.block = set(BLOCK[transport])
    job = double.add()
    watch = client.watch(job.id)
    first = await take(watch, 1)
    assert watch.transport == transport
    assert watch.connection == ("polling" if transport == "long-poll" else "live")
    double.progress(job, 20)
    double.append(job, "completed")
    assert seqs(first + await rest(watch)) == list(range(1, 23))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_drops_in_mid_stream_lose_and_repeat_nothing(
    double: Double, client: Client, transport: str
) -> None:
    """Connections are cut again and again while events flow."""
    double.block = set(BLOCK[transport])
    job = double.add()
    watch = client.watch(job.id)
    items = await take(watch, 1)
    for _ in range(8):
        double.progress(job, 3)
        items += await take(watch, 1)
        double.drop()
        double.progress(job, 2)
    double.append(job, "completed")
    assert seqs(items + await rest(watch)) == list(range(1, job.head + 1))
    assert items[-1].kind != "completed"


@pytest.mark.parametrize("transport", ["socket.io", "sse"])
@pytest.mark.parametrize("fault", ["repeated", "left out", "swapped"])
async def test_repeats_and_gaps_in_the_stream_are_mended(
    double: Double, client: Client, transport: str, fault: str
) -> None:
    """The receiver trusts positions, not the stream."""
    double.block = set(BLOCK[transport])
    held: list[dict[str, Any]] = []

    def swap(event: dict[str, Any]) -> list[dict[str, Any]]:
        if event["seq"] % 3 == 0:
            held.append(event)
            return []
        return [event, *(held.pop() for _ in held[:1])]

    faults: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
        "repeated": lambda event: [event, event],
        "left out": lambda event: [] if event["seq"] % 3 == 0 and event["seq"] not in seen else [event],
        "swapped": swap,
    }
    seen: set[int] = set()
    job = double.add()
    watch = client.watch(job.id)
    items = await take(watch, 1)
    double.mangle = faults[fault]
    for _ in range(10):
        double.progress(job, 1)
        # A second chance of the same event comes through, as after a repair.
        seen.add(job.head - 2)
    double.mangle = lambda event: [event]
    double.append(job, "completed")
    assert seqs(items + await rest(watch)) == list(range(1, 13))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_folded_progress_is_no_gap(double: Double, client: Client, transport: str) -> None:
    """`prev` bridges what was folded away, without asking again."""
    double.block = set(BLOCK[transport])
    job = double.add()
    watch = client.watch(job.id)
    items = await take(watch, 1)
    asked = len(double.subscribes)
    double.progress(job, 5, folded=3)
    double.append(job, "completed", folded=2)
    items += await rest(watch)
    assert seqs(items) == [1, 5, 9, 13, 17, 21, 24]
    assert [item.prev for item in items] == [None, 1, 5, 9, 13, 17, 21]
    assert len(double.subscribes) == asked


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_position_that_is_gone_yields_a_reset_and_what_follows(
    double: Double, client: Client, transport: str
) -> None:
    """The job as it is takes the place of the lost history."""
    double.block = set(BLOCK[transport])
    job = double.add()
    double.progress(job, 5)
    double.fork(job, 3)
    double.progress(job, 1)
    watch = client.watch(job.id, "e1:6")
    (reset,) = await take(watch, 1)
    assert isinstance(reset, Reset)
    assert (reset.job.id, reset.position) == (job.id, "e2:4")
    double.progress(job, 2)
    double.append(job, "completed")
    assert seqs(await rest(watch)) == [5, 6, 7]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_reset_of_a_finished_job_brings_its_terminal_event(
    double: Double, client: Client, transport: str
) -> None:
    """The end is never missed."""
    double.block = set(BLOCK[transport])
    job = double.add()
    double.progress(job, 2)
    double.append(job, "failed", {"error": {"code": "x", "type": "X", "message": "no"}})
    job.log = job.log[2:]
    reset, *events = await rest(client.watch(job.id, "0"))
    assert isinstance(reset, Reset)
    assert seqs(events) == [4]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_old_epoch_s_position_before_the_fork_goes_on_without_a_reset(
    double: Double, client: Client, transport: str
) -> None:
    """The history up to the fork is shared."""
    double.block = set(BLOCK[transport])
    job = double.add()
    double.progress(job, 3)
    double.fork(job, 3)
    double.progress(job, 2)
    double.append(job, "completed")
    watch = client.watch(job.id, "e1:2")
    items = await rest(watch)
    assert watch.transport == transport
    assert seqs(items) == [3, 4, 5, 6]
    assert [item.epoch for item in items] == ["e1", "e2", "e2", "e2"]


async def test_a_live_reset_begins_anew(double: Double, client: Client) -> None:
    """`job:reset` tells a watcher that history forked behind it."""
    job = double.add()
    double.progress(job, 5)
    watch = client.watch(job.id)
    await take(watch, 6)
    double.fork(job, 3)
    await double.say("job:reset", {"job": job.record(), "position": job.position})
    (reset,) = await take(watch, 1)
    assert isinstance(reset, Reset)
    assert reset.position == "e2:3"
    double.append(job, "completed")
    assert seqs(await rest(watch)) == [4]


async def test_a_fork_without_a_word_is_noticed(double: Double, client: Client) -> None:
    """An event of another epoch is never taken for a repeat or a successor on the strength of its number."""
    job = double.add()
    double.progress(job, 5)
    watch = client.watch(job.id)
    await take(watch, 6)
    double.fork(job, 3)
    double.progress(job, 1)
    (reset,) = await take(watch, 1)
    assert isinstance(reset, Reset)
    double.append(job, "completed")
    assert seqs(await rest(watch)) == [5]


@pytest.mark.parametrize("stale", [False, True])
async def test_events_that_overtake_a_slow_ack_are_kept_behind_it(
    double: Double, client: Client, stale: bool
) -> None:
    """Whether the ack tells of them again or not."""
    double.ack_gate, double.stale_ack = asyncio.Event(), stale
    job = double.add()
    watch = client.watch(job.id)
    first = asyncio.create_task(take(watch, 1))
    await double.subscribed.get()
    double.progress(job, 5)
    await double.flush()
    double.ack_gate.set()
    double.append(job, "completed")
    assert seqs(await first + await rest(watch)) == list(range(1, 8))
    assert len(double.subscribes) == 1


async def test_what_an_ack_can_not_hold_follows_as_ordinary_events(double: Double, client: Client) -> None:
    """A long log arrives whole."""
    double.ack_limit = 10
    job = double.add()
    double.progress(job, 300)
    double.append(job, "completed")
    assert seqs(await rest(client.watch(job.id))) == list(range(1, 303))
    assert len(double.subscribes) == 1


async def test_a_server_that_dies_and_returns_on_its_port_is_found_again(double: Double) -> None:
    """The watch is offline meanwhile; however often it tries, that speaks against no transport."""
    tried = asyncio.Event()

    class Counting(Backoff):
        def delay_s(self, failures: int, rng: Callable[[], float] = random.random) -> float:
            transports.add(watch.transport)
            if failures >= 4:
                tried.set()
            return 0.01 if failures else 0.0

    states: list[str] = []
    transports: set[str] = set()
    policy = WatchPolicy(failures_before_descent=2, backoff=Counting())
    async with Client(double.url, GOOD_TOKEN, watch_policy=policy) as client:
        job = double.add()
        watch = client.watch(job.id, on_connection=states.append)
        items = await take(watch, 1)
        more = asyncio.create_task(take(watch, 3))
        await double.stop()
        await tried.wait()
        double.progress(job, 2)
        await double.start()
        double.append(job, "completed")
        assert seqs(items + await more) == [1, 2, 3, 4]
        assert states == ["live", "offline", "live"]
        assert transports == {"socket.io"}


async def test_a_watch_climbs_back_without_losing_or_repeating(double: Double, client: Client) -> None:
    """From long-poll to SSE to Socket.IO as they come back, with events flowing all the time."""
    double.block = {"websocket", "sse"}
    job = double.add()
    watch = client.watch(job.id)
    seen = await take(watch, 1)
    transports = [watch.transport]

    async def go_on_until(transport: str) -> None:
        while watch.transport != transport:
            double.progress(job, 2)
            seen.extend(await take(watch, 2))
        transports.append(watch.transport)

    async with asyncio.timeout(scaled(10)):
        double.block = {"websocket"}
        await go_on_until("sse")
        double.block = set()
        await go_on_until("socket.io")
    double.append(job, "completed")
    assert seqs(seen + await rest(watch)) == list(range(1, job.head + 1))
    assert transports == ["long-poll", "sse", "socket.io"]
    assert watch.connection is ConnectionState.LIVE


async def test_a_quiet_job_does_not_keep_a_watch_on_a_lower_transport(double: Double, client: Client) -> None:
    """Climbing does not wait for an event."""
    double.block = {"websocket"}
    job = double.add()
    watch = client.watch(job.id)
    await take(watch, 1)
    end = asyncio.create_task(rest(watch))
    double.block = set()
    await eventually(lambda: watch.transport == "socket.io")
    double.append(job, "completed")
    assert seqs(await end) == [2]


async def test_a_stream_that_a_proxy_holds_back_is_given_up_for_long_polls(
    double: Double, client: Client
) -> None:
    """An answer's head alone is no sign of life."""
    double.block = {"websocket"}
    double.hold_sse_body = True
    job = double.add()
    watch = client.watch(job.id)
    await take(watch, 1)
    assert watch.transport == "long-poll"
    await watch.aclose()


async def test_a_finished_job_watched_from_its_end_ends_at_once(double: Double, client: Client) -> None:
    """Nothing will ever follow; on no transport may the reader wait for it."""
    job = double.add()
    double.append(job, "completed")
    assert await rest(client.watch(job.id, job.position)) == []
    (snapshot,) = await rest(client.watch(job.id, None))
    assert isinstance(snapshot, Snapshot)
    assert not isinstance(snapshot, Reset)
    assert snapshot.job.status == "completed"


async def test_watching_from_now_on_begins_with_the_job_as_it_is(double: Double, client: Client) -> None:
    """No history, but no hole either."""
    job = double.add()
    double.progress(job, 4)
    watch = client.watch(job.id, None)
    (snapshot,) = await take(watch, 1)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.position == "e1:5"
    double.append(job, "completed")
    assert seqs(await rest(watch)) == [6]


async def test_a_watch_resumes_at_a_former_watch_s_position(double: Double, client: Client) -> None:
    """What `position` is for."""
    job = double.add()
    double.progress(job, 4)
    async with client.watch(job.id) as watch:
        await take(watch, 3)
    double.append(job, "completed")
    assert seqs(await rest(client.watch(job.id, watch.position))) == [4, 5, 6]


async def test_leaving_a_watch_unsubscribes(double: Double, client: Client) -> None:
    """The server stops sending."""
    job = double.add()
    watch = client.watch(job.id)
    async for _ in watch:
        break
    await watch.aclose()
    assert await double.unsubscribed.get() == job.id
    assert watch.connection is ConnectionState.OFFLINE


async def test_watches_share_one_socket(double: Double, client: Client) -> None:
    """However many there are."""
    jobs = [double.add() for _ in range(20)]
    watches = [client.watch(job.id) for job in jobs]
    await asyncio.gather(*(take(watch, 1) for watch in watches))
    assert double.connected == 1
    for job in jobs:
        double.append(job, "completed")
    ends = await asyncio.gather(*(rest(watch) for watch in watches))
    assert [seqs(end) for end in ends] == [[2]] * 20


async def test_two_watches_of_one_job_both_see_everything(double: Double, client: Client) -> None:
    """Though a second subscription replaces the first on the server, even in the middle of a long replay."""
    double.ack_limit = 10
    job = double.add()
    double.progress(job, 200)
    early = client.watch(job.id)
    items = await take(early, 5)
    late = client.watch(job.id, "e1:150")
    first_of_late = await take(late, 1)
    whole = asyncio.create_task(rest(early))
    part = asyncio.create_task(rest(late))
    double.progress(job, 5)
    double.append(job, "completed")
    assert seqs(items + await whole) == list(range(1, job.head + 1))
    assert seqs(first_of_late + await part) == list(range(151, job.head + 1))


async def test_a_watch_whose_replay_another_one_replaces_asks_again(double: Double, client: Client) -> None:
    """Though the job is quiet, so that no event shows the hole: the other's answer does."""
    double.ack_limit = 10
    job = double.add()
    double.progress(job, 200)
    double.rest_gate = asyncio.Event()
    early = client.watch(job.id)
    items = await take(early, 10)
    waiting = asyncio.create_task(take(early, 191))
    assert await double.subscribed.get() == "0"
    late = asyncio.create_task(rest(client.watch(job.id, job.position)))
    assert await double.subscribed.get() == job.position
    double.rest_gate.set()
    assert seqs(items + await waiting) == list(range(1, 202))
    double.append(job, "completed")
    assert seqs(await late) == seqs(await rest(early)) == [202]


async def test_one_of_two_watches_leaving_does_not_silence_the_other(double: Double, client: Client) -> None:
    """The server's subscription belongs to both."""
    job = double.add()
    stays, leaves = client.watch(job.id), client.watch(job.id)
    await take(stays, 1)
    await take(leaves, 1)
    await leaves.aclose()
    double.append(job, "completed")
    assert seqs(await rest(stays)) == [2]


async def test_a_slow_reader_is_bounded_and_still_sees_everything(double: Double) -> None:
    """What does not fit is asked for again when the reader gets there."""
    policy = WatchPolicy(max_buffered_events=50, backoff=IMPATIENT.backoff)
    async with Client(double.url, GOOD_TOKEN, watch_policy=policy) as client:
        job, other = double.add(), double.add()
        slow, fence = client.watch(job.id), client.watch(other.id)
        items = await take(slow, 1)
        await take(fence, 1)
        double.progress(job, 500)
        # The fence's event comes behind the 500 on the same socket.
        double.append(other, "completed")
        await rest(fence)
        double.append(job, "completed")
        assert seqs(items + await rest(slow)) == list(range(1, 503))
        assert len(double.subscribes) > 2


async def test_a_job_of_nobody_raises_job_not_found(double: Double, client: Client) -> None:
    """On every transport, and at once for what is no id."""
    stranger = ScriptedJob()
    for blocked in BLOCK.values():
        double.block = set(blocked)
        with pytest.raises(errors.JobNotFound):
            await rest(client.watch(stranger.id))
    with pytest.raises(errors.JobNotFound, match="not a job id"):
        client.watch("../stats")
    with pytest.raises(ValueError, match="position"):
        client.watch(stranger.id, "seven")


async def test_a_watch_gives_up_after_the_offline_time_and_never_ends_as_if_complete(double: Double) -> None:
    """A dropped stream raises; it does not finish."""
    policy = WatchPolicy(offline_timeout_s=0.3, backoff=Backoff(base_s=0.02, cap_s=0.1))
    async with Client(double.url, GOOD_TOKEN, watch_policy=policy) as client:
        job = double.add()
        watch = client.watch(job.id)
        await take(watch, 1)
        await double.stop()
        with pytest.raises(errors.ConnectionLost, match="gave up"):
            await rest(watch)


async def test_an_event_kind_this_client_does_not_know_is_passed_on(double: Double, client: Client) -> None:
    """As a newer worker writes it, with its data, in its place; it ends nothing."""
    job = double.add()
    double.append(job, "asking_again", {"prompt": "?"})
    double.append(job, "completed", {"result": 1})
    events = [item async for item in client.watch(job.id) if isinstance(item, Event)]
    asking = next(event for event in events if event.kind == "asking_again")
    assert (asking.kind.value, asking.data, asking.is_terminal) == ("asking_again", {"prompt": "?"}, False)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("kind", ["", "Two Words", "x" * 65, 7, None])
async def test_what_is_no_event_kind_at_all_raises(double: Double, client: Client, kind: Any) -> None:
    """A word of small letters is the least."""
    job = double.add()
    double.append(job, kind, {})
    with pytest.raises(errors.InternalError, match="kind"):
        await rest(client.watch(job.id))


async def test_closing_the_client_ends_its_watches_with_an_error(double: Double) -> None:
    """Not as if the job were complete."""
    job = double.add()
    client = Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT)
    watch = client.watch(job.id)
    await take(watch, 1)
    waiting = asyncio.create_task(rest(watch))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises((RuntimeError, errors.TidingsError)):
        await waiting


async def test_a_server_that_leaves_a_gap_for_good_is_not_asked_without_end(double: Double) -> None:
    """The repair is paced like any failure and gives up."""
    policy = WatchPolicy(offline_timeout_s=0.5, backoff=Backoff(base_s=0.05, cap_s=0.1))
    async with Client(double.url, GOOD_TOKEN, watch_policy=policy) as client:
        job = double.add()
        double.progress(job, 3)
        job.log[2]["seq"] = 9
        job.log[3]["seq"] = 10
        with pytest.raises(errors.ConnectionLost, match="gave up"):
            await rest(client.watch(job.id))
        assert len(double.requests) < 60
