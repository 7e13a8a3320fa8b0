"""Socket.IO calls as they come in: fields checked, refusals made."""

from __future__ import annotations

from typing import Any

from tidings.protocol import Position
from tidings.protocol.errors import FieldError, InvalidInput, TidingsError

__all__ = ["invalid", "only_fields", "position", "refusal"]


def refusal(error: TidingsError) -> dict[str, Any]:
    """Make the acknowledgement that refuses a call."""
    refusal = error.to_refusal()
    if error.errors:
        refusal["errors"] = [entry.model_dump() for entry in error.errors]
    return {"ok": False, "error": refusal}


def invalid(field: str, message: str) -> InvalidInput:
    """Make the error for one field."""
    return InvalidInput(
        f"{field}: {message}", errors=[FieldError(field=field, code="invalid", message=message)]
    )


def only_fields(body: dict[str, Any], known: set[str]) -> None:
    """Refuse fields that the call does not have."""
    for name in body:
        if name not in known:
            raise invalid(str(name)[:64], f"unknown field; known are {', '.join(sorted(known))}")


def position(text: Any) -> Position | None:
    """Read an optional position; None when it was left out."""
    if text is None:
        return None
    try:
        return Position.parse(text)
    except (ValueError, TypeError):
        raise invalid(
            "after", "a position looks like 'k3f9:7', as an earlier answer gave it, or '0'"
        ) from None
