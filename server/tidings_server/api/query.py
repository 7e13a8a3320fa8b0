"""Query strings against a model: lists may be repeated or written with commas, all else is given once."""

from __future__ import annotations

from typing import Any, TypeVar, get_origin

from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from tidings.protocol.errors import FieldError

from .faults import field_errors, invalid_fields

__all__ = ["parse_query"]

Q = TypeVar("Q", bound=BaseModel)


def parse_query(query: MultiMapping[str], model: type[Q]) -> Q:
    """Validate an untrusted query.

    Raises:
        InvalidInput: an unknown parameter, one given twice, or a value that is not accepted.
    """
    values: dict[str, Any] = {}
    twice: list[FieldError] = []
    for name in dict.fromkeys(query):
        given = query.getall(name)
        known = model.model_fields.get(name)
        if known is not None and get_origin(known.annotation) is list:
            values[name] = [word.strip() for text in given for word in text.split(",") if word.strip()]
        elif len(given) > 1:
            twice.append(FieldError(field=name, code="given_twice", message="Give this parameter once"))
        else:
            values[name] = given[0]
    if twice:
        raise invalid_fields(twice)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A parameter is named as it was sent, without the place in its list.
        entries = [
            entry.model_copy(update={"field": entry.field.partition(".")[0]})
            for entry in field_errors(error, model)
        ]
        raise invalid_fields(entries) from error
