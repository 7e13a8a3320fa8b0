"""The processes of a run: a Valkey that syncs each write, a server, and workers that are killed and started again."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.support.stack import clean_environ
from tests.support.timing import scaled
from tidings_tasks.child_process import end_child, signal_group, start_child
from tidings_tasks.embedded import EmbeddedValkey

from .history import History, now_ms
from .plan import Runtime

__all__ = ["SECRET", "Installation", "WorkerProcess"]

SECRET = "a-secret-for-tests-of-more-than-32-characters"
_ROOT = Path(__file__).parents[2]
_STOCK_READY = b"ready for action"
_START_S, _END_S = 60.0, 20.0


class WorkerProcess:
    """One of the workers: the place stays, the process and its name change with each start."""

    def __init__(self, place: int, environ: dict[str, str], log_dir: Path, *, runtime: Runtime) -> None:
        self.place = place
        self.runtime = runtime
        self.runs = 0
        self.thaw_at_ms = 0
        """When it is to go on, while it is frozen; 0 when it is not."""
        self._environ, self._log_dir = environ, log_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_fd: int | None = None

    @property
    def _log(self) -> Path:
        return self._log_dir / f"{self.name}.log"

    @property
    def name(self) -> str:
        """The name of the process that runs now."""
        return f"chaos-{self.place}-{self.runs}"

    @property
    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        if (
            self.runtime == "dramatiq"
            and self._ready_fd is not None
            and _STOCK_READY in self._log.read_bytes()
        ):
            self._close_pipe()  # the stock command has no other way to say it
        if self._ready_fd is not None and select.select([self._ready_fd], [], [], 0)[0]:
            os.close(self._ready_fd)
            self._ready_fd = None
        return self._ready_fd is None and self._process is not None and self._process.poll() is None

    def check_alive(self) -> None:
        """Find out that it ended though nobody has killed it.

        Raises:
            RuntimeError: it did.
        """
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(
                f"{self.name} ended by itself with {self._process.returncode}; see {self._log_dir}"
            )

    def start(self) -> None:
        """Start the next process."""
        self.runs += 1
        self._ready_fd, write_fd = os.pipe()
        command = {
            "tidings": ["tidings", "worker", "tests.chaos.job_types", "--ready-fd", str(write_fd)],
            "dramatiq": ["dramatiq", "tests.chaos.stock_app", "--processes", "1", "--threads", "40"],
        }
        with self._log.open("wb") as log:
            self._process = start_child(
                [sys.executable, "-m", *command[self.runtime]],
                env=self._environ | {"WORKER_ID": self.name}, cwd=_ROOT, pass_fds=[write_fd], stdout=log, stderr=log,
            )  # fmt: skip
        os.close(write_fd)

    def signal(self, number: signal.Signals) -> None:
        """Send it, and all of its own processes, a signal."""
        assert self._process is not None
        signal_group(self._process.pid, number)

    def kill(self) -> int:
        """Kill -9 it; return when that was."""
        assert self._process is not None
        at_ms = now_ms()
        self.signal(signal.SIGKILL)
        self._process.wait()
        self.thaw_at_ms = 0
        self._close_pipe()
        return at_ms

    def end(self) -> None:
        """End it with SIGTERM."""
        if self._process is not None:
            if self._process.poll() is None:
                self.signal(signal.SIGCONT)
            end_child(self._process, scaled(_END_S))
            self._close_pipe()

    def _close_pipe(self) -> None:
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None


class Installation:
    """All processes of a run, in one directory. Use it as a context manager, on the main thread."""

    def __init__(
        self, directory: Path, *, workers: int, lease_s: float, history: History, runtime: Runtime
    ) -> None:
        self._history = history
        self.valkey = EmbeddedValkey(directory / "data", fsync="always")
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._environ = clean_environ(
            REDIS_URL=self.valkey.url, JWT_SECRET=SECRET, TIDINGS_ENV="test",
            TIDINGS_DATA_DIR=str(directory / "data"), TIDINGS_LEASE_S=str(lease_s), WORKER_CONCURRENCY="100",
            TIDINGS_WORKER_THREADS="40", TIDINGS_JOBS="tests.chaos.job_types", TIDINGS_LOG_FORMAT="text",
            TIDINGS_SUBMISSIONS_PER_MINUTE="1000000",
        )  # fmt: skip
        self._log_dir = directory / "logs"
        self.workers = [
            WorkerProcess(n, self._environ, self._log_dir, runtime=runtime) for n in range(workers)
        ]
        self._told_ready: set[str] = set()
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._log_dir.mkdir(parents=True)
        try:
            self.valkey.start()
            self._start_server()
            for worker in self.workers:
                worker.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of them."""
        for worker in self.workers:
            worker.end()
        if self._server is not None:
            end_child(self._server, scaled(_END_S))
        self.valkey.stop()

    def wait_ready(self) -> None:
        """Return when every worker takes jobs.

        Raises:
            RuntimeError: one ended by itself.
            TimeoutError: one does not; what it says is in its log.
        """
        deadline = time.monotonic() + scaled(_START_S)
        while True:
            self.tend()
            if all(worker.is_ready for worker in self.workers):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"a worker does not start; see {self._log_dir}")
            time.sleep(0.02)

    def kill_worker(self, pick: float) -> None:
        """Kill -9 one of the workers that take jobs, and start it again at once."""
        worker = self._pick(pick)
        if worker is None:
            self._history.add("nobody_to_kill")
            return
        at_ms = worker.kill()
        self._history.add("worker_killed", worker=worker.name, killed_ms=at_ms)
        worker.start()

    def freeze_worker(self, pick: float, freeze_s: float) -> None:
        """Stop one of the workers for so long; ``thaw_workers`` lets it go on."""
        worker = self._pick(pick)
        if worker is None:
            return
        at_ms = now_ms()
        worker.signal(signal.SIGSTOP)
        worker.thaw_at_ms = at_ms + round(freeze_s * 1000)
        self._history.add("worker_frozen", worker=worker.name, killed_ms=at_ms)

    def tend(self) -> None:
        """Let those workers go on whose time it is, note who takes jobs, and see that none has ended by itself.

        Raises:
            RuntimeError: one has.
        """
        for worker in self.workers:
            worker.check_alive()
            if worker.name not in self._told_ready and worker.is_ready:
                self._told_ready.add(worker.name)
                self._history.add("worker_ready", worker=worker.name)
        self.thaw_workers()

    def thaw_workers(self, *, all_of_them: bool = False) -> None:
        """Let those workers go on whose time it is, or all."""
        for worker in self.workers:
            if worker.thaw_at_ms and (all_of_them or now_ms() >= worker.thaw_at_ms):
                worker.thaw_at_ms = 0
                worker.signal(signal.SIGCONT)
                self._history.add("worker_thawed", worker=worker.name)

    def kill_store(self) -> None:
        """Kill -9 the Valkey, and start it again on its data."""
        at_ms = now_ms()
        self.valkey.kill()
        self.valkey.start()
        self._history.add("store_killed", killed_ms=at_ms, back_ms=now_ms())

    def _pick(self, pick: float) -> WorkerProcess | None:
        ready = [worker for worker in self.workers if worker.is_ready and not worker.thaw_at_ms]
        return ready[int(pick * len(ready))] if ready else None

    def _start_server(self) -> None:
        read_fd, write_fd = os.pipe()
        with (self._log_dir / "server.log").open("wb") as log:
            self._server = start_child(
                [sys.executable, "-m", "tidings", "server", "--port", str(self._port), "--ready-fd", str(write_fd)],
                env=self._environ, cwd=_ROOT, pass_fds=[write_fd], stdout=log, stderr=log,
            )  # fmt: skip
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as ready:
            if ready.readline() != b"\n":
                raise RuntimeError(f"the server does not start; see {self._log_dir / 'server.log'}")
