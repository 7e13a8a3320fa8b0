"""The store in plain Python: what each command is to do, without a thought for memory, speed or storage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tidings.protocol import EDGES, LIFECYCLE, EventKind, JobState
from tidings_tasks.store import Breaker, Outcome, QueueLimits, QueueState, Submission, Verb, Write, WriteCode

from .invariants import feed_names
from .model_gates import Gates
from .model_job import ModelJob, World, iso
from .model_lines import Lines
from .model_submitting import Desk, with_spec

__all__ = ["Feed", "Model"]

S = JobState
DAY_MS = 86_400_000
WAITING = (S.SCHEDULED, S.QUEUED, S.RETRYING)
COMPLETED_KEPT_MS, FAILED_KEPT_MS = 7 * DAY_MS, 30 * DAY_MS
FORKS_KEPT, CALLS_KEPT, LOST_WORKERS_MAX = 16, 8, 3
LOST = {"code": "worker_lost", "type": "WorkerLost", "message": "the worker that ran this job went away"}
EXPIRED = {"code": "expired", "type": "JobExpired", "message": "the job was not begun before it expired"}


@dataclass
class Feed:
    """A feed's log: the generation each entry was written in, and what it says."""

    entries: list[tuple[str, str, int, str]] = field(default_factory=list)


class Model(World):
    """A store of one shard."""

    def __init__(self, now_ms: int, generation: str, max_queue_length: int) -> None:
        super().__init__(now_ms)
        self.generation = generation
        self.reap_from_ms = 0
        self.feeds: dict[str, Feed] = {}
        self.lines = Lines(self)
        self.gates = Gates(self)
        self.desk = Desk(self, self.gates, max_queue_length)
        self._calls: dict[tuple[str, int], tuple[int, list[tuple[str, int]]]] = {}

    # Commands

    def enqueue(self, submissions: Sequence[Submission], *, all_or_none: bool) -> list[tuple[Outcome, str]]:
        """Store jobs as if they came one after the other, or none of them."""
        self.lines.begin_command()
        decided = self.desk.decide(submissions, all_or_none=all_or_none)
        for submission in decided.made:
            job = ModelJob(submission, self.generation)
            self.jobs[job.id] = job
            if submission.expires:
                job.expires_ms = self.desk.due_ms(submission.expires)
            due_ms = self.desk.due_ms(submission.due)
            if due_ms > self.now_ms:
                self._schedule(job, due_ms)
            else:
                self._queue(job)
        newest = {newer.id: job_id for job_id, newer in decided.replacing.items()}
        for newer in (submission for submission in submissions if submission.id in newest):
            job, due_ms = self.jobs[newest[newer.id]], self.desk.due_ms(newer.due)
            if (job.score, job.submission.spec) != (due_ms, newer.spec):
                job.submission, job.score = with_spec(job.submission, newer), due_ms
                self._emit(job, EventKind.SCHEDULED, {"run_at": iso(due_ms)})
        return decided.answers

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
        self.lines.begin_command()
        codes = [self._write(write) for write in writes]
        for job in self.in_order(S.SCHEDULED, S.RETRYING, until_ms=self.now_ms):
            self._queue(job)
        if self.now_ms >= self.reap_from_ms:
            for job in self.in_order(S.RUNNING, until_ms=self.now_ms):
                self._reap(job)
        mortal = [
            (job.expires_ms, job.id, job)
            for job in self.jobs.values()
            if job.expires_ms and job.state in WAITING
        ]
        for expires_ms, _, job in sorted(mortal, key=lambda entry: entry[:2]):
            if expires_ms <= self.now_ms:
                self._fail(job, EXPIRED, dead=False)
        self.gates.open_what_is_due()
        for job in self.in_order(S.COMPLETED, S.FAILED, S.CANCELLED, until_ms=self.now_ms):
            del self.jobs[job.id]
        claims = self._claim(worker, call, lease_ms, wants, most) if wants else []
        return codes, claims, self.next_due_ms()

    def next_due_ms(self) -> int | None:
        """Say how long nothing falls due."""
        times = [
            job.score for job in self.in_order(S.SCHEDULED, S.RETRYING, S.COMPLETED, S.FAILED, S.CANCELLED)
        ]
        times += [max(job.score, self.reap_from_ms) for job in self.running()]
        times += [job.expires_ms for job in self.in_order(*WAITING) if job.expires_ms]
        times += self.gates.timers.values()
        return max(0, int(min(times)) - self.now_ms) if times else None

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
        if job.has_ended:
            return "terminal", job.state
        if job.state is not S.RUNNING:
            self._end(job, S.CANCELLED, {"by": by, "reason": reason})
            return "cancelled", S.CANCELLED
        if not job.is_asked:
            job.is_asked, job.asked_by, job.asked_why = True, by, reason
            self._emit(job, EventKind.CANCELLING, {"by": by})
        return "cancelling", S.RUNNING

    def change(self, job_id: str, priority: int | None, due_ms: int | None) -> tuple[str, JobState | None]:
        """Change when a waiting job runs. A delay before a retry may be cut short, and nothing else."""
        self.lines.begin_command()
        job = self.jobs.get(job_id)
        if job is None:
            return "gone", None
        is_later = due_ms is not None and due_ms > self.now_ms
        if job.state not in WAITING or (job.state is S.RETRYING and is_later):
            return "illegal", job.state
        is_other = priority is not None and priority != job.priority
        is_moved = job.score != due_ms if is_later else due_ms is not None and job.state is not S.QUEUED
        if is_moved and is_later and job.state is S.QUEUED:
            self._schedule(job, due_ms or 0)
        elif is_moved and is_later:
            job.score = due_ms or 0
            self._emit(job, EventKind.SCHEDULED, {"run_at": iso(due_ms or 0)})
        elif is_other and job.state is S.QUEUED:
            self.lines.leave(job)
            gate, job.gate = job.gate, "on its way"
            job.priority = priority or 0
            job.score = self.lines.place(job, is_first=False)
            job.gate = gate
            self._emit(job, EventKind.QUEUED, {"queue": job.queue, "priority": job.priority})
        if is_other:
            job.priority = priority or 0
        if is_moved and not is_later:
            self._queue(job)
        return "changed" if is_other or is_moved else "unchanged", job.state

    def configure(self, queues: Mapping[str, QueueLimits], dependencies: Mapping[str, Breaker]) -> None:
        """Set limits."""
        self.gates.configure(queues, dependencies)

    def set_queue_state(self, queue: str, state: QueueState) -> None:
        """Pause a queue, let it drain, or set it going."""
        self.gates.states[queue] = state

    def purge_queue(self, queue: str, by: Any, limit: int, *, dry_run: bool) -> tuple[int, int, str | None]:
        """Cancel what waits in a queue, among the newest open jobs. Returns found, cancelled, the last one looked at."""
        page = sorted((job for job in self.jobs.values() if not job.has_ended), key=lambda job: job.id)[
            -limit:
        ]
        found = [job for job in reversed(page) if job.queue == queue and job.state in WAITING]
        if not dry_run:
            for job in found:
                self._end(job, S.CANCELLED, {"by": by, "reason": "the queue was purged"})
        return len(found), 0 if dry_run else len(found), page[0].id if len(page) == limit else None

    def release_dead(self, job_ids: Sequence[str]) -> list[str]:
        """Take jobs out of the dead letters."""
        found = [i for i in dict.fromkeys(job_ids) if i in self.jobs and self.jobs[i].dead_group]
        for job_id in found:
            self.jobs[job_id].dead_group = None
        return found

    def delete(self, job_id: str) -> str:
        """Delete an ended job."""
        job = self.jobs.get(job_id)
        if job is None or job.state is None:
            return "gone"
        if not job.has_ended:
            return "open"
        del self.jobs[job_id]
        self.desk.deleted.add(job_id)
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

    def _become(self, job: ModelJob, state: JobState, score: float, *, said: bool | None = None) -> None:
        assert state in EDGES[job.state]
        former, gate = job.state, job.gate
        if former is S.QUEUED and state is not S.RUNNING:
            self.lines.leave(job)
        job.state, job.score, job.gate = state, score, ""
        if former is S.RUNNING:
            self.gates.stop_running(job, said)
        elif former is S.QUEUED and state is not S.RUNNING and job.key_gate and gate != job.key_gate:
            self.gates.free_key(job.key_gate)

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

    def _queue(self, job: ModelJob, *, is_first: bool = False, **more: Any) -> None:
        self._become(job, S.QUEUED, self.lines.place(job, is_first=is_first))
        self._emit(job, EventKind.QUEUED, {"queue": job.queue, "priority": job.priority, **more})

    def _schedule(self, job: ModelJob, due_ms: int) -> None:
        self._become(job, S.SCHEDULED, due_ms)
        self._emit(job, EventKind.SCHEDULED, {"run_at": iso(due_ms)})

    def _duration_s(self, job: ModelJob) -> float:
        return (self.now_ms - job.started_ms) / 1000 if job.started_ms else 0

    def _end(self, job: ModelJob, state: JobState, data: Any, *, said: bool | None = None) -> None:
        kept_ms = job.submission.failed_kept_ms or FAILED_KEPT_MS
        if state is S.COMPLETED:
            kept_ms = job.submission.completed_kept_ms or COMPLETED_KEPT_MS
        self._become(job, state, self.now_ms + kept_ms, said=said)
        self._emit(job, EventKind(state.value), data)
        self.desk.free_dedup_key(job)

    def _end_cancelled(self, job: ModelJob, reason: Any = None) -> None:
        why = job.asked_why if job.asked_why is not None else reason
        self._end(job, S.CANCELLED, {"by": job.asked_by, "reason": why})

    def _fail(self, job: ModelJob, error: Any, *, dead: bool, said: bool | None = None) -> None:
        data = {"error": error, "duration_s": self._duration_s(job), "dead": dead}
        self._end(job, S.FAILED, data, said=said)
        if dead:
            message = re.sub("[0-9]+", "#", error["message"])
            job.died_ms = self.now_ms
            job.dead_group = (job.queue, job.submission.spec.type, error["code"], error["type"], message)

    def _retry(self, job: ModelJob, error: Any, delay_ms: int, *, said: bool | None = None) -> None:
        self._become(job, S.RETRYING, self.now_ms + delay_ms, said=said)
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
                ended = {"result": data, "duration_s": self._duration_s(job)}
                self._end(job, S.COMPLETED, ended, said=True)
            case Verb.FAIL:
                job.tries += 1
                is_dead = bool(orjson.loads(write.extra).get("dead"))
                # What its author failed says nothing of what it depends on.
                self._fail(job, data, dead=is_dead, said=False if is_dead else None)
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
                    self._fail(job, data, dead=True, said=False)
                else:
                    self._retry(job, data, int(orjson.loads(write.extra)["delay_ms"]), said=False)
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
            line = self.line(queue)
            room = self.gates.room(queue, min(wanted, most - len(claims))) if line else 0
            begun, last_place = 0, 0.0
            for job in line:
                if begun == room:
                    break
                last_place = job.score
                job.gate = self.gates.closed_gate(job)
                if not job.gate:
                    self._begin(job, worker, lease_ms)
                    claims.append((job.id, job.attempt, job.tries))
                    begun += 1
            if begun:
                self.gates.count_claims(queue, begun)
            if last_place:
                self.lines.forget(queue, last_place)
        if claims:
            self._calls[worker, call % CALLS_KEPT] = (call, [(i, a) for i, a, _ in claims])
        return claims

    def _begin(self, job: ModelJob, worker: str, lease_ms: int) -> None:
        job.attempt += 1
        job.last_write = 0
        job.started_ms = self.now_ms
        self._become(job, S.RUNNING, self.now_ms + lease_ms)
        self._emit(job, EventKind.STARTED, {"worker": worker, "attempt": job.attempt})
