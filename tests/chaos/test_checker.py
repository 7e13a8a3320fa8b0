"""The checker finds what is planted: events dropped, repeated, swapped, late or of an old attempt, and jobs lost or doubled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from .checker import check_history

Entry = dict[str, Any]

_JOB = "01JABCDEFGHJKMNPQRSTVWXYZ0s0"
_LEASE_S = 6


def at(seconds: float) -> str:
    return f"2026-11-25T10:00:{seconds:06.3f}Z"


def ms(seconds: float) -> int:
    return 1_795_600_800_000 + round(seconds * 1000)


def event(seq: int, kind: str, attempt: int, seconds: float, /, **data: Any) -> Entry:
    return {
        "job_id": _JOB, "epoch": "e1", "seq": seq, "kind": kind, "at": at(seconds), "attempt": attempt, "data": data,
    }  # fmt: skip


def make_log() -> list[Entry]:
    """A job whose first worker is killed at 2 s."""
    lost = {"code": "worker_lost", "type": "WorkerLost", "message": "gone"}
    log = [
        event(1, "queued", 0, 1, queue="chaos", priority=3),
        event(2, "started", 1, 1.1, worker="w1", attempt=1),
        event(3, "output", 1, 1.2, chunk={"attempt": 1, "n": 1}),
        event(4, "retrying", 1, 8.3, error=lost, delay_s=0, next_attempt=2),
        event(5, "queued", 1, 8.3, queue="chaos", priority=3),
        event(6, "started", 2, 8.4, worker="w2", attempt=2),
        event(7, "output", 2, 8.5, chunk={"attempt": 2, "n": 1}),
        event(9, "progress", 2, 8.7, current=2, meta={"attempt": 2}),
        event(10, "output", 2, 8.8, chunk={"attempt": 2, "n": 2}),
        event(11, "completed", 2, 8.9, result={"attempt": 2, "n": 2}, duration_s=0.5),
    ]
    log[7]["prev"] = 7
    return log


def make_history() -> list[Entry]:
    """A run in which all promises are kept."""
    read = {
        "job_id": _JOB, "events": make_log(), "status": "completed", "position": "e1:11", "input": {"steps": 2},
        "owner": "alice", "concurrency_key": None,
    }  # fmt: skip
    watched = make_log()
    watched.insert(7, event(8, "progress", 2, 8.6, current=1, meta={"attempt": 2}))
    del watched[8]["prev"]
    return [
        {"what": "run", "at_ms": ms(0), "seed": 1, "lease_s": _LEASE_S, "slack": 1},
        {"what": "answer", "key": "k1", "owner": "alice", "status": 0, "job_id": None},
        {"what": "answer", "key": "k1", "owner": "alice", "status": 202, "job_id": _JOB},
        {"what": "worker_ready", "worker": "w1", "at_ms": ms(0)},
        {"what": "worker_ready", "worker": "w2", "at_ms": ms(0)},
        {"what": "worker_killed", "worker": "w1", "killed_ms": ms(2)},
        {"what": "stored", "job_id": _JOB, "owner": "alice", "key": "k1"},
        {"what": "log", "reading": 1} | read,
        {"what": "log", "reading": 2} | copy.deepcopy(read),
        {"what": "watched", "job_id": _JOB, "events": watched, "reset": False, "done": True},
    ]


def entry_of(history: list[Entry], what: str) -> Entry:
    return next(entry for entry in history if entry["what"] == what)


def in_log(change: Callable[[list[Entry]], None]) -> Callable[[list[Entry]], None]:
    """Plant a fault into both readings of the log, and leave the watcher alone."""

    def plant(history: list[Entry]) -> None:
        for entry in history:
            if entry["what"] == "log":
                change(entry["events"])

    return plant


def in_watch(change: Callable[[list[Entry]], None]) -> Callable[[list[Entry]], None]:
    return lambda history: change(entry_of(history, "watched")["events"])


def drop(log: list[Entry]) -> None:
    del log[6]


def drop_end(log: list[Entry]) -> None:
    del log[-1]


def repeat(log: list[Entry]) -> None:
    log.insert(3, log[2])


def swap(log: list[Entry]) -> None:
    log[6], log[7] = log[7], log[6]


def add_late(log: list[Entry]) -> None:
    log.append(event(12, "output", 2, 9, chunk={"attempt": 2, "n": 3}))


def end_twice(log: list[Entry]) -> None:
    log.append(log[-1] | {"seq": 12})


def stamp_stale(log: list[Entry]) -> None:
    log[8]["attempt"] = 1


def write_stale(log: list[Entry]) -> None:
    log[8]["data"]["chunk"]["attempt"] = 1


def stale_progress(log: list[Entry]) -> None:
    log[7]["data"]["meta"]["attempt"] = 1


def stale_result(log: list[Entry]) -> None:
    log[-1]["data"]["result"]["attempt"] = 1


def fail_early(log: list[Entry]) -> None:
    error = {"code": "timeout", "type": "JobTimedOut", "message": "too slow"}
    log[-1] |= {"kind": "failed", "data": {"error": error, "duration_s": 0.5, "dead": True}}


def restart_silently(log: list[Entry]) -> None:
    log[5]["attempt"] = log[5]["data"]["attempt"] = 1


def skip_output(log: list[Entry]) -> None:
    log[8]["data"]["chunk"]["n"] = 3


def go_back_in_time(log: list[Entry]) -> None:
    log[4]["at"] = at(7)


def alter(log: list[Entry]) -> None:
    log[0]["data"]["priority"] = 1


def rerun_late(history: list[Entry]) -> None:
    for entry in history:
        for late in entry.get("events", ())[3:]:
            late["at"] = at(float(late["at"][17:-1]) + 4)


def store_job_twice(history: list[Entry]) -> None:
    history.append(entry_of(history, "stored") | {"job_id": "01JABCDEFGHJKMNPQRSTVWXYZ1s0"})


def accept_twice(history: list[Entry]) -> None:
    history.append(entry_of(history, "answer") | {"status": 202, "job_id": "01JABCDEFGHJKMNPQRSTVWXYZ1s0"})


def lose_job(history: list[Entry]) -> None:
    history[:] = [entry for entry in history if entry["what"] not in ("stored", "log", "watched")]


def store_unasked(history: list[Entry]) -> None:
    history.append(entry_of(history, "stored") | {"key": "k2"})


def refuse(history: list[Entry]) -> None:
    entry_of(history, "answer")["status"] = 422


def write_after_reading(history: list[Entry]) -> None:
    add_late([entry for entry in history if entry["what"] == "log"][1]["events"])


def tell_reset(history: list[Entry]) -> None:
    entry_of(history, "watched")["reset"] = True


def hide_end(history: list[Entry]) -> None:
    entry_of(history, "watched")["done"] = False


def run_two_of_a_key(history: list[Entry]) -> None:
    logs = [entry for entry in history if entry["what"] == "log"]
    for entry in logs:
        entry["concurrency_key"] = "one"
    other = "01JABCDEFGHJKMNPQRSTVWXYZ1s0"
    history += [copy.deepcopy(entry) | {"job_id": other} for entry in logs]
    history.append(entry_of(history, "stored") | {"job_id": other, "key": "k2"})
    history.append(entry_of(history, "answer") | {"status": 202, "job_id": other, "key": "k2"})


def move_head(history: list[Entry]) -> None:
    entry_of(history, "log")["position"] = "e1:12"


PLANTED: list[tuple[Callable[[list[Entry]], None], str]] = [
    (in_log(drop), "does not follow"),
    (in_log(drop_end), "it has no end"),
    (in_log(repeat), "does not follow"),
    (in_log(swap), "does not follow"),
    (in_log(add_late), "comes after the end"),
    (in_log(end_twice), "comes after the end"),
    (in_log(stamp_stale), "is of attempt 1, while 2"),
    (in_log(write_stale), "was written by attempt 1, while 2"),
    (in_log(stale_progress), "was written by attempt 1, while 2"),
    (in_log(stale_result), "is not that of attempt 2"),
    (in_log(fail_early), "it failed with"),
    (in_log(restart_silently), "is attempt 1, after 1"),
    (in_log(skip_output), "the attempt's 3th, after its 1th"),
    (in_log(go_back_in_time), "before"),
    (in_watch(drop), "at 6 was given 8"),
    (in_watch(repeat), "at 3 was given 3"),
    (in_watch(swap), "at 6 was given 8"),
    (in_watch(add_late), "which is not in the log"),
    (in_watch(alter), "another event 1"),
    (rerun_late, "10.4 s after the worker's death, 10.0 s are allowed"),
    (store_job_twice, "but stored are"),
    (accept_twice, "several jobs"),
    (lose_job, "but stored are []"),
    (store_unasked, "was not accepted"),
    (refuse, "refused with 422"),
    (write_after_reading, "changed after it had ended"),
    (tell_reset, "told that history had changed"),
    (hide_end, "was not shown the end"),
    (move_head, "head is 12"),
    (run_two_of_a_key, "ran at once"),
]


def test_a_good_history_has_no_fault() -> None:
    """Retries, folded progress, and a watcher that saw what was folded later: all as promised."""
    report = check_history(make_history())
    assert report.faults == []
    assert report.figures["re-runs after a worker's death"] == 1
    assert report.figures["slowest of them (s)"] == 6.4


@pytest.mark.parametrize(("plant", "told"), PLANTED, ids=[told for _, told in PLANTED])
def test_a_planted_fault_is_found(plant: Callable[[list[Entry]], None], told: str) -> None:
    """Each breach of a promise is told."""
    history = make_history()
    plant(history)
    faults = check_history(history).faults
    assert any(told in fault for fault in faults), faults


def test_the_death_of_the_store_gives_more_time() -> None:
    """Two leases and 5 s from the store's death, when it died before the job could run again; no more than that."""
    history = make_history()
    rerun_late(history)
    history.append({"what": "store_killed", "killed_ms": ms(3), "back_ms": ms(3.5)})
    report = check_history(history)
    assert report.faults == []
    assert report.figures["slowest of those, from the store's death (s)"] == 9.4
    history[-1] = {"what": "store_killed", "killed_ms": ms(-9), "back_ms": ms(-8.9)}
    assert any("s are allowed" in fault for fault in check_history(history).faults)


def test_a_time_without_any_worker_does_not_count() -> None:
    """Nobody can run a job while all workers are still starting; once one takes jobs, the time goes on."""
    history = make_history()
    rerun_late(history)
    second = [entry for entry in history if entry["what"] == "worker_ready"][1]
    second["at_ms"] = ms(3)
    report = check_history(history)
    assert report.faults == []
    assert report.figures["slowest of them (s)"] == 9.4
    assert report.figures["longest of these times without any worker, not counted (s)"] == 1
    history.append({"what": "store_killed", "killed_ms": ms(12.2), "back_ms": ms(12.3)})
    assert check_history(history).figures["re-runs that the store's death delayed"] == 1
    del history[-1]
    second["at_ms"] = ms(2.2)
    assert any("10.2 s after the worker's death, 10.0 s" in fault for fault in check_history(history).faults)
