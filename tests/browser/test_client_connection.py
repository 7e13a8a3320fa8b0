"""The browser client's connection: from WebSocket down to long-poll and up again, moves, tokens, reloads."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.double import Double, ScriptedJob
from tests.browser.watching import outcome, seen, start_watch, until_seen, until_state

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def _finish(double: Double, job: ScriptedJob, page: Page) -> dict[str, Any]:
    await double.tell(job, job.append("completed", {"result": 1, "duration_s": 1.0}))
    return await outcome(page)


async def _output(double: Double, job: ScriptedJob, count: int = 1) -> None:
    for _ in range(count):
        await double.tell(job, job.append("output", {"chunk": "x"}))


async def test_a_dropped_connection_resumes_where_it_was_and_is_no_outcome(
    page: Page, double: Double
) -> None:
    """What happened meanwhile comes after reconnecting; `onComplete` waits for the job's end."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    await double.hang_up()
    job.append("output", {"chunk": "while nobody listened"})
    await double.until_asked("subscribe", 2)
    await until_seen(page, 2)
    assert await page.evaluate("outcomes.length") == 0
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3]
    assert double.subscribes[:2] == ["0", "e1:1"]


async def test_without_websockets_polling_finishes_the_job(page: Page, double: Double) -> None:
    """The state says `polling`, and each event still comes once."""
    double.websocket_refused = True
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_state(page, "polling")
    await _output(double, job, 3)
    await until_seen(page, 4)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3, 4, 5]
    assert double.subscribes == []


async def test_polling_gives_way_to_a_connection_that_can_be_had_again(page: Page, double: Double) -> None:
    """The switch upward happens at the current position, without loss or repeat."""
    double.websocket_refused = True
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_state(page, "polling")
    await _output(double, job, 3)
    await until_seen(page, 4)
    double.websocket_refused = False
    await until_state(page, "live")
    await double.until_asked("subscribe")
    await _output(double, job, 2)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3, 4, 5, 6, 7]
    assert double.subscribes == ["e1:4"]
    assert await page.evaluate("states") == ["polling", "live"]


async def test_a_forked_log_resets_a_poller_too(page: Page, double: Double) -> None:
    """The rules of order are the same on every transport."""
    double.websocket_refused = True
    job = double.add_job()
    await _output(double, job, 2)
    await start_watch(page, double, job.id)
    await until_seen(page, 3)
    job.fork(keep=2)
    await _output(double, job, 2)
    await page.wait_for_function("() => seen.includes('reset')")
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3, "reset", 5]


async def test_nothing_to_be_had_is_offline_and_ends_by_itself(page: Page, double: Double) -> None:
    """With neither WebSocket nor HTTP the state is `offline`; the stream goes on when the server is back."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_state(page, "live")
    await until_seen(page, 1)
    double.websocket_refused = double.http_cut = True
    await double.hang_up()
    await until_state(page, "offline")
    job.append("output", {"chunk": "unheard"})
    double.websocket_refused = double.http_cut = False
    await until_seen(page, 2)
    assert await page.evaluate("outcomes.length") == 0
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3]


async def test_the_state_is_known_even_when_nothing_is_watched(page: Page, double: Double) -> None:
    """Without a poll to tell, HTTP is tried when the connection fails."""
    double.websocket_refused = True
    await page.goto(f"{double.url}/blank")
    await page.evaluate(_WITH_TOKENS, ["t"])
    await page.evaluate("void tidings.connect()")
    await until_state(page, "polling")
    double.http_cut = True
    await page.evaluate("tidings.list().catch(() => null)")
    await until_state(page, "offline")


async def test_many_jobs_share_a_few_long_polls(page: Page, double: Double) -> None:
    """More jobs than slots are all followed, and the browser keeps connections free for other calls."""
    double.websocket_refused = True
    jobs = [double.add_job() for _ in range(8)]
    await start_watch(page, double, jobs[0].id)
    await page.evaluate(
        """(ids) => {
          window.ended = [];
          for (const id of ids) tidings.watch(id, { onComplete: () => ended.push(id) });
        }""",
        [job.id for job in jobs],
    )
    await until_state(page, "polling")
    assert (await page.evaluate("(id) => tidings.get(id)", jobs[0].id))["id"] == jobs[0].id
    # Each has been asked for once at once; what follows are the long ones.
    await double.until_asked("poll", len(jobs) + 4)
    for job in jobs:
        await double.tell(job, job.append("completed", {"result": 1, "duration_s": 1.0}))
    await page.wait_for_function("() => ended.length === 8")
    assert double.polls_at_once <= 3


async def test_a_draining_server_is_left_without_a_word(page: Page, double: Double) -> None:
    """`server:draining` moves the connection when the server says so; the state stays `live`."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_state(page, "live")
    await until_seen(page, 1)
    await double.say("server:draining", {"reconnect_in_ms": 50})
    await double.until_asked("subscribe", 2)
    await _output(double, job)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3]
    assert await page.evaluate("states") == ["live"]


@pytest.mark.parametrize("code", ["slow_consumer", "server_draining", "something_new"])
async def test_after_bye_the_client_comes_back_by_position(page: Page, double: Double, code: str) -> None:
    """Whatever the reason, what was missed is told after reconnecting."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await until_seen(page, 1)
    await double.say("bye", {"code": code})
    await double.hang_up()
    job.append("output", {"chunk": "missed"})
    await until_seen(page, 2)
    await _finish(double, job, page)
    assert await seen(page) == [1, 2, 3]


async def test_an_expiring_token_is_renewed_on_the_live_connection(page: Page, double: Double) -> None:
    """The token function is asked again and its token is shown with `authenticate`; nothing is interrupted."""
    job = double.add_job()
    await page.goto(f"{double.url}/blank")
    await page.evaluate(_WITH_TOKENS, ["first", "second"])
    await start_watch(page, double, job.id, navigate=False)
    await until_seen(page, 1)
    await double.say("token:expiring", {"expires_in_s": 30})
    await double.until_shown("second")
    await _finish(double, job, page)
    assert double.subscribes == ["0"]
    assert double.tokens_shown == ["first", "second"]


async def test_an_expired_token_is_replaced_before_connecting_again(page: Page, double: Double) -> None:
    """A refused connect asks the token function once more."""
    double.tokens_accepted = {"second"}
    job = double.add_job()
    await page.goto(f"{double.url}/blank")
    await page.evaluate(_WITH_TOKENS, ["first", "second"])
    await start_watch(page, double, job.id, navigate=False)
    await until_state(page, "live")
    await double.until_asked("subscribe")
    await _finish(double, job, page)
    assert double.tokens_shown == ["first", "second"]
    assert await page.evaluate("refusals") == []


async def test_a_refused_fixed_token_is_reported_and_not_tried_again(page: Page, double: Double) -> None:
    """Only `setToken` can help; then everything goes on."""
    double.tokens_accepted = {"good"}
    job = double.add_job()
    await start_watch(page, double, job.id, token="bad")
    await page.wait_for_function("() => refusals.length > 0")
    assert await page.evaluate("[refusals, tidings.state]") == [["token_expired"], "offline"]
    await page.evaluate("tidings.setToken('good')")
    await until_seen(page, 1)
    await _finish(double, job, page)
    assert double.tokens_shown == ["bad", "good"]


async def test_a_server_that_does_not_acknowledge_is_left(page: Page, double: Double) -> None:
    """After the time for an answer has passed, another connection is made."""
    double.muted = True
    job = double.add_job()
    await page.clock.install()
    await start_watch(page, double, job.id)
    await double.until_asked("subscribe")
    double.muted = False
    await page.clock.run_for(10_500)
    await page.clock.run_for(2_000)
    await double.until_asked("subscribe", 2)
    await page.clock.resume()
    await _finish(double, job, page)
    assert await seen(page) == [1, 2]
    assert len(double.tokens_shown) == 2


async def test_a_submission_whose_answer_was_lost_is_one_job(page: Page, double: Double) -> None:
    """It is repeated under the same Idempotency-Key."""
    double.answers_lost = 2
    await page.goto(f"{double.url}/blank")
    job = await page.evaluate(
        """async () => {
          const { Tidings } = await import("/static/tidings.js");
          return new Tidings({ token: "t" }).submit("demo.steps", { steps: 3 }, { tags: ["a"] });
        }"""
    )
    assert list(double.jobs) == [job["id"]]
    assert [body["input"] for _, body in double.submissions] == [{"steps": 3}] * 3
    keys = {key for key, _ in double.submissions}
    assert len(keys) == 1
    assert all(keys)


async def test_after_a_reload_a_remembered_job_goes_on_where_it_was_left(page: Page, double: Double) -> None:
    """Position and progress are in `localStorage`; nothing is told twice."""
    job = double.add_job()
    await start_watch(page, double, job.id)
    await page.evaluate("(job) => tidings.remember(job, '0')", job.snapshot())
    await double.tell(job, job.append("progress", {"percent": 40.0, "message": "nearly half"}))
    await until_seen(page, 2)
    await page.reload()
    job.append("output", {"chunk": "while away"})
    remembered = await page.evaluate(_RESUME)
    assert [(it["position"], it["progress"]["percent"], it["status"]) for it in remembered] == [
        ("e1:2", 40, "running")
    ]
    await until_seen(page, 1)
    await _finish(double, job, page)
    assert await seen(page) == [3, 4]
    await page.reload()
    assert [it["status"] for it in await page.evaluate(_RESUME)] == ["completed"]


async def test_the_token_goes_to_its_own_server_only(page: Page, double: Double) -> None:
    """A file address on another host is refused before anything is sent."""
    await page.goto(f"{double.url}/blank")
    told = await page.evaluate(
        """async () => {
          const { Tidings } = await import("/static/tidings.js");
          const file = { url: "https://elsewhere.example/api/files/1" };
          return new Tidings({ token: "t" }).download(file).catch((error) => error.message);
        }"""
    )
    assert "not an address of this server" in told


_WITH_TOKENS = """async (tokens) => {
  const { Tidings } = await import("/static/tidings.js");
  window.tidings = new Tidings({ token: async () => tokens.shift() });
}"""

_RESUME = """async () => {
  const { Tidings } = await import("/static/tidings.js");
  Object.assign(window, { seen: [], outcomes: [] });
  window.tidings = new Tidings({ token: "t" });
  const remembered = await tidings.remembered();
  await tidings.resume(() => ({
    onEvent: (event) => seen.push(event.seq),
    onReset: () => seen.push("reset"),
    onComplete: (outcome) => outcomes.push(outcome),
  }));
  return remembered;
}"""
