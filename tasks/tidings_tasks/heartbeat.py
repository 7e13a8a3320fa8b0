"""A worker's sign of life in the store: every three seconds what it is and runs, and how long its jobs took."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import tidings
from tidings.protocol.errors import StoreUnavailable, TidingsError

from .attempt import Attempt
from .store import Command, RunningJob, SyncStore, Verb, WorkerInfo, bucket_of, worker_commands
from .usage import rss_bytes

__all__ = ["BEAT_S", "BEAT_TTL_S", "Heartbeat", "Role", "Tally"]

_log = logging.getLogger(__name__)

BEAT_S = 3.0
BEAT_TTL_S = 15.0
"""A worker that is killed vanishes from the list after so long."""

_MAX_TYPES = 200


class Tally:
    """Counts what the attempts of a process came to. Any thread may use it."""

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[int, int]] = {}

    def count(self, attempt: Attempt, verb: Verb) -> None:
        """An attempt ended with this write. Only completed ones tell how long a type takes."""
        if verb is Verb.COMPLETE:
            kind, bucket = attempt.spec.type, bucket_of(attempt.age_s)
            with self._lock:
                self.done += 1
                if (buckets := self._buckets.get(kind)) is None:
                    if len(self._buckets) >= _MAX_TYPES:
                        return  # until the next beat
                    buckets = self._buckets[kind] = {}
                buckets[bucket] = buckets.get(bucket, 0) + 1
        elif verb in (Verb.FAIL, Verb.RETRY):
            with self._lock:
                self.failed += 1

    def take_durations(self) -> dict[str, dict[int, int]]:
        """Return the durations since the last call, by type and bucket."""
        with self._lock:
            taken, self._buckets = self._buckets, {}
            return taken


@dataclass(frozen=True, slots=True)
class Role:
    """What a worker is for its whole life."""

    name: str
    runtime: str
    profile: str
    queues: Sequence[str]
    concurrency: int
    started_ms: int


class Heartbeat:
    """Beats from a thread of its own, so that a busy event loop does not look dead. ``close`` takes the beat away.

    Args:
        store: its own; closed by ``close``.
        running: the attempts that run, the oldest first; called on the beat's thread.
    """

    def __init__(
        self,
        store: SyncStore,
        role: Role,
        tally: Tally,
        *,
        running: Callable[[], Iterable[Attempt]],
        is_stopping: Callable[[], bool],
        now_ms: Callable[[], int],
    ) -> None:
        self._store, self._role, self._tally = store, role, tally
        self._running, self._is_stopping, self._now_ms = running, is_stopping, now_ms
        self._host = socket.gethostname()
        self._run_name = secrets.token_hex(8)
        self._number = 0
        self._unanswered: Command[None] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidings-beat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Say that the worker ends, and end; waits for the store for at most so long."""
        self._stopped.set()
        self._thread.join(timeout_s)
        self._store.close()

    def _run(self) -> None:
        while True:
            is_last = self._stopped.is_set()
            try:
                self._beat(0.0 if is_last else BEAT_TTL_S)
            except StoreUnavailable as error:
                _log.debug("a beat was not heard: %s", error)
            except TidingsError:
                _log.exception("a beat was not heard")
            if is_last:
                return
            self._stopped.wait(BEAT_S)

    def _beat(self, ttl_s: float) -> None:
        # One that was not answered goes first and as it was: the store knows whether it has added its durations.
        if self._unanswered is not None:
            self._store.run(self._unanswered)
        self._number += 1
        self._unanswered = worker_commands.beat(
            self._role.name, self._describe().to_json(), round(ttl_s * 1000), self._tally.take_durations(),
            run=self._run_name, number=self._number,
        )  # fmt: skip
        self._store.run(self._unanswered)
        self._unanswered = None

    def _describe(self) -> WorkerInfo:
        role, now_ms = self._role, self._now_ms()
        attempts = list(self._running())
        told = attempts[: worker_commands.MAX_RUNNING_TOLD]
        return WorkerInfo(
            id=role.name,
            host=self._host,
            pid=os.getpid(),
            profile=role.profile,
            queues=tuple(role.queues),
            concurrency=role.concurrency,
            running=tuple(RunningJob(a.job_id, a.spec.type, now_ms - round(a.age_s * 1000)) for a in told),
            running_count=len(attempts),
            rss_bytes=rss_bytes(),
            version=tidings.__version__,
            runtime=role.runtime,
            started_ms=role.started_ms,
            done=self._tally.done,
            failed=self._tally.failed,
            is_stopping=self._is_stopping(),
        )
