"""Cursors of lists: where a page ended, written so that nobody takes it for more than a cursor."""

from __future__ import annotations

import base64
import binascii

from tidings.protocol import is_job_id

from .faults import invalid

__all__ = ["make_cursor", "read_cursor"]


def make_cursor(job_id: str) -> str:
    """Return the cursor of a page that ends with this job."""
    return base64.urlsafe_b64encode(job_id.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str:
    """Return the id of the job that the page before ended with; nothing for the first page.

    Raises:
        InvalidInput: the text, which is untrusted, is none of our cursors.
    """
    if cursor is None:
        return ""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        job_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        job_id = ""
    if not is_job_id(job_id):
        raise invalid("cursor", "malformed_cursor", "Send `next_cursor` of an earlier answer, unchanged")
    return job_id
