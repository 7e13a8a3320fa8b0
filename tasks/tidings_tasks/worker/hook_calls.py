"""Calls the hooks of job authors beside the jobs: in order for each job, bounded in time and number."""

from __future__ import annotations

import asyncio
import inspect
import logging
import zlib
from collections.abc import Callable
from typing import Any

import orjson

from ..attempt import Attempt
from ..hooks import HOOKS, Hook, HookEvent, Hooks, JobInfo
from ..queue.policy import Verdict
from ..store import Verb, WriteCode
from .threads import Threads

__all__ = ["HookCalls"]

_log = logging.getLogger(__name__)

_LANES = 8
_MOST_WAITING = 1_000
_THREADS = 4

_EVENTS = {
    Verb.COMPLETE: HookEvent.COMPLETED,
    Verb.FAIL: HookEvent.FAILED,
    Verb.RETRY: HookEvent.RETRYING,
    Verb.CANCEL: HookEvent.CANCELLED,
}


class HookCalls:
    """Used on one loop; close it with ``aclose``.

    Calls wait in eight lanes, a job's always in the same one, so they keep their order and one slow hook does not hold
    up all. At most 1,000 wait; what is more is dropped and counted.

    Args:
        count: told each call's event and outcome: ok, failed, timed_out, dropped.
    """

    def __init__(self, timeout_s: float, count: Callable[[str, str], None], hooks: Hooks = HOOKS) -> None:
        self._timeout_s, self._count, self._hooks = timeout_s, count, hooks
        self._lanes: list[asyncio.Queue[tuple[HookEvent, Hook, JobInfo]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._strays: set[asyncio.Task[Any]] = set()
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_exhausted = False
        self._threads = Threads(_THREADS, self._on_exhausted)

    def tell_started(self, attempt: Attempt) -> None:
        """An attempt is about to begin."""
        self._dispatch(HookEvent.STARTED, attempt, None)

    def tell_ended(self, attempt: Attempt, verdict: Verdict, code: WriteCode) -> None:
        """An attempt's last write is stored."""
        event = _EVENTS.get(verdict.verb)
        if code is WriteCode.CANCEL_REQUESTED and verdict.verb in (Verb.RETRY, Verb.RELEASE):
            event = HookEvent.CANCELLED  # the store cancels what would have been tried again
        if event is not None:
            self._dispatch(event, attempt, verdict)

    async def aclose(self, timeout_s: float) -> None:
        """Wait for the calls that are due, for at most so long, and end."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("%d calls of hooks are given up: the worker ends", self._waiting)
        for task in (*self._tasks, *self._strays):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._strays:
            await asyncio.wait(self._strays, timeout=timeout_s)
        self._threads.close()

    def _dispatch(self, event: HookEvent, attempt: Attempt, verdict: Verdict | None) -> None:
        found = self._hooks.find(event, attempt.spec.type)
        if not found:
            return
        if not self._lanes:
            self._open()
        info = _describe(event, attempt, verdict)
        lane = self._lanes[zlib.crc32(attempt.job_id.encode()) % _LANES]
        for hook in found:
            if self._waiting >= _MOST_WAITING:
                self._count(event.value, "dropped")
                continue
            self._waiting += 1
            self._idle.clear()
            lane.put_nowait((event, hook, info))

    def _open(self) -> None:
        for number in range(_LANES):
            lane: asyncio.Queue[tuple[HookEvent, Hook, JobInfo]] = asyncio.Queue()
            self._lanes.append(lane)
            self._tasks.append(asyncio.create_task(self._work(lane), name=f"worker: hooks {number}"))

    async def _work(self, lane: asyncio.Queue[tuple[HookEvent, Hook, JobInfo]]) -> None:
        while True:
            event, hook, info = await lane.get()
            outcome = await self._call(event, hook, info)
            self._count(event.value, outcome)
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    async def _call(self, event: HookEvent, hook: Hook, info: JobInfo) -> str:
        try:
            if inspect.iscoroutinefunction(hook.fn):
                done = await self._call_async(hook, info)
            elif self._is_exhausted:
                return "dropped"
            else:
                done = await self._call_sync(hook, info)
        except Exception:  # it is the author's code
            _log.exception("hook %s failed at %s of job %s", hook.name, event.value, info.id)
            return "failed"
        if not done:
            _log.error(
                "hook %s did not end within %g s, at %s of job %s",
                hook.name, self._timeout_s, event.value, info.id,
            )  # fmt: skip
        return "ok" if done else "timed_out"

    async def _call_async(self, hook: Hook, info: JobInfo) -> bool:
        # A task of its own: one that swallows its cancellation holds up nobody.
        task = asyncio.create_task(hook.fn(info), name=f"hook {hook.name}")
        self._strays.add(task)
        task.add_done_callback(self._strays.discard)
        await asyncio.wait({task}, timeout=self._timeout_s)
        if not task.done():
            task.cancel()
            return False
        if task.cancelled():
            return False
        task.result()
        return True

    async def _call_sync(self, hook: Hook, info: JobInfo) -> bool:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()

        def tell(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                hook.fn(info)
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(tell, error)
            except RuntimeError:
                return  # the loop is closed: the worker ended without this thread

        ticket = self._threads.submit(run)
        try:
            await asyncio.wait({ended}, timeout=self._timeout_s)
        finally:
            if ended.done():
                self._threads.finish()
            else:
                self._threads.give_up(ticket)
        if not ended.done():
            return False
        error = ended.result()
        if isinstance(error, Exception):
            raise error
        return error is None

    def _on_exhausted(self) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            _log.error("%d sync hooks hang: no more are called until the worker is started again", _THREADS)


def _describe(event: HookEvent, attempt: Attempt, verdict: Verdict | None) -> JobInfo:
    spec = attempt.spec
    failed = event in (HookEvent.FAILED, HookEvent.RETRYING)
    error = orjson.loads(verdict.data) if verdict is not None and failed else None
    delay_s = None
    if verdict is not None and event is HookEvent.RETRYING:
        delay_s = orjson.loads(verdict.extra)["delay_ms"] / 1000
    return JobInfo(
        id=attempt.job_id,
        type=spec.type,
        queue=attempt.queue,
        owner=spec.owner,
        org=spec.org,
        attempt=attempt.number,
        tries=attempt.tries + (1 if failed else 0),
        tags=spec.tags,
        metadata=dict(spec.metadata or {}),
        duration_s=None if verdict is None else round(attempt.age_s, 3),
        error=error,
        delay_s=delay_s,
        usage=attempt.usage,
    )
