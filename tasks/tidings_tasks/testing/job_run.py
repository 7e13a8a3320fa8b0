"""One job in memory: what became of it, as its watchers would see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from tidings.protocol import BEGINNING, JobState, Position

from ..store import JobRecord, commands
from .files import SavedFile

if TYPE_CHECKING:
    from .jobs import InMemoryJobs

__all__ = ["JobRun"]


class JobRun:
    """Reads the job anew each time it is asked. Of a job that was run to its end nothing changes any more."""

    def __init__(self, jobs: InMemoryJobs, job_id: str) -> None:
        self._jobs = jobs
        self.id = job_id
        """The job's id."""

    def __repr__(self) -> str:
        record = self.record
        error = self.error
        why = "" if error is None else f": {error['code']}, {error['type']}, {error['message']}"
        return f"<JobRun {record.spec.type} {record.state.value} after {record.attempt} attempts{why}>"

    @property
    def record(self) -> JobRecord:
        """The whole record, as the store keeps it."""
        record = self._jobs.store.run(commands.read_job(self.id))
        if record is None:
            raise LookupError(f"job {self.id} is gone: its time in the store is over")
        return record

    @property
    def type(self) -> str:
        """The name of its type."""
        return self.record.spec.type

    @property
    def input(self) -> Any:
        """Its input, as it was stored."""
        return self.record.spec.input

    @property
    def state(self) -> JobState:
        """Its state; equal to its name, such as ``"completed"``."""
        return self.record.state

    @property
    def result(self) -> Any:
        """What the function returned, as JSON; None before that."""
        return _decode(self.record.result)

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the last attempt that failed did: ``code``, ``type``, ``message``. None when the job has completed."""
        record = self.record
        found: dict[str, Any] | None = None if record.state is JobState.COMPLETED else _decode(record.error)
        return found

    @property
    def attempts(self) -> int:
        """How many times it was begun."""
        return self.record.attempt

    @property
    def progress(self) -> dict[str, Any] | None:
        """The newest progress, with all its fields."""
        found: dict[str, Any] | None = _decode(self.record.progress)
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log: the envelopes that its watchers get, with runs of progress folded into the last one (``prev``)."""
        events: list[dict[str, Any]] = []
        after = BEGINNING
        while True:
            page = self._jobs.store.run(commands.read_events(self.id, after))
            if page is None or not page.events:
                return events
            events += [orjson.loads(text) for text in page.events]
            after = Position(page.epoch, events[-1]["seq"])

    @property
    def kinds(self) -> list[str]:
        """The kinds of its events, in order."""
        return [event["kind"] for event in self.events]

    @property
    def outputs(self) -> list[Any]:
        """The chunks of its output, in order, whatever their stream."""
        return [data["chunk"] for data in self._data("output")]

    @property
    def logs(self) -> list[dict[str, Any]]:
        """What it logged: ``level``, ``message``, ``fields``."""
        return self._data("log")

    @property
    def delays_s(self) -> list[float]:
        """How long it waited before each further attempt, seconds: up to a quarter above what its type says."""
        return [data["delay_s"] for data in self._data("retrying")]

    @property
    def files(self) -> Sequence[SavedFile]:
        """The files it saved, in order."""
        return self._jobs.files_of(self.id)

    @property
    def submitted(self) -> list[JobRun]:
        """The jobs that were submitted after it: those that it submitted itself, when it was run alone."""
        every = self._jobs.submitted
        at = next(number for number, run in enumerate(every) if run.id == self.id)
        return every[at + 1 :]

    def text(self, stream: str = "default") -> str:
        """Return the strings of one output stream, joined."""
        chunks = [data["chunk"] for data in self._data("output") if data["stream"] == stream]
        return "".join(chunk for chunk in chunks if isinstance(chunk, str))

    def cancel(self, *, by: str = "test", reason: str | None = None) -> str:
        """Cancel it; returns ``cancelled``, ``cancelling`` (it runs, and is told) or ``terminal`` (it was over)."""
        return self._jobs.cancel(self.id, by=by, reason=reason)

    def _data(self, kind: str) -> list[Any]:
        return [event["data"] for event in self.events if event["kind"] == kind]


def _decode(text: bytes | None) -> Any:
    return None if text is None else orjson.loads(text)
