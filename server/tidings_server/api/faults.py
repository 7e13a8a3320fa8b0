"""What is wrong with a request, field by field: pydantic's findings in the words of the contract."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tidings.protocol.errors import FieldError, InvalidInput

__all__ = ["field_errors", "invalid", "invalid_fields"]

_MAX_ERRORS = 50
_MAX_FIELD_CHARS = 200


def field_errors(error: ValidationError, model: type[BaseModel]) -> list[FieldError]:
    """Return one entry for each finding, at most 50: dotted path, stable code, reason and what is accepted."""
    found = error.errors(include_url=False, include_input=False, include_context=True)
    return [_entry(details, model) for details in found[:_MAX_ERRORS]]


def invalid_fields(entries: Iterable[FieldError]) -> InvalidInput:
    """Make the error for these entries. Its detail tells the first of them."""
    listed = list(entries)
    more = f" (and {len(listed) - 1} more)" if len(listed) > 1 else ""
    first = listed[0]
    return InvalidInput(f"{first.field}: {first.message}{more}", errors=listed)


def invalid(field: str, code: str, message: str) -> InvalidInput:
    """Make the error for a single field."""
    return invalid_fields([FieldError(field=field, code=code, message=message)])


def _entry(details: ErrorDetails, model: type[BaseModel]) -> FieldError:
    path = ".".join(str(part) for part in details["loc"])[:_MAX_FIELD_CHARS]
    code, message = details["type"], details["msg"].removeprefix("Value error, ")
    if code == "extra_forbidden":
        message = _unknown(str(details["loc"][-1]), model, nested=len(details["loc"]) > 1)
    elif code == "missing":
        message = "This field is required"
    elif code == "string_pattern_mismatch":
        message = f"Must match the pattern {details.get('ctx', {}).get('pattern')}"
    if not path and (named := message.partition(": "))[0] in model.model_fields:
        path, message = named[0], named[2]  # a check of the whole that blames one field
    return FieldError(field=path or "body", code=code, message=message)


def _unknown(name: str, model: type[BaseModel], *, nested: bool) -> str:
    if nested:
        return "Unknown field; remove it"
    known = list(model.model_fields)
    near = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"Unknown field{hint} Known are: {', '.join(known) or 'none'}"
