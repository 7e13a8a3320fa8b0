"""The systems that are compared: how each is started, and how one sees from outside how many jobs have ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidings_tasks.store import Keyspace

__all__ = ["PEERS", "TIDINGS", "System", "find_fault"]

ROOT = Path(__file__).parents[2]
_VENVS = ROOT / ".venv" / "peers"
_NODE_MODULES = ROOT / ".venv" / "node-bench" / "node_modules"
_PEERS = "benchmarks.queue.peers"
_SCRIPT = Path(__file__).parent / "peers" / "bullmq.cjs"


@dataclass(frozen=True)
class System:
    """A job queue. Commands are run in the project's root.

    Args:
        worker: the command of one worker process.
        producer: the command to which mode, job and count are added.
        jobs: its name for each kind of job; what it lacks, it cannot do.
        count_done: how many jobs the store says have ended; None where it does not say, and the functions do.
        fault: why it cannot be measured here.
    """

    name: str
    title: str
    worker: Sequence[str]
    producer: Sequence[str]
    jobs: Mapping[str, str]
    count_done: Callable[[Any], int] | None = None
    slowness: int = 1
    """It gets so many times fewer jobs, so that a round ends."""
    fault: Callable[[], str | None] = lambda: None
    version: Callable[[], str] = lambda: ""


def _tidings_done(client: Any) -> int:
    return int(client.zcard(f"{Keyspace().shard(0)}:done"))


def _bullmq_done(client: Any) -> int:
    return int(client.zcard("bull:bench:completed"))


def _bullmq_fault() -> str | None:
    if shutil.which("node") is None:
        return "there is no node on PATH"
    return None if (_NODE_MODULES / "bullmq").is_dir() else "bullmq is not installed: run `make bench-queue`"


def _bullmq_version() -> str:
    package = json.loads((_NODE_MODULES / "bullmq" / "package.json").read_text())
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return f"{package['version']} on Node {node.stdout.strip().removeprefix('v')}"


TIDINGS = System(
    "tidings",
    "Tidings",
    worker=[sys.executable, "-m", "tidings", "worker", "benchmarks.queue.jobs"],
    producer=[sys.executable, "-m", "benchmarks.queue.producer"],
    jobs={name: name for name in ("noop", "buffered", "awaited", "pickup")},
    count_done=_tidings_done,
    version=lambda: f"on Python {sys.version.split()[0]}",
)


def _python_peer(name: str, title: str, *, slowness: int = 1) -> System:
    python = _VENVS / name / "bin" / "python"

    def read_version() -> str:
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    return System(
        name,
        title,
        worker=[str(python), "-m", f"{_PEERS}.{name}_peer", "worker"],
        producer=[str(python), "-m", f"{_PEERS}.{name}_peer"],
        jobs={"noop": "noop", "pickup": "pickup"},
        slowness=slowness,
        fault=lambda: None if python.exists() else f"{name} is not installed: run `make bench-queue`",
        version=read_version,
    )


PEERS = [
    System(
        "bullmq",
        "BullMQ",
        worker=["node", str(_SCRIPT), "worker"],
        producer=["node", str(_SCRIPT)],
        # It has no other progress than the awaited one.
        jobs={"noop": "noop", "buffered": "progress", "awaited": "progress", "pickup": "pickup"},
        count_done=_bullmq_done,
        fault=_bullmq_fault,
        version=_bullmq_version,
    ),
    _python_peer("celery", "Celery", slowness=10),
    _python_peer("rq", "RQ", slowness=20),
    _python_peer("arq", "arq", slowness=10),
    _python_peer("taskiq", "taskiq", slowness=5),
    _python_peer("dramatiq", "Dramatiq", slowness=5),
]


def find_fault(system: System) -> str | None:
    """Say why a system cannot be measured here, or None."""
    return system.fault()


def environ(
    url: str, socket: str, *, concurrency: int, notes: Path, jobs: int, data_dir: Path
) -> dict[str, str]:
    """The environment of all processes of a measurement: nothing of the machine's settings, the same for all systems."""
    bare = ("PORT", "SOCKET_PORT", "JWT_SECRET", "CORS_ORIGIN", "LOG_LEVEL", "TIDINGS_", "REDIS_", "WORKER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(bare)}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return kept | {
        "BENCH_URL": url, "BENCH_SOCKET": socket, "BENCH_NOTES": str(notes), "BENCH_JOBS": str(jobs),
        "BENCH_CONCURRENCY": str(concurrency), "NODE_PATH": str(_NODE_MODULES), "PYTHONPATH": path,
        "REDIS_URL": url, "TIDINGS_DATA_DIR": str(data_dir), "WORKER_CONCURRENCY": str(concurrency),
        "TIDINGS_QUEUES": json.dumps({"bench": {"concurrency": concurrency}}), "LOG_LEVEL": "warning",
    }  # fmt: skip
