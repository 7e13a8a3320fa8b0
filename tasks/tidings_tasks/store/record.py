"""A job as the store keeps it, and its view as the contract's ``Job`` and ``JobStatus``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from tidings.protocol import JobState, Position

from .flow_plan import step_id
from .keys import Tenant

__all__ = ["RESULT_INLINE_MAX_BYTES", "JobRecord", "Spec", "iso_time"]

RESULT_INLINE_MAX_BYTES = 65_536
"""Larger results are referred to, not embedded; the same number stands in ``lua/prelude.lua``."""


def iso_time(ms: int) -> str:
    """Format store time (ms since the Unix epoch) as events do: UTC, milliseconds, ``Z``."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Spec:
    """What never changes of a job: decided at submission, kept as one JSON text.

    ``input`` is the job type's input; for a plain Dramatiq actor it is ``{"args": [...], "kwargs": {...},
    "options": {...}}`` and ``is_plain_actor`` is true.
    """

    type: str
    owner: str
    org: str | None
    input: Any
    timeout_s: float
    max_attempts: int
    backoff_s: tuple[float, ...]
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None
    retry_of: str | None = None
    is_plain_actor: bool = False
    step: str | None = None
    """Its name, for a step of a flow."""
    needs: Mapping[str, str] | None = None
    """The jobs whose results its input refers to, by the name of the reference."""
    _text: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def tenant(self) -> Tenant:
        """Whose the job is."""
        return Tenant(self.owner, self.org)

    def to_json(self) -> bytes:
        """Encode for the store; empty members are left out, since a million queued jobs carry this text.

        Made once: whoever checks, measures and stores a job asks for it.
        """
        if self._text is None:
            object.__setattr__(self, "_text", self._encode())
        assert self._text is not None
        return self._text

    def _encode(self) -> bytes:
        body: dict[str, Any] = {
            "type": self.type,
            "owner": self.owner,
            "input": self.input,
            "timeout_s": self.timeout_s,
            "max_attempts": self.max_attempts,
            "backoff_s": self.backoff_s,
        }
        for name in ("org", "tags", "metadata", "retry_of", "step", "needs"):
            if value := getattr(self, name):
                body[name] = value
        if self.is_plain_actor:
            body["plain"] = True
        return orjson.dumps(body)

    @classmethod
    def from_json(cls, text: bytes) -> Spec:
        """Decode what ``to_json`` made."""
        body = orjson.loads(text)
        return cls(
            type=body["type"],
            owner=body["owner"],
            org=body.get("org"),
            input=body["input"],
            timeout_s=body["timeout_s"],
            max_attempts=body["max_attempts"],
            backoff_s=tuple(body["backoff_s"]),
            tags=tuple(body.get("tags", ())),
            metadata=body.get("metadata"),
            retry_of=body.get("retry_of"),
            is_plain_actor=body.get("plain", False),
            step=body.get("step"),
            needs=body.get("needs"),
        )


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job at one moment. ``progress``, ``result`` and ``error`` are undecoded JSON. Times are store ms."""

    id: str
    spec: Spec
    state: JobState
    queue: str
    priority: int
    epoch: str
    head: int
    attempt: int
    tries: int
    created_ms: int
    updated_ms: int
    due_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    worker: str | None
    cancel_requested: bool
    queue_place: int | None
    progress: bytes | None
    result: bytes | None
    error: bytes | None
    waiting_for: str | None = None
    """What keeps a queued job back besides its turn: paused, rate_limit, concurrency or circuit_open."""
    expires_ms: int | None = None
    concurrency_key: str | None = None
    fingerprint: str | None = None
    """Of the error of a dead letter: those with the same one failed alike."""
    usage: bytes | None = None
    """What the last attempt used, JSON."""
    stack: str | None = None
    """The traceback of a dead letter; for admins alone."""
    parent: str | None = None
    """The flow that it is a step of."""
    step_count: int = 0
    """How many steps it has, being a flow; their ids are made from that of ``steps_from``."""
    steps_from: str = ""

    @property
    def tenant(self) -> Tenant:
        """Whose the job is."""
        return self.spec.tenant

    @property
    def position(self) -> str:
        """The position of a receiver that knows this record."""
        return str(Position(self.epoch, self.head))

    @property
    def step_ids(self) -> list[str]:
        """Of a flow: the ids of its steps, in order; not all of them need be jobs."""
        return [step_id(self.steps_from, number) for number in range(1, self.step_count + 1)]

    @classmethod
    def from_parts(cls, parts: Sequence[Any]) -> JobRecord:
        """Read what the scripts' ``parts`` returned: id, record, spec, extras, place, reason to wait."""
        job_id, record, spec, extras, place, reason = parts
        fields: dict[bytes, Any] = dict(zip(record[::2], record[1::2], strict=True))
        extra: dict[bytes, bytes] = dict(zip(extras[::2], extras[1::2], strict=True))
        return cls(
            id=job_id.decode(),
            spec=Spec.from_json(spec),
            state=JobState(fields[b"s"].decode()),
            queue=fields[b"q"].decode(),
            priority=fields[b"p"],
            epoch=fields[b"e"].decode(),
            head=fields[b"n"],
            attempt=fields.get(b"a", 0),
            tries=fields.get(b"t", 0),
            created_ms=fields[b"c"],
            updated_ms=fields.get(b"u", fields[b"c"]),
            due_ms=fields.get(b"d"),
            started_ms=fields.get(b"st"),
            finished_ms=fields.get(b"f"),
            worker=fields[b"wk"].decode() if b"wk" in fields else None,
            cancel_requested=b"cb" in fields,
            queue_place=None if place < 0 else int(place) + 1,
            progress=extra.get(b"p"),
            result=extra.get(b"r"),
            error=extra.get(b"er"),
            waiting_for=reason.decode() or None,
            expires_ms=fields.get(b"x"),
            concurrency_key=fields[b"ck"].decode().split(":", 2)[2] if b"ck" in fields else None,
            fingerprint=fields[b"fp"].decode().partition(":")[0] if b"fp" in fields else None,
            usage=fields.get(b"us"),
            stack=extra[b"st"].decode("utf-8", "replace") if b"st" in extra else None,
            parent=fields[b"pa"].decode() if b"pa" in fields else None,
            step_count=fields.get(b"fl", 0),
            steps_from=fields.get(b"fb", job_id).decode(),
        )

    def status_view(self) -> dict[str, Any]:
        """The contract's compact ``JobStatus``, ready for orjson."""
        return {
            "id": self.id,
            "type": self.spec.type,
            "status": self.state.value,
            "progress": None if self.progress is None else orjson.Fragment(self.progress),
            "attempt": self.attempt,
            "position": self.position,
            "queue_position": self.queue_place,
            "eta_s": None,
            "slow": False,
            "waiting_for": self.waiting_for,
            "updated_at": iso_time(self.updated_ms),
        }

    def view(self) -> dict[str, Any]:
        """The contract's whole ``Job``, ready for orjson; result and error are passed through undecoded."""
        spec = self.spec
        inline = self.result is not None and len(self.result) <= RESULT_INLINE_MAX_BYTES
        too_big = self.result is not None and not inline
        show_error = self.error is not None and self.state in (JobState.FAILED, JobState.RETRYING)
        return self.status_view() | {
            "queue": self.queue,
            "priority": self.priority,
            "owner": spec.owner,
            "org": spec.org,
            "input": spec.input,
            "result": orjson.Fragment(self.result) if inline and self.result is not None else None,
            "result_ref": f"/api/jobs/{self.id}/result" if too_big else None,
            "error": orjson.Fragment(self.error) if show_error and self.error is not None else None,
            "tries": self.tries,
            "max_attempts": spec.max_attempts,
            "timeout_s": spec.timeout_s,
            "tags": list(spec.tags),
            "metadata": spec.metadata or {},
            "retry_of": spec.retry_of,
            "concurrency_key": self.concurrency_key,
            "expires_at": None if self.expires_ms is None else iso_time(self.expires_ms),
            "usage": None if self.usage is None else orjson.Fragment(self.usage),
            "parent": self.parent,
            "step": spec.step,
            "worker": self.worker,
            "cancel_requested": self.cancel_requested,
            "created_at": iso_time(self.created_ms),
            "run_at": None if self.due_ms is None else iso_time(self.due_ms),
            "started_at": None if self.started_ms is None else iso_time(self.started_ms),
            "finished_at": None if self.finished_ms is None else iso_time(self.finished_ms),
        }
