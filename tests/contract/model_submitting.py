"""What the model makes of submissions: which become jobs, and which stand for a job that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tidings.protocol import JobState
from tidings_tasks.store import Outcome, QueueState, Submission

from .model_gates import Gates
from .model_job import ModelJob, World

__all__ = ["Decided", "Desk"]

Key = tuple[str, str]
"""A scope, and a key in it."""


@dataclass
class Decided:
    """The answers, and what is to be done: jobs to make, and submissions that take the place of a scheduled job's."""

    answers: list[tuple[Outcome, str]] = field(default_factory=list)
    made: list[Submission] = field(default_factory=list)
    replacing: dict[str, Submission] = field(default_factory=dict)
    turned_away: dict[Key, Outcome] = field(default_factory=dict)
    """Deduplication keys of those that found no room: their twins get the same answer."""


@dataclass
class Desk:
    """Keys of submissions, and the room there is."""

    world: World
    gates: Gates
    max_length: int
    keys: dict[Key, tuple[str, str]] = field(default_factory=dict)
    """Idempotency keys: a job, and the fingerprint of its request."""
    dedup: dict[Key, tuple[str, int | None]] = field(default_factory=dict)
    """Deduplication keys: a job, and until when it holds the key; None: until it has ended."""
    deleted: set[str] = field(default_factory=set)

    def decide(self, submissions: Sequence[Submission], *, all_or_none: bool) -> Decided:
        """Decide as if they came one after the other, or none of them."""
        decided = Decided()
        first_of: dict[Key, tuple[Outcome, str, str]] = {}
        used: dict[str, int] = {}
        for submission in submissions:
            key = (submission.spec.tenant.scope, submission.idempotency_key)
            if submission.id in self.world.jobs or submission.id in self.deleted:
                decided.answers.append((Outcome.CREATED, submission.id))
                continue
            answer = self._find_replay(submission, first_of)
            if answer is None:
                answer = self._find_twin(submission, decided) or self._find_room(submission, used)
                first_of[key] = (*answer, submission.fingerprint)
                if answer[0] is Outcome.CREATED:
                    decided.made.append(submission)
                elif answer[0] is not Outcome.DUPLICATE and submission.dedup_key:
                    decided.turned_away[key[0], submission.dedup_key] = answer[0]
            decided.answers.append(answer)
        is_refused = any(o in (Outcome.FULL, Outcome.CONFLICT, Outcome.DRAINING) for o, _ in decided.answers)
        if all_or_none and is_refused:
            new = {submission.id for submission in decided.made}
            refused = (Outcome.CREATED, Outcome.REPLAYED, Outcome.DUPLICATE)
            decided.answers = [
                (Outcome.REFUSED if i in new and outcome in refused else outcome, i)
                for outcome, i in decided.answers
            ]
            decided.made, decided.replacing = [], {}
        for submission in decided.made:
            self._keep_keys(submission)
        for submission, (outcome, job_id) in zip(submissions, decided.answers, strict=True):
            is_done = outcome is Outcome.DUPLICATE and not (all_or_none and is_refused)
            if is_done and submission.idempotency_key:
                key = (submission.spec.tenant.scope, submission.idempotency_key)
                self.keys[key] = (job_id, submission.fingerprint)
        return decided

    def due_ms(self, time: str) -> int:
        """Read a time as submissions give it."""
        return self.world.now_ms + int(time) if time.startswith("+") else int(time or 0)

    def free_dedup_key(self, job: ModelJob) -> None:
        """A job that has ended holds its key no longer, unless that has a lifetime of its own."""
        key = (job.scope, job.submission.dedup_key)
        if self.dedup.get(key) == (job.id, None) and not job.submission.dedup_ttl_ms:
            del self.dedup[key]

    def forget_old_keys(self) -> list[Key]:
        """Forget deduplication keys whose time is over; returns them."""
        old = [key for key, (_, until) in self.dedup.items() if until and until <= self.world.now_ms]
        for key in old:
            del self.dedup[key]
        return old

    def _find_replay(
        self, submission: Submission, first_of: dict[Key, tuple[Outcome, str, str]]
    ) -> tuple[Outcome, str] | None:
        key = (submission.spec.tenant.scope, submission.idempotency_key)
        if not submission.idempotency_key:
            return None
        if key in first_of:
            outcome, holder, fingerprint = first_of[key]
            if outcome in (Outcome.FULL, Outcome.DRAINING):
                return outcome, submission.id
        elif key in self.keys and self.keys[key][0] in self.world.jobs:
            holder, fingerprint = self.keys[key]
        else:
            return None
        is_same = fingerprint == submission.fingerprint
        return Outcome.REPLAYED if is_same else Outcome.CONFLICT, holder

    def _find_twin(self, submission: Submission, decided: Decided) -> tuple[Outcome, str] | None:
        if not submission.dedup_key:
            return None
        key = (submission.spec.tenant.scope, submission.dedup_key)
        if key in decided.turned_away:
            return decided.turned_away[key], submission.id
        is_later = self.due_ms(submission.due) > self.world.now_ms
        for other in reversed(decided.made):
            if (other.spec.tenant.scope, other.dedup_key) == key:
                if submission.debounce and is_later and self.due_ms(other.due) > self.world.now_ms:
                    decided.replacing[other.id] = submission
                return Outcome.DUPLICATE, other.id
        holder = self.world.jobs.get(self.dedup.get(key, ("", None))[0])
        if holder is None or (holder.has_ended and not submission.dedup_ttl_ms):
            return None
        if submission.debounce and is_later and holder.state is JobState.SCHEDULED:
            decided.replacing[holder.id] = submission
        return Outcome.DUPLICATE, holder.id

    def _find_room(self, submission: Submission, used: dict[str, int]) -> tuple[Outcome, str]:
        queue = submission.queue
        if self.gates.states.get(queue) is QueueState.DRAINING:
            return Outcome.DRAINING, submission.id
        if self.due_ms(submission.due) > self.world.now_ms:
            line, length = "", len(self.world.in_order(JobState.SCHEDULED, JobState.RETRYING))
            most = self.max_length
        else:
            line, length = queue, len(self.world.queued(queue))
            limits = self.gates.limits.get(queue)
            most = limits.max_length if limits and limits.max_length is not None else self.max_length
        if length + used.get(line, 0) >= most:
            return Outcome.FULL, submission.id
        used[line] = used.get(line, 0) + 1
        return Outcome.CREATED, submission.id

    def _keep_keys(self, submission: Submission) -> None:
        scope = submission.spec.tenant.scope
        if submission.idempotency_key:
            self.keys[scope, submission.idempotency_key] = (submission.id, submission.fingerprint)
        if submission.dedup_key:
            until_ms = self.world.now_ms + submission.dedup_ttl_ms if submission.dedup_ttl_ms else None
            self.dedup[scope, submission.dedup_key] = (submission.id, until_ms)


def with_spec(submission: Submission, newer: Submission) -> Submission:
    """Return a submission that does what a newer one is to do."""
    return replace(submission, spec=newer.spec)
