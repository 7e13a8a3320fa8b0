"""The store in plain Python: what each command is to do, without a thought for memory, speed or storage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from tidings.protocol import EDGES, LIFECYCLE, EventKind, JobState
from tidings_tasks.store import Outcome, Submission, Verb, Write, WriteCode

from .invariants import feed_names

__all__ = ["Feed", "Model", "ModelJob"]

S = JobState
DAY_MS = 86_400_000
KEPT_MS = {S.COMPLETED: 7 * DAY_MS, S.FAILED: 30 * DAY_MS, S.CANCELLED: 30 * DAY_MS}
FIRST_TURN = 2**40
FORKS_KEPT, CALLS_KEPT, LOST_WORKERS_MAX = 16, 8, 3
LOST = {"code": "worker_lost", "type": "WorkerLost", "message": "the worker that ran this job went away"}


def iso(ms: int) -> str:
    """Format store ms."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class ModelJob:
    """One job."""

    submission: Submission
    epoch: str
    state: JobState | None = None
    head: int = 0
    attempt: int = 0
    tries: int = 0
    lost: int = 0
    last_write: int = 0
    asked_by: Any = None
    asked_why: Any = None
    is_asked: bool = False
    started_ms: int = 0
    score: float = 0
    """Its place in the index that its state belongs to: order, due time, lease's end, or end of retention."""
    forks: list[tuple[str, int]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    progress: Any = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.submission.id

    @property
    def scope(self) -> str:
        """Whose it is."""
        return self.submission.spec.tenant.scope


@dataclass
class Feed:
    """A feed's log: the generation each entry was written in, and what it says."""

    entries: list[tuple[str, str, int, str]] = field(default_factory=list)


class Model:
    """A store of one shard."""

    def __init__(self, now_ms: int, generation: str, max_queue_length: int) -> None:
        self.now_ms = now_ms
        self.generation = generation
        self.max_queue_length = max_queue_length
        self.reap_from_ms = 0
        self.jobs: dict[str, ModelJob] = {}
        self.feeds: dict[str, Feed] = {}
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._deleted: set[str] = set()
        self._turns: dict[tuple[str, int, str], float] = {}
        self._fronts: dict[tuple[str, int], float] = {}
        self._calls: dict[tuple[str, int], tuple[int, list[tuple[str, int]]]] = {}

    # Commands

    def enqueue(self, submissions: Sequence[Submission], *, all_or_none: bool) -> list[tuple[Outcome, str]]:
        """Store jobs as if they came one after the other, or none of them."""
        self._fronts.clear()
        before_jobs, before_keys = dict(self.jobs), dict(self.keys)
        found: list[tuple[Outcome, str]] = []
        made: list[ModelJob] = []
        room: dict[str, int] = {}
        full: set[tuple[str, str]] = set()
        for submission in submissions:
            key = (submission.spec.tenant.scope, submission.idempotency_key)
            holder, fingerprint = self.keys.get(key, ("", "")) if key[1] else ("", "")
            if submission.id in self.jobs or submission.id in self._deleted:
                found.append((Outcome.CREATED, submission.id))
            elif holder in self.jobs:
                same = fingerprint == submission.fingerprint
                found.append((Outcome.REPLAYED if same else Outcome.CONFLICT, holder))
            elif key[1] and key in full:
                found.append((Outcome.FULL, submission.id))
            else:
                line = "due" if self._due_ms(submission) > self.now_ms else f"q:{submission.queue}"
                room[line] = room.get(line, self.max_queue_length - self._length(line)) - 1
                if room[line] < 0:
                    found.append((Outcome.FULL, submission.id))
                    full.add(key)
                    continue
                found.append((Outcome.CREATED, submission.id))
                job = ModelJob(submission, self.generation)
                self.jobs[job.id] = job
                made.append(job)
                if key[1]:
                    self.keys[key] = (job.id, submission.fingerprint)
        if all_or_none and {Outcome.FULL, Outcome.CONFLICT} & {outcome for outcome, _ in found}:
            self.jobs, self.keys = before_jobs, before_keys
            return [
                (Outcome.REFUSED if outcome in (Outcome.CREATED, Outcome.REPLAYED) and i not in self.jobs and i not in self._deleted else outcome, i)
                for outcome, i in found
            ]  # fmt: skip
        for job in made:
            due_ms = self._due_ms(job.submission)
            if due_ms > self.now_ms:
                self._become(job, S.SCHEDULED, due_ms)
                self._emit(job, EventKind.SCHEDULED, {"run_at": iso(due_ms)})
            else:
                self._queue(job)
        return found

    def step(
        self,
        worker: str,
        call: int,
        lease_ms: int,
        writes: Sequence[Write],
        wants: Sequence[tuple[str, int]],
        most: int,
    ) -> tuple[list[WriteCode], list[tuple[str, int, int]], int | None]:
        """Write, keep up, claim. Returns codes, claims (id, attempt, tries), and how long nothing is due, ms."""
        self._fronts.clear()
        codes = [self._write(write) for write in writes]
        for job in self._in_order(S.SCHEDULED, S.RETRYING, until_ms=self.now_ms):
            self._queue(job)
        if self.now_ms >= self.reap_from_ms:
            for job in self._in_order(S.RUNNING, until_ms=self.now_ms):
                self._reap(job)
        for job in self._in_order(*KEPT_MS, until_ms=self.now_ms):
            del self.jobs[job.id]
        claims = self._claim(worker, call, lease_ms, wants, most) if wants else []
        waits = [job.score - self.now_ms for job in self._in_order(S.SCHEDULED, S.RETRYING)]
        waits += [max(job.score, self.reap_from_ms) - self.now_ms for job in self._in_order(S.RUNNING)]
        return codes, claims, max(0, int(min(waits))) if waits else None

    def renew(self, attempts: Sequence[tuple[str, int]], lease_ms: int) -> list[WriteCode]:
        """Renew leases."""
        codes = []
        for job_id, attempt in attempts:
            job = self.jobs.get(job_id)
            if job is None or job.state is not S.RUNNING or job.attempt != attempt:
                codes.append(WriteCode.REFUSED)
                continue
            job.score = self.now_ms + lease_ms
            codes.append(WriteCode.CANCEL_REQUESTED if job.is_asked else WriteCode.DONE)
        return codes

    def cancel(self, job_id: str, by: Any, reason: Any) -> tuple[str, JobState | None]:
        """Cancel a job."""
        job = self.jobs.get(job_id)
        if job is None or job.state is None:
            return "gone", None
        if job.state.is_terminal:
            return "terminal", job.state
        if job.state is not S.RUNNING:
            self._leave_line(job)
            self._end(job, S.CANCELLED, {"by": by, "reason": reason})
            return "cancelled", S.CANCELLED
        if not job.is_asked:
            job.is_asked, job.asked_by, job.asked_why = True, by, reason
            self._emit(job, EventKind.CANCELLING, {"by": by})
        return "cancelling", S.RUNNING

    def delete(self, job_id: str) -> str:
        """Delete an ended job."""
        job = self.jobs.get(job_id)
        if job is None or job.state is None:
            return "gone"
        if not job.state.is_terminal:
            return "open"
        del self.jobs[job_id]
        self._deleted.add(job_id)
        return "deleted"

    def begin_generation(self, name: str, lease_ms: int) -> None:
        """Come back with another history."""
        self.generation = name
        self.reap_from_ms = self.now_ms + lease_ms

    def read(self, job_id: str, epoch: str, seq: int) -> list[dict[str, Any]] | None:
        """Return what follows a position, or None when it is not one of this log."""
        job = self.jobs[job_id]
        limits = dict(job.forks) | {job.epoch: job.head, "": 0}
        if epoch not in limits or seq > limits[epoch]:
            return None
        return [event for event in job.log if event["seq"] > seq]

    # Inside

    def _due_ms(self, submission: Submission) -> int:
        if submission.due.startswith("+"):
            return self.now_ms + int(submission.due)
        return int(submission.due or 0)

    def _length(self, line: str) -> int:
        if line == "due":
            return len(self._in_order(S.SCHEDULED, S.RETRYING))
        return len([job for job in self._in_order(S.QUEUED) if f"q:{job.submission.queue}" == line])

    def _in_order(self, *states: JobState, until_ms: float | None = None) -> list[ModelJob]:
        found = [job for job in self.jobs.values() if job.state in states]
        if until_ms is not None:
            found = [job for job in found if job.score <= until_ms]
        # The store breaks ties of time by the member's bytes.
        return sorted(found, key=lambda job: (job.score, f"{job.id}:{job.attempt}"))

    def _become(self, job: ModelJob, state: JobState, score: float) -> None:
        assert state in EDGES[job.state]
        job.state, job.score = state, score

    def _emit(self, job: ModelJob, kind: EventKind, data: Any) -> None:
        if job.epoch != self.generation:
            job.forks = [*job.forks, (job.epoch, job.head)][-FORKS_KEPT:]
            job.epoch = self.generation
        job.head += 1
        event = {
            "job_id": job.id, "epoch": job.epoch, "seq": job.head, "kind": kind.value, "at": iso(self.now_ms),
            "attempt": job.attempt, "data": data,
        }  # fmt: skip
        last = job.log[-1] if job.log else None
        if kind is EventKind.PROGRESS:
            job.progress = data
            if last is not None and last["kind"] == "progress" and last["epoch"] == job.epoch:
                event["prev"] = last.get("prev", last["seq"] - 1)
                job.log.pop()
        job.log.append(event)
        if kind in LIFECYCLE:
            for name in feed_names(job.scope):
                entries = self.feeds.setdefault(name, Feed()).entries
                entries.append((self.generation, job.id, job.head, kind.value))

    def _front(self, queue: str, priority: int) -> float:
        """The turn that a line is at; the same all through a command."""
        line = (queue, priority)
        if line not in self._fronts:
            standing = [
                job.score - priority * 2**48
                for job in self._in_order(S.QUEUED)
                if (job.submission.queue, job.submission.priority) == line
            ]
            if not standing:
                self._turns = {place: turn for place, turn in self._turns.items() if place[:2] != line}
            self._fronts[line] = min(standing, default=FIRST_TURN)
        return self._fronts[line]

    def _place(self, job: ModelJob, *, is_first: bool) -> float:
        queue, priority = job.submission.queue, job.submission.priority
        turn = self._front(queue, priority) - 1
        if not is_first:
            place = (queue, priority, job.scope)
            waits = any(other.scope == job.scope for other in self._in_order(S.QUEUED))
            turn = max(turn, self._turns.get(place, turn) if waits else turn) + 1
            self._turns[place] = turn
        return priority * 2**48 + turn

    def _leave_line(self, job: ModelJob) -> None:
        """A job that leaves from the end of its owner's line gives its turn back."""
        submission = job.submission
        place = (submission.queue, submission.priority, job.scope)
        if job.state is S.QUEUED and self._turns.get(place) == job.score - submission.priority * 2**48:
            self._turns[place] -= 1

    def _queue(self, job: ModelJob, *, is_first: bool = False, **more: Any) -> None:
        submission = job.submission
        self._become(job, S.QUEUED, self._place(job, is_first=is_first))
        self._emit(
            job, EventKind.QUEUED, {"queue": submission.queue, "priority": submission.priority, **more}
        )

    def _duration_s(self, job: ModelJob) -> float:
        return (self.now_ms - job.started_ms) / 1000 if job.started_ms else 0

    def _end(self, job: ModelJob, state: JobState, data: Any) -> None:
        self._become(job, state, self.now_ms + KEPT_MS[state])
        self._emit(job, EventKind(state.value), data)

    def _end_cancelled(self, job: ModelJob, reason: Any = None) -> None:
        why = job.asked_why if job.asked_why is not None else reason
        self._end(job, S.CANCELLED, {"by": job.asked_by, "reason": why})

    def _fail(self, job: ModelJob, error: Any, *, dead: bool) -> None:
        self._end(job, S.FAILED, {"error": error, "duration_s": self._duration_s(job), "dead": dead})

    def _retry(self, job: ModelJob, error: Any, delay_ms: int) -> None:
        self._become(job, S.RETRYING, self.now_ms + delay_ms)
        data = {"error": error, "delay_s": delay_ms / 1000, "next_attempt": job.attempt + 1}
        self._emit(job, EventKind.RETRYING, data)

    def _write(self, write: Write) -> WriteCode:
        job = self.jobs.get(write.id)
        if job is None or job.attempt != write.attempt:
            return WriteCode.REFUSED
        if write.number <= job.last_write:
            return WriteCode.REPEATED
        if job.state is not S.RUNNING:
            return WriteCode.REFUSED
        job.last_write = write.number
        was_asked, data = job.is_asked, orjson.loads(write.data)
        match write.verb:
            case Verb.PROGRESS | Verb.LOG | Verb.OUTPUT:
                self._emit(job, EventKind(write.verb.value), data)
            case Verb.COMPLETE:
                self._end(job, S.COMPLETED, {"result": data, "duration_s": self._duration_s(job)})
            case Verb.FAIL:
                job.tries += 1
                self._fail(job, data, dead=bool(orjson.loads(write.extra).get("dead")))
            case Verb.CANCEL:
                if not was_asked:
                    self._emit(job, EventKind.CANCELLING, {"by": None})
                self._end_cancelled(job, data)
            case Verb.RETRY | Verb.RELEASE if was_asked:
                self._end_cancelled(job)
            case Verb.RELEASE:
                self._queue(job, is_first=True, reason="shutdown")
            case Verb.RETRY:
                job.tries += 1
                if job.tries >= job.submission.spec.max_attempts:
                    self._fail(job, data, dead=True)
                else:
                    self._retry(job, data, int(orjson.loads(write.extra)["delay_ms"]))
        return WriteCode.CANCEL_REQUESTED if was_asked else WriteCode.DONE

    def _reap(self, job: ModelJob) -> None:
        job.tries += 1
        job.lost += 1
        if job.is_asked:
            self._end_cancelled(job)
        elif job.lost >= LOST_WORKERS_MAX or job.tries >= job.submission.spec.max_attempts:
            self._fail(job, LOST, dead=True)
        else:
            self._retry(job, LOST, 0)
            self._queue(job, is_first=True)

    def _claim(
        self, worker: str, call: int, lease_ms: int, wants: Sequence[tuple[str, int]], most: int
    ) -> list[tuple[str, int, int]]:
        made, members = self._calls.get((worker, call % CALLS_KEPT), (None, []))
        if made == call:
            return [
                (i, attempt, job.tries)
                for i, attempt in members
                if (job := self.jobs.get(i)) and job.state is S.RUNNING and job.attempt == attempt
            ]
        claims: list[tuple[str, int, int]] = []
        for queue, wanted in wants:
            line = [job for job in self._in_order(S.QUEUED) if job.submission.queue == queue]
            taken = line[: max(0, min(wanted, most - len(claims)))]
            if taken:
                # Turns of a line that is empty, or is past them, are forgotten.
                past = math.inf if len(taken) == len(line) else taken[-1].score
                self._turns = {
                    place: turn
                    for place, turn in self._turns.items()
                    if place[0] != queue or place[1] * 2**48 + turn >= past
                }
            for job in taken:
                job.attempt += 1
                job.last_write = 0
                job.started_ms = self.now_ms
                self._become(job, S.RUNNING, self.now_ms + lease_ms)
                self._emit(job, EventKind.STARTED, {"worker": worker, "attempt": job.attempt})
                claims.append((job.id, job.attempt, job.tries))
        if claims:
            self._calls[worker, call % CALLS_KEPT] = (call, [(i, a) for i, a, _ in claims])
        return claims
