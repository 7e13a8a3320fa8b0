"""A watch: one job's events, each once and in order, over whichever transport works at the moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from .cursor import Batch, Cursor, Gap, Snapshot, WatchItem
from .policy import WatchPolicy
from .protocol.errors import ConnectionLost, ServerDraining, TidingsError
from .transport import ConnectionState, Transport, TransportFailed

__all__ = ["Watch"]

Rung = tuple[int, AsyncGenerator[Batch, None], Batch]


class Watch:
    """An asynchronous iterator over a job's events that ends with the job, and only then.

    Iterate it once; leave it early with `aclose()` or by ``async with``. While no transport works it waits and
    tries again, `connection` being ``offline``; after ``offline_timeout_s`` of that it raises `ConnectionLost`.

    Args:
        job_id: The job, well-formed.
        cursor: Where to begin; None to begin with a snapshot of the job as it is.
        transports: Best first, at least one.
        policy: When to change between them and when to give up.
        snapshot: Fetches the job; its error ends the watch.
        on_connection: Called with each change of `connection`, on the event loop; must not raise.
    """

    def __init__(
        self,
        job_id: str,
        cursor: Cursor | None,
        transports: Sequence[Transport],
        policy: WatchPolicy,
        snapshot: Callable[[], Awaitable[Snapshot]],
        on_connection: Callable[[ConnectionState], None] | None = None,
    ) -> None:
        self.job_id = job_id
        self._cursor = cursor or Cursor("0")
        self._begins_now = cursor is None
        self._transports = transports
        self._policy = policy
        self._snapshot = snapshot
        self._on_connection = on_connection
        self._state = ConnectionState.OFFLINE
        self._level = 0
        self._failures = 0
        self._attempts = 0
        self._attached_at: float | None = None
        self._last_failed_at = self._cursor.position
        self._offline_since = 0.0
        self._items = self._run()

    @property
    def connection(self) -> ConnectionState:
        """How the watch is connected now."""
        return self._state

    @property
    def transport(self) -> str:
        """The name of the transport in use or being tried: ``socket.io``, ``sse`` or ``long-poll``."""
        return self._transports[self._level].name

    @property
    def position(self) -> str:
        """Behind the last item that was yielded; a later watch can go on from here."""
        return self._cursor.position

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchItem:
        return await anext(self._items)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop watching and release the connection. Safe to repeat.

        Raises:
            RuntimeError: another task is waiting for the next item; cancel that one instead.
        """
        await self._items.aclose()
        self._state = ConnectionState.OFFLINE

    async def _run(self) -> AsyncGenerator[WatchItem, None]:
        self._offline_since = _now()
        if self._begins_now or self._cursor.position != "0":
            # A log that ended at this very position sends nothing more, on any transport.
            now = await self._look()
            ended = now.job.status.is_terminal
            if self._begins_now:
                self._cursor = Cursor(now.position)
                yield now
            if ended and now.position == self._cursor.position:
                return
        asked_again_from = None
        while True:
            try:
                async with aclosing(self._attend()) as batches:
                    async for batch in batches:
                        for item in self._cursor.take(batch):
                            yield item
                        if self._cursor.finished:
                            return
            except Gap:
                if asked_again_from == self._cursor.position:
                    await self._recover(
                        TransportFailed("the server left out events and did not make up for it")
                    )
                asked_again_from = self._cursor.position
            except TidingsError as error:
                if not error.temporary:
                    raise
                await self._recover(error)

    async def _attend(self) -> AsyncGenerator[Batch, None]:
        """Yield what the present transport brings, and change to a better one as soon as that answers."""
        stream = self._transports[self._level].follow(self.job_id, self._cursor.position)
        climbing: asyncio.Task[Rung] | None = None
        waiting: asyncio.Task[Batch] | None = None
        try:
            while True:
                if self._level == 0:
                    batch = await anext(stream)
                else:
                    climbing = climbing or asyncio.create_task(self._climb(), name="tidings-climb")
                    waiting = asyncio.create_task(_next(stream), name="tidings-next")
                    await asyncio.wait({climbing, waiting}, return_when=asyncio.FIRST_COMPLETED)
                    if climbing.done():
                        # Both run from the same position; what came on the lower one comes again on this.
                        await _cancel(waiting)
                        await stream.aclose()
                        self._level, stream, batch = climbing.result()
                        climbing = None
                    else:
                        batch = waiting.result()
                self._attached()
                yield batch
        finally:
            if waiting is not None:
                await _cancel(waiting)
            if climbing is not None and await _cancel(climbing):
                await climbing.result()[1].aclose()
            await stream.aclose()

    async def _climb(self) -> Rung:
        """Return the best of the better transports that works, once there is one, with its first batch."""
        while True:
            await asyncio.sleep(self._policy.probe_every_s * random.uniform(0.75, 1.25))
            for level in range(self._level):
                stream = self._transports[level].follow(self.job_id, self._cursor.position)
                try:
                    async with asyncio.timeout(self._policy.silence_timeout_s):
                        return level, stream, await anext(stream)
                except (TidingsError, TimeoutError):
                    await stream.aclose()
                except BaseException:
                    await stream.aclose()
                    raise

    def _attached(self) -> None:
        if self._attached_at is None:
            self._attached_at = _now()
        self._set_state(self._transports[self._level].state)

    async def _look(self) -> Snapshot:
        while True:
            try:
                return await self._snapshot()
            except TidingsError as error:
                if not error.temporary:
                    raise
                await self._recover(
                    TransportFailed(error.detail, reached=False, retry_after_s=error.retry_after_s)
                )

    async def _recover(self, error: TidingsError) -> None:
        """Note a failure; then descend, or wait for the next attempt, or raise when there was enough of it."""
        now, policy = _now(), self._policy
        counts = not isinstance(error, ServerDraining) and not (
            isinstance(error, TransportFailed) and not error.reached
        )
        stable = self._attached_at is not None and now - self._attached_at >= policy.stable_after_s
        if stable:
            self._failures, counts = 0, False
        if stable or self._cursor.position != self._last_failed_at:
            # A connection that neither lasted nor brought anything was none.
            self._offline_since, self._attempts = now, 0
        self._attached_at, self._last_failed_at = None, self._cursor.position
        self._set_state(ConnectionState.OFFLINE)
        left_s = self._offline_since + policy.offline_timeout_s - now
        if left_s <= 0:
            raise ConnectionLost(
                f"gave up after {policy.offline_timeout_s:g} s offline: {error.detail}"
            ) from error
        self._attempts += 1
        self._failures += counts
        if self._failures >= policy.failures_before_descent:
            self._failures = 0
            self._level = (self._level + 1) % len(self._transports)
            if self._level:
                self._attempts = 0
                return
        await asyncio.sleep(min(self._delay_s(error), left_s))

    def _delay_s(self, error: TidingsError) -> float:
        # A draining server has already said when to come back, and the socket paces its own attempts.
        if isinstance(error, ServerDraining) and self._attempts == 1:
            return 0.0
        if isinstance(error, TransportFailed) and error.paced:
            return 0.0
        return max(error.retry_after_s or 0.0, self._policy.backoff.delay_s(self._attempts))

    def _set_state(self, state: ConnectionState) -> None:
        if state is not self._state:
            self._state = state
            if self._on_connection is not None:
                self._on_connection(state)


async def _next(stream: AsyncGenerator[Batch, None]) -> Batch:
    return await anext(stream)


async def _cancel(task: asyncio.Task[Any]) -> bool:
    """Cancel a task, wait for its end, and tell whether it has a result nevertheless."""
    task.cancel()
    await asyncio.wait({task})
    return not task.cancelled() and task.exception() is None


def _now() -> float:
    return asyncio.get_running_loop().time()
