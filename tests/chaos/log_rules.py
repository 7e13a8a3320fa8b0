"""The rules that a whole log keeps: nothing missing, one end, legal steps, and no word of an attempt that is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["TERMINAL", "check_log", "same_event"]

Event = dict[str, Any]

TERMINAL = frozenset({"completed", "failed", "cancelled"})
_WRITES = frozenset({"progress", "log", "output"})
# kind -> the kinds of the lifecycle event before it
_FOLLOWS: dict[str, set[str | None]] = {
    "scheduled": {None},
    "queued": {None, "scheduled", "retrying", "started", "queued"},
    "started": {"queued"},
    "retrying": {"started", "cancelling"},
    "cancelling": {"started"},
    "completed": {"started", "cancelling"},
    "failed": {"started", "cancelling", "queued", "scheduled", "retrying"},
    "cancelled": {"cancelling", "queued", "scheduled", "retrying"},
}


def same_event(one: Event, other: Event) -> bool:
    """Whether two copies are of the same event: they may differ in ``prev`` alone."""
    return {**one, "prev": None} == {**other, "prev": None}


def check_log(events: Sequence[Event], *, head: int, status: str, played: dict[str, Any]) -> list[str]:
    """Return the faults of a log, read from its first event on.

    Args:
        head: where the job says that its log ends.
        status: the job's state.
        played: the input, which says how many outputs a whole run has.
    """
    faults: list[str] = []
    at = attempt = 0
    before: str | None = None
    written = 0  # by this attempt
    newest = ""
    for event in events:
        seq, kind = event["seq"], event["kind"]
        low = event.get("prev") if event.get("prev") is not None else seq - 1
        if low != at or seq <= low:
            faults.append(f"({low}, {seq}] of {kind} does not follow on {at}")
        at = seq
        if before in TERMINAL:
            faults.append(f"{kind} {seq} comes after the end, {before}")
        if event["at"] < newest:
            faults.append(f"{kind} {seq} is from {event['at']}, before {newest}")
        newest = max(newest, event["at"])
        if kind == "started":
            if event["attempt"] != attempt + 1 or event["data"]["attempt"] != attempt + 1:
                faults.append(f"started {seq} is attempt {event['attempt']}, after {attempt}")
            attempt, written = event["attempt"], 0
        elif event["attempt"] != attempt:
            faults.append(f"{kind} {seq} is of attempt {event['attempt']}, while {attempt} is the newest")
        if kind in _WRITES:
            if before not in ("started", "cancelling"):
                faults.append(f"{kind} {seq} was written after {before}")
            faults += _check_writer(event, attempt, written)
            written = event["data"]["chunk"]["n"] if kind == "output" else written
            continue
        if before not in _FOLLOWS.get(kind, set()):
            faults.append(f"{kind} {seq} comes after {before}")
        before = kind
        if kind == "failed" and event["data"]["error"]["code"] != "worker_lost":
            faults.append(
                f"it failed with {event['data']['error']}; only the third lost worker may end it so"
            )
        if kind == "completed":
            result = event["data"]["result"]
            if result != {"attempt": attempt, "n": played["steps"]}:
                faults.append(f"the result {result} is not that of attempt {attempt}")
            if written != played["steps"]:
                faults.append(f"completed after {written} outputs of {played['steps']}")
    if before not in TERMINAL:
        faults.append(f"it has no end; the last is {before}")
    elif before != status:
        faults.append(f"the log ends with {before}, the job is {status}")
    if at != head:
        faults.append(f"the log ends at {at}, the job's head is {head}")
    return faults


def _check_writer(event: Event, attempt: int, written: int) -> list[str]:
    """What a job writes tells its attempt, whatever the envelope says; its outputs are numbered."""
    data, seq = event["data"], event["seq"]
    if event["kind"] == "output":
        chunk = data["chunk"]
        if chunk["attempt"] != attempt:
            return [f"output {seq} was written by attempt {chunk['attempt']}, while {attempt} is the newest"]
        if chunk["n"] != written + 1:
            return [f"output {seq} is the attempt's {chunk['n']}th, after its {written}th"]
    if event["kind"] == "progress" and data["meta"]["attempt"] != attempt:
        return [
            f"progress {seq} was written by attempt {data['meta']['attempt']}, while {attempt} is the newest"
        ]
    return []
