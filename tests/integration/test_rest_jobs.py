"""Submitting, reading, cancelling, retrying and deleting jobs over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.rest import Rest, make_settings, serve
from tidings.protocol import Job, is_job_id


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def test_a_submitted_job_is_stored_and_where_location_says(rest: Rest) -> None:
    """202 with the whole job, which can be read at once."""
    answer, made = await rest.call("POST", "/api/jobs", json={"type": "test.rows", "input": {"rows": 3}})
    assert answer.status == 202
    job = Job.model_validate(made)
    assert is_job_id(job.id)
    assert (job.status, job.queue, job.owner, job.org) == ("queued", "reports", "alice", None)
    read, body = await rest.call("GET", answer.headers["Location"])
    assert read.status == 200
    assert body == made
