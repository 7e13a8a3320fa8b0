"""A real ``tidings dev`` for tests: its announcements, its tokens, and ways to end its parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jwt

from tidings_tasks.child_process import end_child, start_child

from .timing import scaled

__all__ = ["LiveStack", "clean_environ"]

_KEPT_LINES = 2000
_START_S = 60.0
_STOP_GRACE_S = 30.0


def clean_environ(**variables: str) -> dict[str, str]:
    """Return this process's environment without any setting of Tidings, and with these variables."""
    bare = ("PORT", "SOCKET_PORT", "JWT_SECRET", "CORS_ORIGIN", "LOG_LEVEL", "TIDINGS_", "REDIS_", "WORKER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(bare)} | variables


class LiveStack:
    """One ``tidings dev`` on a free port. ``start`` it from the main thread; its other methods may be called from any.

    They block: on an event loop call them by ``asyncio.to_thread``.

    Args:
        data_dir: where it keeps its data.
        modules: job modules besides the built-in ones.
        environ: settings, over a clean environment.
        cwd: where it is started; job modules are found there.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        modules: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.secret = "a-secret-for-tests-of-more-than-32-characters"
        self.events: list[dict[str, Any]] = []
        """Every announcement, oldest first."""
        self.output: deque[str] = deque(maxlen=_KEPT_LINES)
        """The latest lines of its children."""
        self._modules = modules
        self._environ = clean_environ(**({"JWT_SECRET": self.secret} | dict(environ or {})))
        self._cwd = cwd
        self._news = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._silent = False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running ``tidings dev`` itself."""
        assert self._process is not None, "the stack is not started"
        return self._process

    @property
    def url(self) -> str:
        """The server's URL, without a slash at its end."""
        return str(self._latest("ready")["url"])

    @property
    def page(self) -> str:
        """The URL of the page, with its token."""
        return str(self._latest("ready")["page"])

    def pid(self, name: str) -> int:
        """Return the process id of ``store``, ``server`` or ``worker``, as announced last."""
        return int(self._latest("started", name)["pid"])

    def token(
        self,
        sub: str = "alice",
        org: str | None = None,
        scope: str | None = None,
        ttl_s: float = 3600,
        **claims: Any,
    ) -> str:
        """Make a token that the server accepts, with any other claims."""
        now = time.time()
        named = {"sub": sub, "org": org, "scope": scope, "iat": int(now), "exp": now + ttl_s} | claims
        return jwt.encode(
            {name: value for name, value in named.items() if value is not None}, self.secret, "HS256"
        )

    def start(self) -> None:
        """Start it, and return when the server is ready and the worker started."""
        command = [
            sys.executable,
            "-m",
            "tidings",
            "dev",
            "--json",
            "--port",
            "0",
            "--data",
            str(self.data_dir),
        ]
        seen = self.mark()
        self._silent = False
        self._process = start_child(
            [*command, *self._modules],
            env=self._environ,
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._read_events, args=[self._process.stdout], daemon=True),
            threading.Thread(target=self._read_output, args=[self._process.stderr], daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for("ready", since=seen)
            self.wait_for("up", "worker", since=seen)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """End it with SIGTERM, and return its exit status."""
        status = end_child(self.process, scaled(_STOP_GRACE_S))
        self.close()
        return status

    def close(self) -> None:
        """Let go of a process that has ended."""
        self.process.wait(scaled(_STOP_GRACE_S))
        for thread in self._threads:
            thread.join(scaled(_STOP_GRACE_S))
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def mark(self) -> int:
        """Return a place in the announcements, for ``wait_for``."""
        return len(self.events)

    def wait_for(self, event: str, name: str | None = None, *, since: int) -> dict[str, Any]:
        """Return the first such announcement behind ``since``, waiting for it.

        Raises:
            TimeoutError: it did not come, or the process ended before.
        """

        def found() -> dict[str, Any] | None:
            return next((entry for entry in self.events[since:] if _is(entry, event, name)), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._silent, scaled(_START_S))
            entry = found()
        if entry is None:
            output = "\n".join(self.output)
            raise TimeoutError(f"no {event} {name or ''} of `tidings dev`; its output:\n{output}")
        return entry

    def kill(self, name: str) -> int:
        """Kill -9 ``store``, ``server`` or ``worker``; return its process id. It is started again by itself."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_worker(self) -> int:
        """Kill -9 the worker, and return when the next one takes jobs."""
        since = self.mark()
        pid = self.kill("worker")
        self.wait_for("up", "worker", since=since)
        return pid

    def restart_server(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server, and return when the next one is ready on the same port."""
        since = self.mark()
        os.kill(self.pid("server"), number)
        self.wait_for("ready", since=since)

    def kill_store(self) -> None:
        """Kill -9 the store, and return when it has been started again."""
        since = self.mark()
        self.kill("store")
        self.wait_for("up", "store", since=since)

    def _latest(self, event: str, name: str | None = None) -> dict[str, Any]:
        return next(entry for entry in reversed(self.events) if _is(entry, event, name))

    def _read_events(self, stream: IO[bytes]) -> None:
        for line in stream:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._silent = True
            self._news.notify_all()

    def _read_output(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.output.append(line.decode("utf-8", "replace").rstrip("\n"))


def _is(entry: Mapping[str, Any], event: str, name: str | None) -> bool:
    return entry["event"] == event and name in (None, entry.get("name"))
