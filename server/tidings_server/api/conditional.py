"""Weak ETags over positions, and the requests that carry them (RFC 9110 §13)."""

from __future__ import annotations

import re

__all__ = ["etag_of", "matches"]

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def etag_of(position: str) -> str:
    """Return the weak validator of a state that is fully named by its position."""
    return f'W/"{position}"'


def matches(if_none_match: list[str], position: str) -> bool:
    """Tell whether the ``If-None-Match`` fields name this position, by weak comparison; ``*`` names any."""
    return any(field.strip() == "*" or position in _TAG.findall(field) for field in if_none_match)
