"""Calls about many jobs at once: submitting a batch, cancelling by filter."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from .http import Http, read_answer
from .protocol.bulk import CancelJobs, CancelledJobs, SubmittedBatch
from .protocol.models import Job, SubmitJob
from .submitting import batch_of

__all__ = ["cancel_jobs", "submit_many"]


async def submit_many(
    http: Http, jobs: Iterable[SubmitJob | Mapping[str, Any]], idempotency_key: str | None
) -> list[Job]:
    """Submit jobs under one key; see `Client.submit_many`."""
    answer = await http.call(
        "POST",
        "api/jobs/batch",
        body=batch_of(jobs),
        headers={"Idempotency-Key": idempotency_key or secrets.token_urlsafe(18)},
        repeatable=True,
    )
    return read_answer(SubmittedBatch, answer).jobs


async def cancel_jobs(http: Http, wanted: CancelJobs) -> CancelledJobs:
    """Follow the cursor to its end and add up; see `Client.cancel_jobs`."""
    total = CancelledJobs(matched=0, cancelled=0, cancelling=0, next_cursor=wanted.cursor)
    while True:
        page = wanted.model_copy(update={"cursor": total.next_cursor})
        body = page.model_dump(mode="json", exclude_defaults=True)
        # Asking twice finds fewer jobs, and harms none.
        answer = await http.call("POST", "api/jobs/cancel", body=body, repeatable=True)
        total = read_answer(CancelledJobs, answer).plus(total)
        if total.next_cursor is None:
            return total
