"""Errors with stable codes: one tree for the wire, the server, the worker and the SDK (RFC 9457).

TidingsError
├── BadRequest               400 bad_request
├── Unauthenticated          401 unauthenticated
│   ├── TokenExpired         401 token_expired
│   └── TokenRevoked         401 token_revoked
├── Forbidden                403 forbidden
├── NotFound                 404 not_found
│   ├── JobNotFound          404 job_not_found
│   ├── FileMissing          404 file_not_found
│   └── ScheduleMissing      404 schedule_not_found
├── MethodNotAllowed         405 method_not_allowed
├── NotAcceptable            406 not_acceptable
├── IllegalState             409 illegal_state
│   ├── IdempotencyInFlight  409 idempotency_in_flight
│   └── ScheduleConflict     409 schedule_conflict
├── PayloadTooLarge          413 payload_too_large
├── UnsupportedMediaType     415 unsupported_media_type
├── InvalidInput             422 invalid_input
│   ├── UnknownJobType       422 unknown_job_type
│   └── IdempotencyConflict  422 idempotency_conflict
├── RateLimited              429 rate_limited       (temporary)
├── QueueFull                429 queue_full         (temporary)
├── InternalError            500 internal_error
├── StoreUnavailable         503 store_unavailable  (temporary)
├── ServerDraining           503 server_draining    (temporary)
├── QueueDraining            503 queue_draining     (temporary)
├── ConnectionLost           –   connection_lost    (temporary; client side only)
└── JobFailed, JobWasCancelled   client side only: what ``result()`` raises
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BadRequest",
    "ConnectionLost",
    "FieldError",
    "FileMissing",
    "Forbidden",
    "IdempotencyConflict",
    "IdempotencyInFlight",
    "IllegalState",
    "InternalError",
    "InvalidInput",
    "JobFailed",
    "JobNotFound",
    "JobWasCancelled",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "PayloadTooLarge",
    "Problem",
    "QueueDraining",
    "QueueFull",
    "RateLimited",
    "ScheduleConflict",
    "ScheduleMissing",
    "ServerDraining",
    "StoreUnavailable",
    "TidingsError",
    "TokenExpired",
    "TokenRevoked",
    "Unauthenticated",
    "UnknownJobType",
    "UnsupportedMediaType",
    "error_from_problem",
]


class FieldError(BaseModel):
    """One thing that is wrong with a request: where, why, and how to mend it."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Dotted path of the field, such as `input.steps` or `after`.")
    code: str = Field(description="A stable word for the kind of fault, such as `missing` or `int_parsing`.")
    message: str = Field(description="The reason, and what would be accepted.")


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field(description="A URI reference that identifies the problem: `/problems/<code>`.")
    title: str
    status: int
    detail: str
    code: str = Field(description="The stable word to program against.")
    request_id: str | None = None
    errors: list[FieldError] | None = None


class TidingsError(Exception):
    """The root of all errors of Tidings.

    ``code`` is stable and meant for programs; ``str(error)`` is for people. ``temporary`` says that the same
    request may succeed later; then ``retry_after_s`` may say when.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Error"
    temporary: ClassVar[bool] = False

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def to_problem(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the problem document as a JSON-ready dict, without empty members."""
        return Problem(
            type=f"/problems/{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            request_id=request_id or self.request_id,
            errors=list(self.errors) or None,
        ).model_dump(exclude_none=True)

    def to_refusal(self) -> dict[str, Any]:
        """Return the short form that refuses a Socket.IO call (contract §5)."""
        return {"code": self.code, "status": self.status, "title": self.title, "detail": self.detail}


class BadRequest(TidingsError):
    code, status, title = "bad_request", 400, "The request could not be read"


class Unauthenticated(TidingsError):
    code, status, title = "unauthenticated", 401, "A valid token is needed"


class TokenExpired(Unauthenticated):
    code, title = "token_expired", "The token has expired"


class TokenRevoked(Unauthenticated):
    code, title = "token_revoked", "The token has been revoked"


class Forbidden(TidingsError):
    code, status, title = "forbidden", 403, "The token does not allow this"


class NotFound(TidingsError):
    code, status, title = "not_found", 404, "There is nothing here"


class JobNotFound(NotFound):
    code, title = "job_not_found", "There is no such job"


class FileMissing(NotFound):
    code, title = "file_not_found", "There is no such file"


class ScheduleMissing(NotFound):
    code, title = "schedule_not_found", "There is no such schedule"


class MethodNotAllowed(TidingsError):
    code, status, title = "method_not_allowed", 405, "This method is not allowed here"


class NotAcceptable(TidingsError):
    code, status, title = "not_acceptable", 406, "None of the accepted media types can be served"


class IllegalState(TidingsError):
    code, status, title = "illegal_state", 409, "The job's state does not allow this"


class IdempotencyInFlight(IllegalState):
    code, title = "idempotency_in_flight", "A request with this Idempotency-Key is still being handled"


class ScheduleConflict(IllegalState):
    code, title = "schedule_conflict", "The schedule does not allow this"


class PayloadTooLarge(TidingsError):
    code, status, title = "payload_too_large", 413, "The request is too large"


class UnsupportedMediaType(TidingsError):
    code, status, title = "unsupported_media_type", 415, "This media type is not supported here"


class InvalidInput(TidingsError):
    code, status, title = "invalid_input", 422, "The input is not valid"


class UnknownJobType(InvalidInput):
    code, title = "unknown_job_type", "There is no such job type"


class IdempotencyConflict(InvalidInput):
    code, title = "idempotency_conflict", "This Idempotency-Key was used with another request"


class RateLimited(TidingsError):
    code, status, title, temporary = "rate_limited", 429, "Too many requests", True


class QueueFull(TidingsError):
    code, status, title, temporary = "queue_full", 429, "The queue is full", True


class InternalError(TidingsError):
    code, status, title = "internal_error", 500, "Something went wrong on the server"


class StoreUnavailable(TidingsError):
    code, status, title, temporary = "store_unavailable", 503, "The job store cannot be reached", True


class ServerDraining(TidingsError):
    code, status, title, temporary = "server_draining", 503, "This server is shutting down", True


class QueueDraining(TidingsError):
    code, status, title, temporary = "queue_draining", 503, "The queue takes no new jobs now", True


class ConnectionLost(TidingsError):
    """The server could not be reached, or went away and did not come back in the time allowed."""

    code, status, title, temporary = "connection_lost", 0, "The server cannot be reached", True


class JobFailed(TidingsError):
    """The watched job ended as ``failed``; ``error`` is its ``{code, type, message}``."""

    code, status, title = "job_failed", 0, "The job failed"

    def __init__(self, job_id: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"job {job_id} failed: {error.get('code')}: {error.get('message')}")
        self.job_id = job_id
        self.error = dict(error)


class JobWasCancelled(TidingsError):
    """The watched job ended as ``cancelled``."""

    code, status, title = "job_cancelled", 0, "The job was cancelled"

    def __init__(self, job_id: str, reason: str | None = None) -> None:
        super().__init__(f"job {job_id} was cancelled" + (f": {reason}" if reason else ""))
        self.job_id = job_id
        self.reason = reason


def _wire_errors(root: type[TidingsError]) -> dict[str, type[TidingsError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        if (
            child.status and child.__module__ == __name__
        ):  # errors of others that subclass these keep the code, not the name
            found |= _wire_errors(child)
    return found


_BY_STATUS: dict[int, type[TidingsError]] = {
    400: BadRequest, 401: Unauthenticated, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed,
    406: NotAcceptable, 409: IllegalState, 413: PayloadTooLarge, 415: UnsupportedMediaType, 422: InvalidInput,
    429: RateLimited, 503: StoreUnavailable,
}  # fmt: skip


def error_from_problem(
    problem: Mapping[str, Any], *, status: int | None = None, retry_after_s: float | None = None
) -> TidingsError:
    """Turn a problem document or a Socket.IO refusal into the error it stands for.

    An unknown code, as a newer server may send, falls back to the error of its HTTP status. Members may be missing,
    but not ill-typed: what comes from outside goes through ``tidings.problems.read_problem``.
    """
    code = problem.get("code")
    kind = _wire_errors(TidingsError).get(code) if isinstance(code, str) else None
    if kind is None or kind is TidingsError:
        kind = _BY_STATUS.get(status or int(problem.get("status") or 500), InternalError)
    fields = [
        FieldError.model_validate({"field": "", "code": "", "message": "", **entry})
        for entry in problem.get("errors") or ()
        if isinstance(entry, Mapping)
    ]
    request_id = problem.get("request_id")
    return kind(
        str(problem.get("detail") or ""),
        errors=fields,
        retry_after_s=retry_after_s,
        request_id=request_id if isinstance(request_id, str) else None,
    )
