"""Bodies of the calls that submit and change jobs, checked before they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .protocol.bulk import SubmitBatch
from .protocol.errors import FieldError, InvalidInput
from .protocol.models import ChangeJob, Dedup, SubmitJob

__all__ = ["batch_of", "body_of", "change_of"]

B = TypeVar("B", bound=BaseModel)


def body_of(
    type: str,
    input: Mapping[str, Any] | BaseModel | None,
    *,
    tags: Sequence[str],
    metadata: Mapping[str, Any] | None,
    dedup_key: str | None,
    dedup_ttl_s: float | None,
    debounce: bool,
    **options: Any,
) -> dict[str, Any]:
    """Make the body of `POST /api/jobs`; ``options`` are fields of `SubmitJob` as they are.

    Raises:
        InvalidInput: with one entry a field.
    """
    given = input.model_dump(mode="json") if isinstance(input, BaseModel) else dict(input or {})
    dedup = _dedup(dedup_key, dedup_ttl_s, debounce)
    return _sent(
        SubmitJob,
        options
        | {
            "type": type,
            "input": given,
            "tags": list(tags),
            "metadata": dict(metadata or {}),
            "dedup": dedup,
        },
    )


def batch_of(jobs: Iterable[SubmitJob | Mapping[str, Any]]) -> dict[str, Any]:
    """Make the body of `POST /api/jobs/batch`. Raises as `body_of` does."""
    return _sent(SubmitBatch, {"jobs": list(jobs)})


def change_of(*, priority: int | None, run_at: datetime | None, delay_s: float | None) -> dict[str, Any]:
    """Make the body of `PATCH /api/jobs/{id}`. Raises as `body_of` does."""
    return _sent(ChangeJob, {"priority": priority, "run_at": run_at, "delay_s": delay_s})


def _dedup(key: str | None, ttl_s: float | None, debounce: bool) -> Dedup | None:
    if key is not None:
        fields = {"key": key, "ttl_s": ttl_s, "mode": "debounce" if debounce else "drop"}
        return _checked(Dedup, fields, "dedup.")
    if ttl_s is not None or debounce:
        message = "is needed with dedup_ttl_s and debounce"
        raise InvalidInput(
            f"dedup.key: {message}", errors=[FieldError(field="dedup.key", code="missing", message=message)]
        )
    return None


def _sent(model: type[B], fields: Mapping[str, Any]) -> dict[str, Any]:
    return _checked(model, fields).model_dump(mode="json", exclude_defaults=True)


def _checked(model: type[B], fields: Mapping[str, Any], prefix: str = "") -> B:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error, prefix) from error


def _invalid(error: ValidationError, prefix: str) -> InvalidInput:
    faults = [
        FieldError(
            field=prefix + (".".join(map(str, fault["loc"])) or "job"),
            code=fault["type"],
            message=fault["msg"].removeprefix("Value error, "),
        )
        for fault in error.errors(include_url=False, include_input=False)
    ]
    return InvalidInput("; ".join(f"{fault.field}: {fault.message}" for fault in faults), errors=faults)
