"""The browser client's promise of order: whatever the stream does, each event once, in order, or `reset`."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.double import Double, ScriptedJob
from tests.browser.watching import outcome, seen, start_watch, until_seen

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def _finish(double: Double, job: ScriptedJob, page: Page) -> dict[str, Any]:
    await double.tell(job, job.append("completed", {"result": {"ok": True}, "duration_s": 1.0}))
    return await outcome(page)


async def test_live_events_arrive_once_and_in_order(page: Page, double: Double) -> None:
    """A quiet stream: what was there, then what comes, then the outcome."""
    job = double.add_job()
    job.append("started", {"worker": "w", "attempt": 1})
    await start_watch(page, double, job.id)
    await until_seen(page, 2)
    for step in range(5):
        await double.tell(job, job.append("progress", {"percent": step * 20.0}))
    assert await _finish(double, job, page) == {
        "status": "completed", "result": {"ok": True}, "resultRef": None, "error": None, "reason": None,
        "durationS": 1,
    }  # fmt: skip
    assert await seen(page) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert double.subscribes == ["0"]
    assert await page.evaluate("tidings.state") == "live"


async def test_repeats_and_swapped_events_change_nothing(page: Page, double: Double) -> None:
    """Events sent twice, late or in the wrong order are applied once and in order."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    first, second, third = (job.append("output", {"chunk": chunk}) for chunk in "abc")
    await double.tell(job, first, first, third, second, third, first)
    await until_seen(page, 4)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3, 4, 5]
    assert await page.evaluate("outputs.join('')") == "abc"


async def test_a_gap_is_asked_for_again_from_where_the_watch_stands(page: Page, double: Double) -> None:
    """An event that was dropped on the way is noticed by the next one."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    job.append("log", {"level": "info", "message": "dropped on the way"})
    await double.tell(job, job.append("log", {"level": "info", "message": "arrives"}))
    await until_seen(page, 3)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3, 4]
    assert double.subscribes == ["0", "e1:1"]


async def test_a_gap_before_a_burst_is_asked_for_once(page: Page, double: Double) -> None:
    """Events that came in one piece with the first one behind the gap say nothing new about it."""
    job = double.add_job()
    await page.goto(f"{double.url}/blank")
    await page.evaluate(_OVER_SOCKET_POLLING)
    await start_watch(page, double, job.id, after="e1:1", navigate=False)
    await double.until_asked("get")  # as it is once the acknowledgement turned out to be empty
    job.append("output", {"chunk": "dropped on the way"})
    burst = [job.append("output", {"chunk": str(number)}) for number in range(8)]
    # The repeat answers the waiting poll, so that the others share the next one.
    await double.tell(job, job.log[0], *burst)
    await until_seen(page, 9)
    await _finish(double, job, page)
    assert await seen(page) == list(range(2, 12))


async def test_an_event_of_an_unknown_kind_keeps_its_place(page: Page, double: Double) -> None:
    """As a newer worker writes it: it is told like any other, and ends nothing."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    await double.tell(job, job.append("asking_again", {"prompt": "?"}))
    await double.tell(job, job.append("output", {"chunk": "a"}))
    assert (await _finish(double, job, page))["status"] == "completed"
    assert await seen(page) == [1, 2, 3, 4]
    assert double.subscribes == ["0"]


async def test_folded_progress_is_no_gap(page: Page, double: Double) -> None:
    """`prev` declares what was left out; nothing is asked for."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    await double.tell(job, job.append("progress", {"percent": 40.0}, prev=1))
    await double.tell(job, job.append("log", {"level": "info", "message": "folded before me"}, prev=5))
    await _finish(double, job, page)
    assert await seen(page) == [1, 5, 9, 10]
    assert double.subscribes == ["0"]


async def test_a_folded_event_that_begins_too_late_is_a_gap(page: Page, double: Double) -> None:
    """`prev` beyond the watch's position hides something that was not progress."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    job.append("output", {"chunk": "lost"})
    await double.tell(job, job.append("progress", {"percent": 40.0}, prev=2))
    await until_seen(page, 3)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 6, 7]


async def test_a_long_log_comes_in_several_parts(page: Page, double: Double) -> None:
    """What an acknowledgement could not hold follows as ordinary events."""
    job = double.add_job()
    job.ack_limit = 10
    for step in range(50):
        job.append("output", {"chunk": str(step)})
    await start_watch(page, double, job.id)
    await until_seen(page, 51)
    await _finish(double, job, page)
    assert await seen(page) == list(range(1, 53))


async def test_two_watches_of_a_job_each_see_everything_from_their_own_position(
    page: Page, double: Double
) -> None:
    """A connection has one subscription a job; a second watch must neither starve nor repeat the first."""
    job = double.add_job()
    for step in range(20):
        job.append("output", {"chunk": str(step)})
    await start_watch(page, double, job.id, after="e1:18")
    await until_seen(page, 3)
    await page.evaluate(
        """(id) => { window.second = []; tidings.watch(id, {onEvent: (event) => second.push(event.seq)}); }""",
        job.id,
    )
    await page.wait_for_function("() => second.length >= 21")
    await double.tell(job, job.append("output", {"chunk": "both"}))
    await _finish(double, job, page)
    assert await seen(page) == [19, 20, 21, 22, 23]
    assert await page.evaluate("second") == list(range(1, 24))


async def test_a_fork_ahead_of_the_watch_needs_no_reset(page: Page, double: Double) -> None:
    """Another epoch is confirmed with the server before its events are taken."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    job.fork(keep=1)
    await double.tell(job, job.append("started", {"worker": "w", "attempt": 1}))
    await until_seen(page, 2)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3]
    assert "e1:1" in double.subscribes


async def test_a_fork_behind_the_watch_resets_it(page: Page, double: Double) -> None:
    """The numbers fit, but the history is another one: the snapshot replaces what was gathered."""
    job = double.add_job()
    job.append("output", {"chunk": "kept"})
    job.append("output", {"chunk": "lost by the store"})
    await start_watch(page, double, job.id)
    await until_seen(page, 3)
    job.fork(keep=2)
    job.append("output", {"chunk": "never told live"})
    await double.tell(job, job.append("output", {"chunk": "its number fits"}))
    await page.wait_for_function("() => seen.includes('reset')")
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3, "reset", 5]


async def test_an_announced_reset_is_taken_and_followed(page: Page, double: Double) -> None:
    """`job:reset` tells a live watcher; stragglers of the old epoch are dropped."""
    job = double.add_job()
    job.append("output", {"chunk": "lost by the store"})
    straggler = job.log[-1] | {"seq": 4, "prev": 0}
    await start_watch(page, double, job.id)
    await until_seen(page, 2)
    job.fork(keep=1)
    job.append("output", {"chunk": "new history"})
    await double.tell_reset(job)
    await page.wait_for_function("() => seen.includes('reset')")
    await double.until_asked("subscribe", 2)
    await double.tell(job, straggler)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, "reset", 3]
    assert double.subscribes == ["0", "e2:2"]


async def test_a_hole_that_stays_ends_in_the_snapshot(page: Page, double: Double) -> None:
    """A server that cannot show an event however often it is asked is believed at its record instead."""
    job = double.add_job()
    job.append("output", {"chunk": "never to be seen"})
    job.append("output", {"chunk": "after the hole"})
    job.holes = {2}
    await start_watch(page, double, job.id)
    await page.wait_for_function("() => seen.includes('reset')")
    await _finish(double, job, page)
    assert await seen(page) == [1, "reset", 4]
    assert len(double.subscribes) < 10


async def test_a_watch_from_now_begins_with_the_record(page: Page, double: Double) -> None:
    """`after: "now"` tells no history."""
    job = double.add_job()
    job.append("output", {"chunk": "before"})
    await start_watch(page, double, job.id, after="now")
    await until_seen(page, 1)
    await double.until_asked("subscribe")
    await _finish(double, job, page)
    assert await seen(page) == ["reset", 3]


@pytest.mark.parametrize("after", ["now", "e1:2", "0"])
async def test_a_job_that_had_ended_completes_from_wherever_it_is_watched(
    page: Page, double: Double, after: str
) -> None:
    """Also from its very end, where the log has nothing more to say."""
    job = double.add_job()
    job.append("completed", {"result": 7, "duration_s": 1.0})
    await start_watch(page, double, job.id, after=after)
    told = await outcome(page)
    assert (told["status"], told["result"]) == ("completed", 7)


async def test_an_unknown_job_is_an_error_and_no_outcome(page: Page, double: Double) -> None:
    """The refusal is final and told once."""
    job = ScriptedJob()
    await start_watch(page, double, job.id)
    await page.wait_for_function("() => errors.length > 0")
    assert await page.evaluate("errors") == ["job_not_found"]
    assert await page.evaluate("outcomes.length") == 0


async def test_a_handler_that_throws_does_not_stop_the_stream(page: Page, double: Double) -> None:
    """The fault is reported as uncaught; every event still arrives."""
    job = double.add_job()
    await page.goto(f"{double.url}/blank")
    await page.evaluate(
        "window.addEventListener('error', (event) => { event.preventDefault(); window.caught = true; })"
    )
    await start_watch(page, double, job.id, navigate=False)
    await until_seen(page, 1)
    await page.evaluate("window.failOnce = true")
    await double.tell(job, job.append("output", {"chunk": "x"}))
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3]
    assert await page.evaluate("caught") is True


async def test_a_slow_reader_gets_every_event_of_a_long_log(page: Page, double: Double) -> None:
    """Iterating holds a bounded number of events; the rest is asked for when the reader gets there."""
    job = double.add_job()
    for step in range(3_500):
        job.append("output", {"chunk": str(step)})
    job.append("completed", {"result": None, "duration_s": 1.0})
    await page.goto(f"{double.url}/blank")
    numbers = await page.evaluate(
        """async (id) => {
          const { Tidings } = await import("/static/tidings.js");
          const numbers = [];
          for await (const event of new Tidings({ token: "t" }).watch(id)) {
            numbers.push(event.seq);
            if (numbers.length % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 20));
          }
          return numbers;
        }""",
        job.id,
    )
    assert numbers == list(range(1, 3_503))
    assert len(double.subscribes) > 2


_OVER_SOCKET_POLLING = """async () => {
  const { Tidings } = await import("/static/tidings.js");
  window.tidings = new Tidings({ token: "t", transports: ["polling"] });
}"""
