"""What holds of the gates after every step: keys are held by those that run, and nobody waits for what will never happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidings.protocol import JobState

__all__ = ["check_gates"]

Families = Mapping[str, Mapping[str, Any]]
"""What is kept, by the first part of a key and the rest of it."""


def check_gates(
    families: Families, records: Mapping[str, dict[str, Any]], states: Mapping[str, JobState]
) -> None:
    """Assert that no key has more holders than it may, and that for each parked job something will open its gate."""
    running = {job_id: record for job_id, record in records.items() if states[job_id] is JobState.RUNNING}
    held = {key: {m.decode() for m in zset} for key, zset in families.get("h", {}).items()}
    expected: dict[str, set[str]] = {}
    for job_id, record in running.items():
        if "ck" in record:
            expected.setdefault(record["ck"], set()).add(job_id)
    assert held == expected, "keys are not held by those that run"
    for holders in held.values():
        assert len(holders) <= max(int(records[i]["cl"]) for i in holders)
    timers = {gate.decode() for gate in families.get("gates", {}).get("", {})}
    trials = {f"d:{record['dp']}" for record in running.values() if "dp" in record}
    for gate in families.get("p", {}):
        will_open = gate in timers or gate in held or gate in trials
        assert will_open, f"nothing opens {gate}"
