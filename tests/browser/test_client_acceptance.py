"""The browser client against a real stack whose parts are killed: what it saw is compared with the log itself."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from playwright.async_api import Page

from tests.support.stack import LiveStack

pytestmark = [pytest.mark.browser, pytest.mark.acceptance, pytest.mark.asyncio(loop_scope="session")]

Event = dict[str, Any]
PATIENCE_MS = 60_000


async def _follow(page: Page, stack: LiveStack, *, transports: list[str] | None = None) -> str:
    """Submit a job of about three seconds and watch it in the page; return its id."""
    await page.goto(f"{stack.url}/api/docs")
    job_id: str = await page.evaluate(_FOLLOW, [stack.token("browser"), transports])
    await page.wait_for_function("() => events.length > 10", timeout=PATIENCE_MS)
    return job_id


async def _check_against_the_log(page: Page, job_id: str) -> list[str]:
    """Wait for the outcome, and compare what was told with the log; return the connection states that were seen."""
    await page.wait_for_function("() => outcomes.length > 0", timeout=PATIENCE_MS)
    told, outcomes, resets, states = await page.evaluate("[events, outcomes, resets, states]")
    assert [outcome["status"] for outcome in outcomes] == ["completed"]
    at = 0
    for event in told:
        begin = event.get("prev", event["seq"] - 1)
        assert begin <= at < event["seq"], f"event {event['seq']} was told at {at}"
        at = event["seq"]
    log: list[Event] = await page.evaluate(_READ_LOG, job_id)
    assert at == log[-1]["seq"]
    if not resets:
        assert _lossless(told) == _lossless(log)
    return list(states)


def _lossless(events: list[Event]) -> list[Event]:
    return [{**event, "prev": None} for event in events if event["kind"] != "progress"]


@pytest.mark.parametrize("transports", [None, ["polling", "websocket"], ["polling"]], ids=str)
async def test_every_transport_tells_the_same(
    page: Page, live_stack: LiveStack, transports: list[str] | None
) -> None:
    """WebSocket alone, polling that upgrades as Socket.IO does by default, and polling alone."""
    job_id = await _follow(page, live_stack, transports=transports)
    assert await _check_against_the_log(page, job_id) == ["live"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_server_may_end_in_the_middle(
    page: Page, live_stack: LiveStack, number: signal.Signals
) -> None:
    """The client comes back by position, whether it was told or not."""
    job_id = await _follow(page, live_stack)
    await asyncio.to_thread(live_stack.restart_server, number)
    states = await _check_against_the_log(page, job_id)
    assert states[0] == states[-1] == "live"


async def test_the_worker_may_die_in_the_middle(page: Page, live_stack: LiveStack) -> None:
    """The next attempt is followed in the same watch."""
    job_id = await _follow(page, live_stack)
    await asyncio.to_thread(live_stack.kill_worker)
    await _check_against_the_log(page, job_id)
    kinds = [event["kind"] for event in await page.evaluate("events")]
    assert kinds.count("started") == 2
    assert "retrying" in kinds


async def test_the_network_may_go_away(page: Page, live_stack: LiveStack) -> None:
    """The browser goes offline and comes back."""
    job_id = await _follow(page, live_stack)
    await page.context.set_offline(True)
    await page.evaluate("tidings.close(); tidings.connect()")
    await page.wait_for_function("() => tidings.state === 'offline'")
    await page.context.set_offline(False)
    await page.evaluate("watchAgain()")
    await _check_against_the_log(page, job_id)


_FOLLOW = """async ([token, transports]) => {
  const { Tidings } = await import("/static/tidings.js");
  Object.assign(window, { events: [], outcomes: [], resets: [], states: [] });
  window.tidings = new Tidings({ token, ...(transports && { transports }) });
  tidings.addEventListener("state", (event) => states.push(event.detail));
  tidings.connect();
  const job = await tidings.submit("demo.steps", { steps: 60, delay_ms: 50, output_every: 7 });
  let watch;
  window.watchAgain = () => {
    watch = tidings.watch(job.id, {
      after: watch?.position,
      onEvent: (event) => events.push(event),
      onReset: (job) => resets.push(job.position),
      onComplete: (outcome) => outcomes.push(outcome),
    });
  };
  watchAgain();
  return job.id;
}"""

_READ_LOG = """async (id) => {
  const log = [];
  const { Tidings } = await import("/static/tidings.js");
  for await (const event of tidings.watch(id)) log.push(event);
  return log;
}"""
