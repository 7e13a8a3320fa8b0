"""How soon a job runs again after the death of its worker or of the store, measured in the store's own time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .log_rules import TERMINAL
from .presence import Presence

__all__ = ["Reruns", "at_ms", "spans_of"]

_AFTER_WORKER_S = 4.0
_AFTER_STORE_S = 5.0
_NAME = re.compile(r"chaos-\d+-\d+")
_ENDS = TERMINAL | {"retrying", "queued"}


def at_ms(event: Mapping[str, Any]) -> int:
    """When an event was, ms."""
    return round(datetime.fromisoformat(event["at"]).timestamp() * 1000)


def spans_of(events: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """From when to when each attempt of a log ran, ms."""
    spans, begin = [], None
    for event in events:
        if event["kind"] == "started":
            begin = at_ms(event)
        elif event["kind"] in _ENDS and begin is not None:
            spans.append((begin, at_ms(event)))
            begin = None
    return spans


class Reruns:
    """Checks one log after the other; ``figures`` has the slowest.

    Args:
        slack: how many times as long as promised may the parts take that are not a lease; 1 on a machine that is not busy.
    """

    def __init__(
        self, lease_s: float, slack: float, by_what: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> None:
        self._lease_s, self._slack = lease_s, slack
        self._gone: dict[str, list[int]] = {}
        for entry in [*by_what.get("worker_killed", ()), *by_what.get("worker_frozen", ())]:
            self._gone.setdefault(entry["worker"], []).append(entry["killed_ms"])
        self._store = [(entry["killed_ms"], entry["back_ms"]) for entry in by_what.get("store_killed", ())]
        self._presence = Presence(by_what)
        self._absent_ms = 0
        self._worst = {"worker": 0, "store": 0}
        self._count = {"worker": 0, "store": 0}
        self._lost_alive = 0

    @property
    def figures(self) -> dict[str, Any]:
        """What was measured. Times in seconds."""
        return {
            "re-runs after a worker's death": self._count["worker"],
            "slowest of them (s)": self._worst["worker"] / 1000,
            "re-runs that the store's death delayed": self._count["store"],
            "slowest of those, from the store's death (s)": self._worst["store"] / 1000,
            "longest of these times without any worker, not counted (s)": self._absent_ms / 1000,
            "lost by workers that lived": self._lost_alive,
        }

    def check(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the attempts that were not followed by another one, or by an end, in time."""
        lifecycle = [event for event in events if event["kind"] in _ENDS | {"started"}]
        faults = []
        for index, event in enumerate(lifecycle):
            if event["kind"] != "started":
                continue
            after = lifecycle[index + 1 :]
            if not after or not _is_lost(after[0]):
                continue
            # A worker that was frozen may have been killed later; what it lost, it lost by the last of the two.
            deaths = [
                ms for ms in self._gone.get(_process_of(event["data"]["worker"]), ()) if ms <= at_ms(after[0])
            ]
            if not deaths:
                self._lost_alive += 1
                continue
            died_ms, started_ms = max(deaths), at_ms(event)
            again = next((e for e in after if e["kind"] == "started" or e["kind"] in TERMINAL), None)
            if again is not None:
                faults += self._judge(event["attempt"], max(died_ms, started_ms), at_ms(again))
        return faults

    def _judge(self, attempt: int, died_ms: int, again_ms: int) -> list[str]:
        deadline_ms = died_ms + round((self._lease_s + _AFTER_WORKER_S * self._slack) * 1000)
        cause, since_ms = "worker", died_ms
        reached_ms = min(again_ms, deadline_ms + self._presence.absent_ms(died_ms, again_ms))
        for killed_ms, back_ms in self._store:
            later_ms = killed_ms + round((2 * self._lease_s + _AFTER_STORE_S * self._slack) * 1000)
            # Only a store that was away, or kept still after it came back, while the lease lapsed delays anything.
            is_between = died_ms <= back_ms + self._lease_s * 1000 and killed_ms <= reached_ms
            if is_between and later_ms > deadline_ms:
                deadline_ms, cause, since_ms = later_ms, "store", killed_ms
        absent_ms = self._presence.absent_ms(since_ms, again_ms)
        took_ms = again_ms - since_ms - absent_ms
        self._absent_ms = max(self._absent_ms, absent_ms)
        self._count[cause] += 1
        self._worst[cause] = max(self._worst[cause], took_ms)
        if since_ms + took_ms <= deadline_ms:
            return []
        took_s, allowed_s = took_ms / 1000, (deadline_ms - since_ms) / 1000
        return [
            f"attempt {attempt} was followed {took_s:.1f} s after the {cause}'s death, {allowed_s:.1f} s are allowed"
        ]


def _process_of(worker: str) -> str:
    """The stock command's consumers add to the name that the run has given to the process."""
    found = _NAME.match(worker)
    return worker if found is None else found[0]


def _is_lost(event: Mapping[str, Any]) -> bool:
    return event["kind"] in ("retrying", "failed") and event["data"]["error"]["code"] == "worker_lost"
