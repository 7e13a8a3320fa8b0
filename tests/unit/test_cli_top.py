"""What `tidings top` says of dependencies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidings.cli.top import circuit_of
from tidings.protocol.admin import Dependency

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "closed", "failures": 1}, "closed, 1 failure lately"),
        ({"state": "open", "failures": 0, "open_until": NOW + timedelta(seconds=30)}, ":30: its jobs wait"),
        ({"state": "open", "failures": 0, "open_until": NOW}, "open: the next job is a trial"),
        ({"state": "half_open", "failures": 0}, "half open: a job tries it"),
    ],
)
def test_a_circuit_says_what_its_jobs_do(fields: dict[str, object], said: str) -> None:
    """An open one until when, and that its time is over."""
    assert said in circuit_of(Dependency.model_validate({"name": "openai", **fields}), NOW)
