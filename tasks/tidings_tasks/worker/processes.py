"""The process pool: child processes for plain functions that use much CPU or cannot be interrupted.

Children are started as they are needed, each a fresh interpreter (a fork of a process with threads may hang), and
kept warm. They end with the worker, however it ends. A child that dies fails the job that it ran, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from ..attempt import Attempt, StopReason
from ..child_process import signal_group, start_child
from ..queue.policy import Verdict
from ..settings import Settings
from ..store import Verb
from ..usage import Usage
from ..waiting import Waiter
from .frames import Frame, FrameReader, pack

__all__ = ["PoolOptions", "PooledJob", "Processes"]

_log = logging.getLogger(__name__)

_START_S = 60.0
_EXIT_S = 2.0
_LAST_WORDS_S = 0.2
_MIB = 1_048_576


class PooledJob(Protocol):
    """What the pool runs; it is called back on the loop."""

    attempt: Attempt
    module: str

    def begin(self, child: ChildLink) -> None:
        """A process has been handed the job."""

    def returned(self, verdict: Verdict, usage: Usage) -> None:
        """The function has ended."""

    def died(self, reason: str) -> None:
        """The process is gone, and with it the function."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many children there may be, when one is replaced, and what each is told (``frames.py``, init)."""

    size: int
    max_jobs: int
    max_rss_mib: int | None
    init: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings, store_url: str) -> PoolOptions:
        """Take from the settings what concerns the pool."""
        init = {
            "jobs": settings.jobs,
            "path": sys.path,
            "store_url": store_url,
            "key_prefix": settings.key_prefix,
            "shards": settings.shards,
            "queues": {name: policy.model_dump(mode="json") for name, policy in settings.queues.items()},
            "files": str((settings.data_dir / "files").absolute()),
            "max_file_bytes": settings.max_file_bytes,
            "max_event_bytes": settings.max_event_bytes,
            "max_result_bytes": settings.max_result_bytes,
            "log_level": settings.log_level,
            "log_format": settings.log_format,
            "secrets": settings.secrets,
        }
        size = settings.worker_processes or max(2, os.cpu_count() or 1)
        return cls(size, settings.worker_process_jobs, settings.worker_process_rss_mib, init)


class Processes:
    """At most ``size`` children. Used on one loop; close it with ``aclose``, which kills what still runs."""

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._waiting: deque[PooledJob] = deque()
        self._children: set[ChildLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_shutting_down = False
        self._is_closed = False
        self.died = 0
        """How many children died by themselves."""

    @property
    def pids(self) -> list[int]:
        """The children that live."""
        return [child.pid for child in self._children if child.pid]

    def submit(self, job: PooledJob) -> None:
        """Run a job as soon as a child is free."""
        self._waiting.append(job)
        self._assign()

    def withdraw(self, job: PooledJob) -> None:
        """Forget a job that has not begun."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)

    def tell_shutting_down(self) -> None:
        """Let ``ctx.shutting_down`` tell it."""
        self._is_shutting_down = True
        for child in self._children:
            child.send("shutting_down")

    async def aclose(self) -> None:
        """End all children, and wait until they have."""
        self._is_closed = True
        for child in self._children:
            child.kill()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _assign(self) -> None:
        if self._is_closed:
            return
        for child in self._children:
            if not self._waiting:
                return
            if child.is_free:
                child.run(self._waiting.popleft(), is_shutting_down=self._is_shutting_down)
        starting = sum(child.is_starting for child in self._children)
        while starting < len(self._waiting) and len(self._children) < self._options.size:
            starting += 1
            self._start()

    def _start(self) -> None:
        child = ChildLink(self._options, on_free=self._assign)
        self._children.add(child)
        task = asyncio.create_task(self._look_after(child), name="worker: job process")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_after(self, child: ChildLink) -> None:
        try:
            fault = await child.live()
        except Exception as error:  # whatever it was: the job must end, and the others have their turn
            _log.exception("a process for jobs cannot be looked after")
            child.kill_process()
            fault = f"its process cannot be looked after: {type(error).__name__}: {error}"
        self._children.discard(child)
        if fault is None:
            self._assign()
            return
        self.died += 1
        job = child.job
        if job is None and not child.was_ready and self._waiting:
            # It would fare no better with the next one: so each job has one try, and the store decides about more.
            job = self._waiting.popleft()
        _log.warning("a process for jobs died: %s", fault)
        if job is not None:
            job.died(fault)
        self._assign()


class ChildLink(asyncio.Protocol):
    """One child process and the socket to it."""

    def __init__(self, options: PoolOptions, on_free: Any) -> None:
        self.job: PooledJob | None = None
        self.pid = 0
        self.was_ready = False
        self._options = options
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = FrameReader()
        self._fault: str | None = None
        self._jobs = 0
        self._writes = 0
        self._is_waiting_for_room = False
        self._is_retired = False
        self._is_killed = False

    @property
    def is_starting(self) -> bool:
        """Whether it will be free, and is not yet."""
        return not self.was_ready and not self._is_retired

    @property
    def is_free(self) -> bool:
        """Whether it can be handed a job."""
        return self.was_ready and self.job is None and not self._is_retired

    async def live(self) -> str | None:
        """Start the process and return when it has ended: None when that was wanted, else what happened to it."""
        ours, theirs = socket.socketpair()
        try:
            self._process = _start_process(theirs)
        except OSError as error:
            ours.close()
            return f"it does not start: {error}"
        finally:
            theirs.close()
        process = self._process
        self.pid = process.pid
        exit_fd = self._watch_exit(process.pid)
        try:
            await self._loop.create_unix_connection(lambda: self, sock=ours)
            self.send("init", self._options.init)
            late = self._loop.call_later(_START_S, self._give_up_starting)
            await self._gone.wait()
            late.cancel()
        finally:
            if exit_fd is not None:
                self._loop.remove_reader(exit_fd)
                os.close(exit_fd)
            # One that has ended keeps its status; of one that closed its socket and lives on nothing is wanted.
            signal_group(process.pid, signal.SIGKILL)
            status = await asyncio.to_thread(process.wait)
            self.pid = 0
        if self._is_killed or (self._is_retired and self.job is None and self._fault is None):
            return None
        return self._fault or _describe_end(status)

    def run(self, job: PooledJob, *, is_shutting_down: bool) -> None:
        """Hand a job over; the child must be free."""
        attempt = job.attempt
        self.job = job
        self._jobs += 1
        self._writes = 0
        self._is_waiting_for_room = False
        self.send(
            "run", attempt.job_id, attempt.number, attempt.queue, attempt.tries, job.module, is_shutting_down,
            body=attempt.spec.to_json(),
        )  # fmt: skip
        job.begin(self)

    def stop(self, reason: StopReason, *, is_urgent: bool) -> None:
        """Tell the function to stop at its next context call, or (urgent) wherever it is."""
        self._is_retired = self._is_retired or is_urgent
        self.send("stop", reason.value, is_urgent)

    def kill(self) -> None:
        """End the process now. Its job is not told: whoever kills knows."""
        self._is_retired = self._is_killed = True
        self.job = None
        self.kill_process()
        if self._transport is not None:
            self._transport.abort()

    def kill_process(self) -> None:
        """Send SIGKILL to the process and to what it has started."""
        if self._process is not None and self._process.returncode is None:
            signal_group(self._process.pid, signal.SIGKILL)

    def send(self, what: str, *args: Any, body: bytes = b"") -> None:
        """Send a frame, unless the child is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(what, *args, body=body))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._is_killed:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take frames in; called by the loop."""
        for frame in self._reader.feed(data):
            self._hear(frame)
        if self.job is not None:
            self._acknowledge(self.job)

    def connection_lost(self, exc: Exception | None) -> None:
        """The child is gone; called by the loop."""
        self._gone.set()

    def _hear(self, frame: Frame) -> None:
        if frame.what == "ready":
            self.was_ready = True
            self._on_free()
        elif frame.what == "broken":
            self._fault = f"it cannot load the job modules: {frame.body.decode('utf-8', 'replace')}"
        elif self.job is not None:
            self._hear_job(self.job, frame)

    def _hear_job(self, job: PooledJob, frame: Frame) -> None:
        attempt = job.attempt
        if frame.what == "write":
            self._writes += 1
            attempt.outbox.put(attempt, Verb(frame.args[0]), frame.body)
        elif frame.what == "join":
            self._writes += 1
            attempt.outbox.join(attempt, frame.args[0], frame.body.decode())
        elif frame.what == "flush":
            self._flush(job, frame.args[0])
        elif frame.what == "end":
            self._end(job, frame.args[0], frame.body)

    def _end(self, job: PooledJob, outcome: dict[str, Any], data: bytes) -> None:
        self.job = None
        limit_mib = self._options.max_rss_mib
        if self._jobs >= self._options.max_jobs or (limit_mib and outcome["rss_bytes"] > limit_mib * _MIB):
            self._is_retired = True
        if self._is_retired:
            self.send("exit")
            self._loop.call_later(_EXIT_S, self._kill_lingering)
        usage = Usage(outcome["cpu_s"], outcome["memory_peak_bytes"])
        job.returned(Verdict(Verb(outcome["verb"]), data, outcome["extra"]), usage)
        self._on_free()

    def _acknowledge(self, job: PooledJob) -> None:
        """Let the child write on, as soon as the worker's own outbox has room."""
        if self._is_waiting_for_room or not self._writes or self.job is not job:
            return
        waiter = job.attempt.outbox.room(job.attempt)
        if waiter is None:
            self.send("ack", self._writes)
            return
        self._is_waiting_for_room = True

        def look_again() -> None:
            if self.job is job:
                self._is_waiting_for_room = False
                self._acknowledge(job)

        self._when_done(waiter, look_again)

    def _flush(self, job: PooledJob, number: int) -> None:
        waiter = job.attempt.outbox.stored(job.attempt)
        if waiter is None:
            self.send("flushed", number)
            return
        self._when_done(waiter, lambda: self.send("flushed", number) if self.job is job else None)

    def _when_done(self, waiter: Waiter, call: Any) -> None:
        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker ended without it
                self._loop.call_soon_threadsafe(call)

        waiter.on_done(tell)

    def _kill_lingering(self) -> None:
        # What the function left behind, such as a thread, may keep its process from ending.
        if not self._gone.is_set():
            self.kill()

    def _give_up_starting(self) -> None:
        if not self.was_ready:
            self._fault = f"it was not ready within {_START_S:g} s"
            self.kill_process()

    def _watch_exit(self, pid: int) -> int | None:
        """Notice the process's end also when something that it forked keeps its socket open (Linux 5.3, pidfd_open(2))."""
        try:
            exit_fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            return None

        def note() -> None:
            self._loop.remove_reader(exit_fd)
            # What it has sent before is read first.
            self._loop.call_later(_LAST_WORDS_S, self._close)

        self._loop.add_reader(exit_fd, note)
        return exit_fd

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _start_process(link: socket.socket) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "tidings_tasks.worker.child", str(link.fileno())]
    if threading.current_thread() is threading.main_thread():
        return start_child(argv, pass_fds=(link.fileno(),))
    # Off the main thread the kernel cannot tie it to this process; it still ends when its socket is closed.
    return subprocess.Popen(  # noqa: S603  # the words are our own
        argv, stdin=subprocess.DEVNULL, pass_fds=(link.fileno(),), process_group=0
    )


def _describe_end(status: int) -> str:
    if status >= 0:
        return f"the job's process ended by itself, with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    hint = "; the system may have run out of memory" if -status == signal.SIGKILL else ""
    return f"the job's process was ended by signal {-status} ({name}){hint}"
