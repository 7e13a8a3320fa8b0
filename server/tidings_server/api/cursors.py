"""Cursors of lists: where a page ended, written so that nobody takes it for more than a cursor."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from tidings.protocol import is_job_id

from .faults import invalid

__all__ = ["make_cursor", "read_cursor"]


def make_cursor(place: str) -> str:
    """Return the cursor of a page that ends at this place, such as a job's id."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, is_place: Callable[[str], object] = is_job_id) -> str:
    """Return the place at which the page before ended; nothing for the first page.

    Raises:
        InvalidInput: the text, which is untrusted, is none of our cursors.
    """
    if cursor is None:
        return ""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        place = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        place = ""
    if not is_place(place):
        raise invalid("cursor", "malformed_cursor", "Send `next_cursor` of an earlier answer, unchanged")
    return place
