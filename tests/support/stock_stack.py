"""An installation whose worker is the stock ``dramatiq`` command, with the face of ``LiveStack`` for tests that want either.

It is a process of its own, ``python -m tests.support.stock_stack DIRECTORY``: it reads a command a line, does it, and answers
with a line. So its children are tied to it, whichever thread of a test asks for them.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import jwt
import psutil

from tests.support.stack import clean_environ
from tests.support.timing import eventually_sync, scaled
from tidings_tasks.child_process import end_child, start_child
from tidings_tasks.embedded import EmbeddedValkey

__all__ = ["StockStack"]

_APP = """
import dramatiq
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.settings import load_settings

dramatiq.set_broker(TidingsBroker(load_settings()))

import tidings_tasks.demo, tidings_tasks.jobs.report
"""
_SECRET = "a-secret-for-tests-of-more-than-32-characters"
_END_S = 20.0
_LOOK_S = 0.1


class StockStack:
    """A Valkey, ``tidings server`` and ``dramatiq``. ``start`` it from the main thread; its other methods from any.

    They block: on an event loop call them by ``asyncio.to_thread``.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        """The server's URL, without a slash at its end."""

    def token(self, sub: str = "alice") -> str:
        """Make a token that the server accepts."""
        now = time.time()
        return jwt.encode({"sub": sub, "iat": int(now), "exp": now + 3600}, _SECRET, "HS256")

    def start(self) -> None:
        """Start all; what is submitted before the worker has come up waits for it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stock_stack", str(self._directory)],
            cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        port = self._process.stdout.readline().decode().strip()
        assert port, "the stock stack does not start"
        self.url = f"http://127.0.0.1:{port}"

    def restart_server(self) -> None:
        """Kill -9 the server, and return when the next one is ready on the same port."""
        self._ask("restart_server")

    def kill_store(self) -> None:
        """Kill -9 the store, and return when it has been started again."""
        self._ask("kill_store")

    def stop(self) -> int:
        """End all, the worker first by SIGTERM; returns the worker's exit status."""
        assert self._process is not None
        status = self._ask("stop")
        self._process.communicate(timeout=scaled(_END_S))
        return int(status)

    def _ask(self, command: str) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().decode().strip()
        assert answer, f"the stock stack ended during {command}"
        return answer


class _Supervisor:
    """The process's own side. Its end, however it comes, ends the children."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._valkey = EmbeddedValkey(directory)
        self._environ = clean_environ(
            REDIS_URL=self._valkey.url, JWT_SECRET=_SECRET, TIDINGS_ENV="test", TIDINGS_DATA_DIR=str(directory),
            TIDINGS_JOBS="tidings_tasks.demo,tidings_tasks.jobs.report", PYTHONFAULTHANDLER="1",
        )  # fmt: skip
        self._port = 0

    def run(self) -> None:
        """Start all, and do what is asked for until told to stop, or nobody is there to ask."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "stock_app.py").write_text(_APP)
        with self._valkey:
            self._start_server()
            self._start_worker()
            print(self._port, flush=True)
            command = ""
            while command != "stop":
                if self._worker.poll() is not None:
                    # Dramatiq's master ends when a worker of it dies; a supervisor starts the next one.
                    self._start_worker()
                if not select.select([sys.stdin], [], [], _LOOK_S)[0]:
                    continue
                command = sys.stdin.readline().strip() or "stop"
                if command == "restart_server":
                    self._server.kill()
                    self._server.wait()
                    self._start_server()
                elif command == "kill_store":
                    self._valkey.kill()
                    self._valkey.start()
                if command != "stop":
                    print("done", flush=True)
            print(end_child(self._worker, scaled(_END_S)), flush=True)
            end_child(self._server, scaled(_END_S))

    def _start_server(self) -> None:
        read_fd, write_fd = os.pipe()
        command = ["server", "--port", str(self._port), "--ready-fd", str(write_fd)]
        self._server = start_child(
            [sys.executable, "-m", "tidings", *command], env=self._environ, stdout=sys.stderr.buffer, pass_fds=[write_fd]
        )  # fmt: skip
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as ready:
            assert ready.readline() == b"\n", f"the server ended with {self._server.wait()}"
        if not self._port:
            found = psutil.Process(self._server.pid)
            (self._port,) = eventually_sync(
                lambda: {c.laddr.port for c in found.net_connections("tcp") if not c.raddr}
            )

    def _start_worker(self) -> None:
        self._worker = start_child(
            [sys.executable, "-m", "dramatiq", "stock_app", "--processes", "1", "--threads", "4"],
            env=self._environ, cwd=self._directory, stdout=sys.stderr.buffer,
        )  # fmt: skip


if __name__ == "__main__":
    _Supervisor(Path(sys.argv[1])).run()
