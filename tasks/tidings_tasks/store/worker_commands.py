"""Calls on the store about workers: their beats, who lives, and how long jobs take. All in the home shard, 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .command import Command
from .durations import LAST_BUCKET, Durations

__all__ = [
    "HOME_SHARD",
    "MAX_RUNNING_TOLD",
    "RunningJob",
    "WorkerInfo",
    "beat",
    "list_workers",
    "read_durations",
]

HOME_SHARD = 0
MAX_RUNNING_TOLD = 100
"""A beat names at most so many running jobs; it counts all of them."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a worker runs."""

    id: str
    type: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as it described itself at its last beat, ``beat_ms`` on the store's clock.

    ``runtime`` is ``tidings`` or ``dramatiq`` (the stock command). ``done`` and ``failed`` count attempts since it
    started; ``running`` holds at most 100 of the ``running_count`` jobs, the oldest first.
    """

    id: str
    host: str
    pid: int
    profile: str
    queues: tuple[str, ...]
    concurrency: int
    running: tuple[RunningJob, ...]
    running_count: int
    rss_bytes: int
    version: str
    runtime: str
    started_ms: int
    done: int
    failed: int
    is_stopping: bool
    beat_ms: int = 0

    def to_json(self) -> bytes:
        """Encode for a beat."""
        return orjson.dumps({
            "host": self.host, "pid": self.pid, "profile": self.profile, "queues": self.queues,
            "concurrency": self.concurrency,
            "running": [[job.id, job.type, job.since_ms] for job in self.running[:MAX_RUNNING_TOLD]],
            "running_count": self.running_count, "rss_bytes": self.rss_bytes, "version": self.version,
            "runtime": self.runtime, "started_ms": self.started_ms, "done": self.done, "failed": self.failed,
            "is_stopping": self.is_stopping,
        })  # fmt: skip

    @classmethod
    def from_json(cls, worker: str, beat_ms: int, text: bytes) -> WorkerInfo:
        """Decode a beat. What a worker of another version leaves out is empty, what it adds is ignored."""
        body = orjson.loads(text)
        return cls(
            id=worker,
            host=body.get("host", ""),
            pid=body.get("pid", 0),
            profile=body.get("profile", ""),
            queues=tuple(body.get("queues", ())),
            concurrency=body.get("concurrency", 0),
            running=tuple(RunningJob(*job[:3]) for job in body.get("running", ())),
            running_count=body.get("running_count", 0),
            rss_bytes=body.get("rss_bytes", 0),
            version=body.get("version", ""),
            runtime=body.get("runtime", ""),
            started_ms=body.get("started_ms", 0),
            done=body.get("done", 0),
            failed=body.get("failed", 0),
            is_stopping=body.get("is_stopping", False),
            beat_ms=beat_ms,
        )


def beat(
    worker: str,
    info: bytes,
    ttl_ms: int,
    durations: Mapping[str, Mapping[int, int]],
    *,
    run: str,
    number: int,
) -> Command[None]:
    """Say that a worker lives for the next ``ttl_ms``; 0: it ends.

    Args:
        info: ``WorkerInfo.to_json``.
        durations: how many more jobs of each type were completed, by bucket (``bucket_of``).
        run: names this process's run; with ``number``, which rises by one, it makes a repeat known, which changes nothing.
    """
    args: list[bytes | str | int] = [worker, run, number, ttl_ms, info]
    for kind, buckets in durations.items():
        args += (kind, len(buckets))
        for bucket, count in buckets.items():
            args += (bucket, count)
    return Command("beat", HOME_SHARD, args, lambda _: None)


def list_workers(*, limit: int = 1000) -> Command[list[WorkerInfo]]:
    """Read which workers live, in the order of their names."""

    def parse(reply: Any) -> list[WorkerInfo]:
        found = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return sorted(
            (WorkerInfo.from_json(worker.decode(), int(float(at)), info) for worker, at, info in found),
            key=lambda worker: worker.id,
        )

    return Command("list_workers", HOME_SHARD, [limit], parse)


def read_durations(types: Sequence[str]) -> Command[dict[str, Durations]]:
    """Read how long jobs of these types take; a type of which none was completed lately is left out."""
    types = tuple(types)

    def parse(reply: Any) -> dict[str, Durations]:
        found = {kind: _durations(fields) for kind, fields in zip(types, reply, strict=True)}
        return {kind: durations for kind, durations in found.items() if durations is not None}

    return Command("read_durations", HOME_SHARD, types, parse)


def _durations(fields: Sequence[bytes]) -> Durations | None:
    buckets = dict(zip(fields[::2], fields[1::2], strict=True))
    buckets.pop(b"n", None)
    return Durations.from_buckets(
        {int(at): int(count) for at, count in buckets.items() if 0 <= int(at) <= LAST_BUCKET}
    )
