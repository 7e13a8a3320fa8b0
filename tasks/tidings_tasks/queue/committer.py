"""The stock ``dramatiq`` worker's link to the store: one thread commits outcomes and events, renews leases, keeps time."""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tidings.protocol import shard_of
from tidings.protocol.errors import StoreUnavailable

from ..attempt import Attempt, StopReason
from ..files import FileStore
from ..heartbeat import Heartbeat, Role, Tally
from ..job_log import job_logging
from ..outbox import Bounds, Outbox
from ..stalls import StallWatch, find_cloud_run
from ..store import Claim, SyncStore, WriteCode, commands
from .messages import AttemptMessage, message_of
from .policy import Verdict
from .time_limits import TimeLimits

if TYPE_CHECKING:
    from .broker import TidingsBroker

__all__ = ["Committer"]

_log = logging.getLogger(__name__)

_LEAST_BACKOFF_S, _MOST_BACKOFF_S = 0.1, 2.0
_FAREWELL_S = 1.0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _is_true_here(record: logging.LogRecord) -> bool:
    # Dramatiq says that a result is discarded where its Results middleware is missing; ours is the job's result.
    return "haven't added the Results middleware" not in str(record.msg)


class Committer:
    """Holds the attempts of this process until their last write is stored. ``close`` ends the thread."""

    def __init__(self, store: SyncStore, broker: TidingsBroker) -> None:
        self.store = store
        settings = broker.settings
        self.lease_ms = round(settings.lease_s * 1000)
        host = f"dramatiq-{socket.gethostname()[:40]}-{os.getpid()}"
        # The stock command has several processes, and one WORKER_ID for them.
        self.name = f"{settings.worker_id or host}-{secrets.token_hex(3)}"
        self.is_stopping = False
        """Whether nothing is to be claimed any more."""
        self._lease_s = settings.lease_s
        # It has no metrics to count stalls in; the log tells them.
        self._stalls = StallWatch(self._lease_s, lambda _: None, cloud_run=find_cloud_run(os.environ))
        self._grace_s = settings.shutdown_grace_s
        self._hand_back_at: float | None = None
        self._files = None
        if broker.has_settings:
            self._files = FileStore(settings.data_dir / "files", max_file_bytes=settings.max_file_bytes)
        self._woken = threading.Event()
        self._is_closing = False
        self._time_limits = TimeLimits(self._woken.set)
        self._lock = threading.Lock()
        self._held: dict[Attempt, AttemptMessage] = {}
        self._outboxes = [
            Outbox(self._woken.set, Bounds(), max_event_bytes=settings.max_event_bytes)
            for _ in range(store.keyspace.shards)
        ]
        self._call = secrets.randbits(48)
        self._renew_at = time.monotonic() + self._lease_s / 3
        self._logging = ExitStack()
        self._tally = Tally()
        self._heartbeat = Heartbeat(
            SyncStore(store.url, store.keyspace, lease_s=self._lease_s, timeout_s=settings.store_timeout_s),
            Role(self.name, "dramatiq", "", sorted(broker.get_declared_queues()), 0, _now_ms()), self._tally,
            running=self._attempts, is_stopping=lambda: self.is_stopping, now_ms=_now_ms,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="tidings-committer", daemon=True)

    def start(self) -> None:
        """Begin, with ``logging`` inside actors reaching their jobs' logs."""
        self._logging.enter_context(job_logging(lambda: None))
        logging.getLogger("dramatiq.worker.WorkerThread").addFilter(_is_true_here)
        self._stalls.tell_risk()
        self._thread.start()
        self._heartbeat.start()

    def stop_claiming(self) -> None:
        """Have nothing claimed any more. After ``shutdown_grace_s`` the contexts of what still runs hand it back."""
        self._hand_back_at = time.monotonic() + self._grace_s
        self.is_stopping = True
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """Write what is left, for at most so long, and end the thread."""
        self.is_stopping = True
        self._is_closing = True
        self._woken.set()
        self._thread.join(timeout_s)
        self._heartbeat.close(_FAREWELL_S)
        self._logging.close()
        if self._thread.is_alive():
            _log.error("the store did not take everything; what ran will run again")

    def hold(self, claim: Claim) -> AttemptMessage:
        """Take a claim in: from now on its lease is renewed."""
        outbox = self._outboxes[shard_of(claim.id)]
        attempt = Attempt(claim, outbox, files=self._files, is_shutting_down=lambda: self.is_stopping)
        message = AttemptMessage(message_of(attempt, claim.id), attempt)
        message.time_limits = self._time_limits
        with self._lock:
            self._held[attempt] = message
        return message

    def end(self, message: AttemptMessage, verdict: Verdict) -> None:
        """End an attempt. It is held until the store has it."""
        message.end_time()
        self._tally.count(message.attempt, verdict.verb)
        message.attempt.outbox.close(message.attempt, verdict.verb, verdict.data, verdict.extra)

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            # Without this thread nothing is stored and no lease renewed: the process is of no use, and its jobs run
            # elsewhere when it has ended.
            _log.critical("the link to the store failed; the worker ends", exc_info=True)
            with self._lock:
                held = list(self._held)
            for attempt in held:
                attempt.ask_to_stop(StopReason.LOST)
            os.kill(os.getpid(), signal.SIGTERM)

    def _work(self) -> None:
        while True:
            pause_s = self._pause_s()
            self._stalls.sleeps(pause_s)
            self._woken.wait(pause_s)
            self._woken.clear()
            self._stalls.woke()
            for shard, outbox in enumerate(self._outboxes):
                # One batch at a time, so that renewals do not wait for actors that write without end.
                if self._commit(shard, outbox):
                    self._woken.set()
            if time.monotonic() >= self._renew_at:
                self._renew_at = time.monotonic() + self._lease_s / 3
                self._renew()
            self._time_limits.interrupt_late()
            if self._hand_back_at is not None and time.monotonic() >= self._hand_back_at:
                self._hand_back_at = None
                self._hand_back()
            if self._is_closing and all(outbox.is_empty for outbox in self._outboxes):
                return

    def _pause_s(self) -> float:
        due = [self._renew_at, self._hand_back_at, self._time_limits.next_due()]
        due += [outbox.next_due() for outbox in self._outboxes]
        return max(0.0, min(at for at in due if at is not None) - time.monotonic())

    def _commit(self, shard: int, outbox: Outbox) -> bool:
        """Write a batch, and say whether there was one."""
        batch = outbox.take()
        if not batch.writes:
            return False
        self._call += 1
        command = commands.step(
            shard, worker=self.name, call=self._call, lease_ms=self.lease_ms, writes=batch.writes, most=0
        )
        backoff_s = _LEAST_BACKOFF_S
        while True:
            try:
                reply = self.store.run(command)
                break
            except StoreUnavailable as error:
                _log.warning("outcomes wait for the store: %s", error)
                time.sleep(random.uniform(_LEAST_BACKOFF_S, backoff_s))
                backoff_s = min(_MOST_BACKOFF_S, 2 * backoff_s)
        for attempt, code in outbox.settle(batch, reply.codes):
            self._act_on(attempt, code)
            if attempt.is_closed and attempt.pending_writes == 0:
                self._let_go(attempt)
        return True

    def _renew(self) -> None:
        with self._lock:
            held = [attempt for attempt in self._held if not attempt.is_closed]
        for shard in range(self.store.keyspace.shards):
            mine = [attempt for attempt in held if shard_of(attempt.job_id) == shard]
            if not mine:
                continue
            pairs = [(attempt.job_id, attempt.number) for attempt in mine]
            try:
                codes = self.store.run(commands.renew(shard, pairs, lease_ms=self.lease_ms))
            except StoreUnavailable as error:
                _log.warning("leases are not renewed: %s", error)
                continue
            for attempt, code in zip(mine, codes, strict=True):
                if not attempt.is_closed:
                    self._act_on(attempt, code)

    def _act_on(self, attempt: Attempt, code: WriteCode) -> None:
        if code is WriteCode.CANCEL_REQUESTED:
            attempt.ask_to_stop(StopReason.CANCELLED)
            self._time_limits.cut_short(attempt)
        elif code is WriteCode.REFUSED:
            _log.warning("attempt %d of job %s lost its lease", attempt.number, attempt.job_id)
            attempt.ask_to_stop(StopReason.LOST)
            self._time_limits.cut_short(attempt)
            self._let_go(attempt)

    def _hand_back(self) -> None:
        with self._lock:
            held = [attempt for attempt in self._held if not attempt.is_closed]
        for attempt in held:
            attempt.ask_to_stop(StopReason.HANDED_BACK)
            self._time_limits.cut_short(attempt)

    def _attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._held)

    def _let_go(self, attempt: Attempt) -> None:
        with self._lock:
            self._held.pop(attempt, None)
