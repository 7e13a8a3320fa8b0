"""Following a job by long-polls: the lowest rung, which works wherever a plain GET does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

from ..http import CONNECT_TIMEOUT_S, Http
from ..policy import WatchPolicy
from ..protocol.models import EventPage
from . import Batch, ConnectionState, http_as_transport, read_page

__all__ = ["LongPoll"]

_PAGE_EVENTS = 500
_GRACE_S = 10.0
_SHORTEST_WAIT_S = 1.0


class LongPoll:
    """Asks `GET /api/jobs/{id}/events?after=&wait=` over and over."""

    name = "long-poll"
    state = ConnectionState.POLLING

    def __init__(self, http: Http, policy: WatchPolicy) -> None:
        self._http = http
        self._policy = policy

    async def follow(self, job_id: str, after: str) -> AsyncGenerator[Batch, None]:
        """Yield a page after the other; see `Transport.follow`."""
        loop = asyncio.get_running_loop()
        # The first answer comes at once, so that the reader knows that it is connected.
        wait_s = 0.0
        while True:
            asked_at = loop.time()
            page = await self._page(job_id, after, wait_s)
            yield Batch(
                page.events, page.position, answer=True, reset=page.reset, job=page.job, done=page.done
            )
            if not page.events and wait_s:
                # A server that is about to go, or a cache in between, may answer nothing without having waited.
                await asyncio.sleep(max(0.0, min(_SHORTEST_WAIT_S, wait_s) - (loop.time() - asked_at)))
            after, wait_s = page.position, self._policy.poll_wait_s

    async def _page(self, job_id: str, after: str, wait_s: float) -> EventPage:
        timeout = aiohttp.ClientTimeout(total=wait_s + _GRACE_S, sock_connect=CONNECT_TIMEOUT_S)
        params = {"after": after, "wait": f"{wait_s:g}", "limit": str(_PAGE_EVENTS)}
        with http_as_transport():
            async with self._http.exchange(
                "GET",
                f"api/jobs/{job_id}/events",
                params=params,
                headers={"Accept": "application/json"},
                timeout=timeout,
            ) as response:
                body = await response.read()
        return read_page(body)
