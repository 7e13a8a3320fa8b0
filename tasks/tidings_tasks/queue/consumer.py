"""The consumer of one queue under the stock ``dramatiq`` worker: claims jobs as messages, hands outcomes on."""

from __future__ import annotations

import logging
import math
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable

from dramatiq.broker import Consumer, MessageProxy

from tidings.protocol.errors import StoreUnavailable

from ..store import Command, StepReply, Verb, commands
from .committer import Committer
from .messages import AttemptMessage
from .policy import Verdict, describe, judge_error, judge_failure

__all__ = ["TidingsConsumer"]

_log = logging.getLogger(__name__)

_LEAST_BACKOFF_S, _MOST_BACKOFF_S = 0.1, 2.0
_LEAVING_S = 0.1
_LEAST_WAIT_S = 0.02
_RELEASE = Verdict(Verb.RELEASE, b"null")


class TidingsConsumer(Consumer):
    """Claims at most ``prefetch`` jobs at a time. ``next`` runs on one thread, the others on any."""

    def __init__(self, committer: Committer, queue: str, *, prefetch: int, timeout_s: float) -> None:
        self._committer, self._queue, self._prefetch = committer, queue, prefetch
        self._timeout_s = timeout_s
        self._store = committer.store
        self._name = f"{committer.name}.{queue}"[:128]
        self._call = secrets.randbits(48)
        self._unanswered: Command[StepReply] | None = None
        self._ready: deque[AttemptMessage] = deque()
        self._open = 0
        self._freed = threading.Condition()
        self._shards = list(range(self._store.keyspace.shards))
        self._backoff_s = _LEAST_BACKOFF_S
        self._has_token = False
        self._due_at = math.inf

    def __next__(self) -> AttemptMessage | None:
        """Return the next message, or None when none came in time."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            if self._committer.is_stopping:
                self._leave(deadline)
                return None
            if self._ready:
                return self._ready.popleft()
            free = self._wait_for_room(deadline)
            if free == 0:
                return None
            try:
                self._claim(free)
                self._backoff_s = _LEAST_BACKOFF_S
                # A token that came as the worker was told to stop is for another one.
                self._has_token = not self._ready and self._wait_for_token(min(deadline, self._due_at))
                if not self._ready and not self._has_token and time.monotonic() >= deadline:
                    return None
            except StoreUnavailable as error:
                if self._backoff_s == _LEAST_BACKOFF_S:
                    _log.warning("queue %s waits for the store: %s", self._queue, error)
                time.sleep(random.uniform(_LEAST_BACKOFF_S, self._backoff_s))
                self._backoff_s = min(_MOST_BACKOFF_S, 2 * self._backoff_s)
                return None

    def ack(self, message: MessageProxy) -> None:
        """End an attempt as was decided."""
        # Without a decision something broke in on the way from the actor to here: it has not completed.
        self._end(message, None)

    def nack(self, message: MessageProxy) -> None:
        """End an attempt as was decided, or as failed: its actor is not known here."""
        if isinstance(message, AttemptMessage):
            text = f"no actor {message.actor_name!r} is declared in this worker"
            error = describe("unknown_job_type", "ActorNotFound", text)
            self._end(message, judge_failure(message.attempt, error))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Hand jobs back that were claimed and not begun."""
        for message in messages:
            if isinstance(message, AttemptMessage):
                message.verdict = _RELEASE
                self._end(message, _RELEASE)

    def close(self) -> None:
        """Hand back what was claimed and not passed on."""
        self.requeue(list(self._ready))
        self._ready.clear()

    def _end(self, message: MessageProxy, otherwise: Verdict | None) -> None:
        if isinstance(message, AttemptMessage):
            verdict = message.verdict or otherwise
            if verdict is None:
                verdict = judge_error(message.attempt, RuntimeError("the attempt was interrupted at its end"))
            self._committer.end(message, verdict)
            with self._freed:
                self._open -= 1
                self._freed.notify()

    def _leave(self, deadline: float) -> None:
        """Hand back what was not passed on, and claim nothing until the worker ends this thread."""
        self.close()
        if self._has_token:
            self._has_token = False
            try:
                self._give_token_back()
            except StoreUnavailable as error:
                _log.debug("a wake token of queue %s is lost: %s", self._queue, error)
        time.sleep(max(0.0, min(_LEAVING_S, deadline - time.monotonic())))

    def _give_token_back(self) -> None:
        for shard in self._shards:
            self._call += 1
            # To name a queue and want nothing of it is enough.
            self._store.run(
                commands.step(
                    shard, worker=self._name, call=self._call, lease_ms=self._committer.lease_ms,
                    wants=[(self._queue, 0)], most=0,
                )
            )  # fmt: skip

    def _wait_for_room(self, deadline: float) -> int:
        with self._freed:
            self._freed.wait_for(lambda: self._open < self._prefetch, max(0.0, deadline - time.monotonic()))
            return max(0, self._prefetch - self._open)

    def _claim(self, free: int) -> None:
        # A call that was not answered comes first, as it was: it may have claimed.
        if self._unanswered is not None:
            self._take(self._store.run(self._unanswered))
            return
        self._due_at = math.inf
        for shard in self._shards:
            self._call += 1
            self._unanswered = commands.step(
                shard, worker=self._name, call=self._call, lease_ms=self._committer.lease_ms,
                wants=[(self._queue, free)], most=free,
            )  # fmt: skip
            self._take(self._store.run(self._unanswered))
            free = self._prefetch - self._open
            if free <= 0:
                break

    def _take(self, reply: StepReply) -> None:
        self._unanswered = None
        if reply.next_due_ms is not None:
            wait_s = max(_LEAST_WAIT_S, reply.next_due_ms / 1000)
            self._due_at = min(self._due_at, time.monotonic() + wait_s)
        for claim in reply.claims:
            self._ready.append(self._committer.hold(claim))
            with self._freed:
                self._open += 1

    def _wait_for_token(self, deadline: float) -> bool:
        for shard in self._shards:
            left_s = (deadline - time.monotonic()) / len(self._shards)
            if left_s <= 0:
                return False
            found = self._store.wait([self._store.keyspace.wake_list(shard, self._queue)], max(0.01, left_s))
            if found is not None:
                return True
        return False
