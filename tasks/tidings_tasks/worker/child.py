"""A child process of a worker: runs one plain job function at a time, on its main thread.

``python -m tidings_tasks.worker.child FD`` speaks to the worker over the socket FD (``frames.py``) and ends when the
other end is closed. An urgent ``stop`` becomes a SIGTERM to its own main thread, which raises the reason in the function,
wherever it is; a process in which that happened is not used again.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, cast

from tidings.protocol.errors import InvalidInput

from ..attempt import Attempt, StopReason
from ..connection import connected
from ..files import FileStore
from ..job_log import job_logging
from ..job_modules import import_job_modules
from ..logs import configure_logging
from ..outbox import Outbox
from ..queue.policy import Verdict, judge_error, judge_refusal
from ..queue.queues import QueuePolicy
from ..registry import REGISTRY
from ..store import Claim, Keyspace, Spec
from ..usage import ProcessMeter, rss_bytes
from .calls import SyncJobCall, log_error
from .frames import Frame, FrameReader, pack
from .remote_outbox import RemoteOutbox

__all__: list[str] = []

_READ_BYTES = 65_536


class Child:
    """The process's one worker-side connection and the job that it runs."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._send_lock = threading.Lock()
        self._frames: SimpleQueue[Frame | None] = SimpleQueue()
        self._reader = FrameReader()
        self._init: dict[str, Any] = {}
        self._attempt: Attempt | None = None
        self._outbox: RemoteOutbox | None = None
        self._is_shutting_down = False
        self._is_running = False
        self._shields = 0
        self._is_interrupted = False

    def main(self) -> None:
        """Get ready, then run jobs until the worker says or shows that it needs no more."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        threading.Thread(target=self._listen, name="tidings-worker-link", daemon=True).start()
        first = self._frames.get()
        if first is None:
            return
        self._init = first.args[0]
        with ExitStack() as stack:
            try:
                self._get_ready(stack)
            except Exception as error:  # job modules are other people's code
                self._send("broken", body=f"{type(error).__name__}: {error}".encode())
                return
            self._send("ready")
            while (frame := self._frames.get()) is not None and frame.what == "run":
                self._run(frame.args[4])

    def _get_ready(self, stack: ExitStack) -> None:
        init = self._init
        sys.path.extend(entry for entry in init["path"] if entry not in sys.path)
        configure_logging(init["log_level"], init["log_format"], secrets=tuple(init["secrets"]))
        import_job_modules(init["jobs"])
        keyspace = Keyspace(init["key_prefix"], init["shards"])
        queues = {name: QueuePolicy.model_validate(policy) for name, policy in init["queues"].items()}
        stack.enter_context(connected(init["store_url"], keyspace, queues))
        stack.enter_context(job_logging(lambda: None))
        self._files = FileStore(Path(init["files"]), max_file_bytes=init["max_file_bytes"])

    def _take(self, frame: Frame) -> None:
        """Make the attempt as soon as it is heard of: the next frame may tell it to stop."""
        job_id, number, queue, tries, _, self._is_shutting_down = frame.args
        self._outbox = RemoteOutbox(self._send, self._shielded, max_event_bytes=self._init["max_event_bytes"])
        self._attempt = Attempt(
            Claim(job_id, number, queue, tries, Spec.from_json(frame.body)),
            cast("Outbox", self._outbox),  # it does what a context asks of one
            files=self._files,
            is_shutting_down=lambda: self._is_shutting_down,
        )

    def _run(self, module: str) -> None:
        attempt, outbox = self._attempt, self._outbox
        if attempt is None or outbox is None:
            return
        meter = ProcessMeter()
        verdict = self._call(attempt, module)
        used = meter.read()
        outbox.close(attempt)
        self._attempt = None
        outcome = {
            "verb": verdict.verb.value, "extra": verdict.extra,
            "cpu_s": used.cpu_s, "memory_peak_bytes": used.memory_peak_bytes, "rss_bytes": rss_bytes(),
        }  # fmt: skip
        self._send("end", outcome, body=verdict.data)

    def _call(self, attempt: Attempt, module: str) -> Verdict:
        try:
            if attempt.spec.type not in REGISTRY:
                importlib.import_module(module)
            job_type = REGISTRY.get(attempt.spec.type)
            data = job_type.validate_input(attempt.spec.input)
        except InvalidInput as error:
            return judge_refusal(attempt, error)
        except Exception as error:  # a validator of the author's may raise anything
            log_error(attempt, error)
            return judge_error(attempt, error)
        call = SyncJobCall(attempt, job_type, data, self._init["max_result_bytes"])
        self._is_running = True
        try:
            return call.run()
        except BaseException as error:  # the reason to stop, raised just behind the function's end
            return judge_error(attempt, error)
        finally:
            self._is_running = False

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if not self._is_running or self._attempt is None or self._attempt.stop is None:
            # With nothing that could be told to stop, it is the usual end.
            os._exit(128 + number)
        if self._shields:
            self._is_interrupted = True
        else:
            raise self._attempt.error()

    @contextmanager
    def _shielded(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # signal handlers run on the main thread alone
            return
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._is_interrupted and not self._shields and self._attempt is not None:
                self._is_interrupted = False
                raise self._attempt.error()

    def _listen(self) -> None:
        while data := self._receive():
            for frame in self._reader.feed(data):
                self._hear(frame)
        # The worker is gone, or has no use for this process: nothing that still runs here is kept anyway.
        os._exit(0)

    def _hear(self, frame: Frame) -> None:
        outbox, attempt = self._outbox, self._attempt
        if frame.what == "stop":
            reason, is_urgent = frame.args
            if attempt is not None:
                attempt.ask_to_stop(StopReason(reason))
                if is_urgent:
                    # Only now that the handler finds the reason; it also ends the main thread's system call.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        elif frame.what == "shutting_down":
            self._is_shutting_down = True
        elif frame.what == "ack":
            if outbox is not None:
                outbox.hear_ack(frame.args[0])
        elif frame.what == "flushed":
            if outbox is not None:
                outbox.hear_flushed(frame.args[0])
        elif frame.what == "exit":
            self._frames.put(None)
        else:
            if frame.what == "run":
                self._take(frame)
            self._frames.put(frame)

    def _receive(self) -> bytes:
        try:
            return self._link.recv(_READ_BYTES)
        except OSError:
            return b""

    def _send(self, what: str, *args: Any, body: bytes = b"") -> None:
        with self._send_lock:
            self._link.sendall(pack(what, *args, body=body))


if __name__ == "__main__":
    link_fd = int(sys.argv[1])
    os.set_inheritable(link_fd, False)
    Child(socket.socket(fileno=link_fd)).main()
