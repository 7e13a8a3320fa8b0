"""Judges a run from its history alone: is every promise kept, as seen from the clients and the logs?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tidings.protocol import accepts

from .log_rules import check_log, same_event
from .reruns import Reruns, spans_of

__all__ = ["Report", "check_history"]

Entry = dict[str, Any]


@dataclass
class Report:
    """The faults, none when all is well, and what the run has measured."""

    faults: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def check_history(entries: Sequence[Entry]) -> Report:
    """Check a whole history."""
    by_what: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_what[entry["what"]].append(entry)
    report = Report()
    (run,) = by_what["run"]
    logs = {entry["job_id"]: entry for entry in by_what["log"] if entry["reading"] == 1}
    _check_submissions(by_what, report)
    for job_id, entry in logs.items():
        head = int(entry["position"].rpartition(":")[2])
        report.faults += [
            f"{job_id}: {fault}"
            for fault in check_log(entry["events"], head=head, status=entry["status"], played=entry["input"])
        ]
    _check_second_readings(by_what["log"], logs, report)
    for entry in by_what["watched"]:
        report.faults += [f"{entry['job_id']}: a watcher {fault}" for fault in _check_watch(entry, logs)]
    reruns = Reruns(run["lease_s"], run["slack"], by_what)
    for job_id, entry in logs.items():
        # One that waits for its key may be kept waiting by another job.
        if entry["concurrency_key"] is None:
            report.faults += [f"{job_id}: {fault}" for fault in reruns.check(entry["events"])]
    _check_concurrency_keys(logs, report)
    report.figures |= {
        "jobs": len(logs),
        "ends": dict(Counter(entry["status"] for entry in logs.values())),
        "worker kills": len(by_what["worker_killed"]),
        "kills left out, since no worker took jobs": len(by_what["nobody_to_kill"]),
        "worker freezes": len(by_what["worker_frozen"]),
        "store kills": len(by_what["store_killed"]),
        "submissions without an answer": sum(entry["status"] == 0 for entry in by_what["answer"]),
        "watchers": len(by_what["watched"]),
    } | reruns.figures
    return report


def _check_submissions(by_what: dict[str, list[Entry]], report: Report) -> None:
    """Exactly one job is stored for each key that was accepted, and none for any other."""
    accepted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in by_what["answer"]:
        name = (entry["owner"], entry["key"])
        if entry["status"] == 202:
            accepted[name].add(entry["job_id"])
        elif entry["status"] not in (0, 409, 429, 500, 502, 503, 504):
            report.faults.append(f"{name} was refused with {entry['status']}")
    stored: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in by_what["stored"]:
        stored[entry["owner"], entry["key"]].add(entry["job_id"])
    for entry in by_what["given_up"]:
        report.faults.append(f"{entry['owner'], entry['key']} got no answer that counts")
    for name, ids in accepted.items():
        if len(ids) > 1:
            report.faults.append(f"{name} was accepted as several jobs: {sorted(ids)}")
        if stored[name] != ids:
            report.faults.append(
                f"{name} was accepted as {sorted(ids)}, but stored are {sorted(stored[name])}"
            )
    report.faults += [f"{name} is stored and was not accepted" for name in stored if name not in accepted]
    read = {entry["job_id"] for entry in by_what["log"]}
    missing = {job_id for ids in accepted.values() for job_id in ids} - read
    report.faults += [f"{job_id}: accepted, and its log was not found" for job_id in sorted(missing)]


def _check_second_readings(readings: Sequence[Entry], logs: dict[str, Entry], report: Report) -> None:
    for entry in readings:
        if entry["reading"] == 2 and entry["events"] != logs[entry["job_id"]]["events"]:
            report.faults.append(f"{entry['job_id']}: its log changed after it had ended")


def _check_concurrency_keys(logs: dict[str, Entry], report: Report) -> None:
    """At most one job of an owner's key runs at once; one whose worker is lost counts until the store says so."""
    runs: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
    for job_id, entry in logs.items():
        if entry["concurrency_key"] is not None:
            spans = [(begin, end, job_id) for begin, end in spans_of(entry["events"])]
            runs[entry["owner"], entry["concurrency_key"]] += spans
    for key, spans in runs.items():
        spans.sort()
        for (_, end, one), (begin, _, other) in pairwise(spans):
            if begin < end:
                report.faults.append(f"{one} and {other} ran at once, though they share the key {key}")
    report.figures["runs under a concurrency key"] = sum(len(spans) for spans in runs.values())


def _check_watch(entry: Entry, logs: dict[str, Entry]) -> list[str]:
    if entry["reset"]:
        return ["was told that history had changed, though the store keeps what it acknowledges"]
    faults, at = [], 0
    logged = {event["seq"]: event for event in logs[entry["job_id"]]["events"]}
    for event in entry["events"]:
        if not accepts(at, seq=event["seq"], prev=event.get("prev")):
            faults.append(f"at {at} was given {event['seq']} (prev {event.get('prev')})")
        at = event["seq"]
        # What is not in the log any more was progress, folded into a later one.
        if at not in logged and event["kind"] != "progress":
            faults.append(f"was given {event['kind']} {at}, which is not in the log")
        if at in logged and not same_event(event, logged[at]):
            faults.append(f"was given another event {at} than is in the log")
    if not entry["done"]:
        faults.append(f"was not shown the end, only up to {at}")
    return faults
