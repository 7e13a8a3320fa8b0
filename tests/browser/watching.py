"""Drives the browser client from a test: one watch whose handlers write down what they are told."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page

from tests.browser.double import Double

__all__ = ["outcome", "seen", "start_watch", "until_seen", "until_state"]

_START = """
async ([jobId, after, token]) => {
  const { Tidings } = await import("/static/tidings.js");
  Object.assign(window, { seen: [], outputs: [], outcomes: [], errors: [], states: [], refusals: [] });
  window.tidings ??= new Tidings({ token });
  tidings.addEventListener("state", (event) => states.push(event.detail));
  tidings.addEventListener("error", (event) => refusals.push(event.detail.code));
  window.watch = tidings.watch(jobId, {
    after,
    onEvent: (event) => {
      seen.push(event.seq);
      if (window.failOnce) { window.failOnce = false; throw new Error("a handler's fault"); }
    },
    onOutput: (chunk) => outputs.push(chunk),
    onReset: () => seen.push("reset"),
    onComplete: (outcome) => outcomes.push(outcome),
    onError: (error) => errors.push(error.code),
  });
}
"""


async def start_watch(
    page: Page, double: Double, job_id: str, *, after: str = "0", token: str = "t", navigate: bool = True
) -> None:
    """Open a blank page of the double and watch a job in it, with `window.tidings` when it is there already."""
    if navigate:
        await page.goto(f"{double.url}/blank")
    await page.evaluate(_START, [job_id, after, token])


async def seen(page: Page) -> list[Any]:
    """The numbers of the events in the order they were told, "reset" where one was."""
    found: list[Any] = await page.evaluate("seen")
    return found


async def until_seen(page: Page, count: int) -> None:
    """Wait until so many events and resets were told."""
    await page.wait_for_function("(count) => seen.length >= count", arg=count)


async def outcome(page: Page) -> dict[str, Any]:
    """Wait for the outcome; it must have been told once."""
    await page.wait_for_function("() => outcomes.length > 0")
    outcomes = await page.evaluate("outcomes")
    assert len(outcomes) == 1
    return dict(outcomes[0])


async def until_state(page: Page, state: str) -> None:
    """Wait until the connection state is this one."""
    await page.wait_for_function("(state) => tidings.state === state", arg=state)
