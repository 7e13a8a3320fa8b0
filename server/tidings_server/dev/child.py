"""One part of the stack: a child process that is started again when it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tidings_tasks.child_process import signal_group, start_child

from .pipe import Pipe
from .terminal import Terminal

__all__ = ["Child", "ChildFailed"]

EXIT_USAGE = 2
_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 5.0
_STEADY_AFTER_S = 10.0
_FIRST_ASK_S = 1.0
_LAST_ASK_S = 10.0
_START_TRIES = 3
_LAST_WORDS_S = 1.0


class ChildFailed(Exception):
    """A part of the stack does not come up; ``status`` is its exit status."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"the {name} does not start (exit status {status})")
        self.status = status


class Child:
    """A supervised process: ``run`` starts it, and starts it again when it ends, until ``stop``.

    After a first crash it is started at once, then after 0.1 s, doubling up to 5 s; a run of 10 s begins anew. Before it
    was ever ready, the third crash is final, and so is status 2, which says that the settings are wrong. Later, one that
    ends before it is ready waits while ``can_start`` says that it would only end again.

    Args:
        argv: the command. Without ``wait_ready`` it must take ``--ready-fd N``, and write a newline there when ready.
        grace_s: how long it may take to end after SIGTERM, seconds; then SIGKILL.
        wait_ready: returns when a process that was just started is ready.
        on_ready: called each time that it has become ready.
        can_start: tells whether another start can succeed.
        is_recycled: whether it may end by itself with status 0, to be started again without a word.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        terminal: Terminal,
        *,
        grace_s: float,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        wait_ready: Callable[[], Awaitable[None]] | None = None,
        on_ready: Callable[[], Awaitable[None]] | None = None,
        can_start: Callable[[], Awaitable[bool]] | None = None,
        is_recycled: bool = False,
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        """Set when it was ready for the first time."""
        self._argv = list(argv)
        self._terminal = terminal
        self._grace_s = grace_s
        self._env = env
        self._pass_fds = tuple(pass_fds)
        self._wait_ready = wait_ready
        self._on_ready = on_ready
        self._can_start = can_start
        self._is_recycled = is_recycled
        self._is_ready = False
        self._stopping = False
        self._end = asyncio.Event()
        self._again = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether the process that runs has become ready, and was not asked to end."""
        return self._is_ready and not self._end.is_set()

    async def run(self) -> None:
        """Keep the process running until ``stop``. Cancelled, it kills the process.

        Raises:
            ChildFailed: it ended with status 2, or three times, before it was ever ready.
        """
        crashes = 0
        while not self._stopping:
            started_at = time.monotonic()
            status = await self._run_once()
            was_ready, self._is_ready = self._is_ready, False
            if self._again.is_set():
                self._again.clear()
                crashes = 0
                continue
            if status == 0 and was_ready and self._is_recycled and not self._stopping:
                crashes = 0
                continue
            crashes = 1 if time.monotonic() - started_at > _STEADY_AFTER_S else crashes + 1
            self._terminal.say("dev", f"the {self.name} ended with status {status}")
            self._terminal.announce("ended", name=self.name, status=status)
            if not self.ready.is_set() and (status == EXIT_USAGE or crashes >= _START_TRIES):
                raise ChildFailed(self.name, status)
            if not was_ready and await self._wait_until_startable():
                crashes = 0
            pause_s = min(_FIRST_BACKOFF_S * 2 ** (crashes - 2), _LAST_BACKOFF_S) if crashes > 1 else 0.0
            if not self._stopping:
                when = f" in {pause_s:g} s" if pause_s else ""
                self._terminal.say("dev", f"starting another {self.name}{when}")
            await self._pause(pause_s)
            self._again.clear()

    def restart(self) -> None:
        """Let the process end gracefully, and start it again; one that waits is started at once."""
        self._again.set()
        self._end.set()

    def stop(self) -> None:
        """Let the process end gracefully; ``run`` returns when it has."""
        self._stopping = True
        self.restart()

    async def _wait_until_startable(self) -> bool:
        """Wait for ``restart``, or until a start is not in vain any more; False when it is not to begin with.

        Not every file that the code needs is watched, so that is asked again and again too.
        """
        if not await self._is_blocked():
            return False
        self._terminal.say("dev", f"the {self.name} cannot start with this code: waiting for a change")
        self._terminal.announce("waiting", name=self.name)
        pause_s = _FIRST_ASK_S
        while not self._again.is_set():
            await self._pause(pause_s)
            if not await self._is_blocked():
                break
            pause_s = min(pause_s * 2, _LAST_ASK_S)
        return True

    async def _is_blocked(self) -> bool:
        """Ask whether another start is in vain; a restart or stop in the meantime is an answer too: it is not."""
        if self._can_start is None or self._again.is_set():
            return False
        ask = asyncio.ensure_future(self._can_start())
        again = asyncio.create_task(self._again.wait(), name=f"{self.name}-again")
        try:
            await asyncio.wait([ask, again], return_when=asyncio.FIRST_COMPLETED)
            return not self._again.is_set() and not ask.result()
        finally:
            ask.cancel()
            again.cancel()
            await asyncio.gather(ask, again, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._again.wait()

    async def _run_once(self) -> int:
        self._end.clear()
        if self._stopping:
            return 0
        ready, output = await Pipe.open(), await Pipe.open()
        options = [] if self._wait_ready else ["--ready-fd", str(ready.write_fd)]
        try:
            process = start_child(
                [*self._argv, *options],
                env=self._env,
                stdout=output.write_fd,
                stderr=subprocess.STDOUT,
                pass_fds=(*self._pass_fds, ready.write_fd),
            )
        finally:
            ready.close_write_end()
            output.close_write_end()
        self._terminal.announce("started", name=self.name, pid=process.pid)
        relay = asyncio.create_task(
            self._terminal.relay(self.name, output.reader), name=f"{self.name}-output"
        )
        hear = asyncio.create_task(self._hear_ready(ready.reader), name=f"{self.name}-ready")
        end = asyncio.create_task(self._end_when_asked(process), name=f"{self.name}-end")
        try:
            status = await asyncio.get_running_loop().run_in_executor(None, process.wait)
            # Its helpers go too; one that has left the group may still hold the output, which is not waited for.
            signal_group(process.pid, signal.SIGKILL)
            await asyncio.wait([relay], timeout=_LAST_WORDS_S)
        finally:
            if process.returncode is None:
                signal_group(process.pid, signal.SIGKILL)
            for task in (relay, hear, end):
                task.cancel()
            results = await asyncio.gather(relay, hear, end, return_exceptions=True)
            output.close()
            ready.close()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return status

    async def _hear_ready(self, reader: asyncio.StreamReader) -> None:
        if self._wait_ready is not None:
            await self._wait_ready()
        elif not await reader.readline():
            return
        self.ready.set()
        self._is_ready = True
        self._terminal.announce("up", name=self.name)
        if self._on_ready is not None and not self._end.is_set():
            await self._on_ready()

    async def _end_when_asked(self, process: subprocess.Popen[bytes]) -> None:
        await self._end.wait()
        # To the process alone at first: what its jobs have started is theirs to end.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.sleep(self._grace_s)
        signal_group(process.pid, signal.SIGKILL)
