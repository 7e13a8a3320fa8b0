"""What happens in a run and when, all of it made from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Fault", "Plan", "PlannedJob", "Runtime", "Size", "make_plan"]

_OWNERS = 20

Runtime = Literal["tidings", "dramatiq"]
"""Which command the workers are: ours, or the stock one."""


@dataclass(frozen=True)
class Size:
    """How large a run is. Times in seconds."""

    jobs: int = 2000
    workers: int = 4
    duration_s: float = 60
    lease_s: float = 6
    worker_kill_every_s: float = 1
    freeze_every_s: float = 13
    """A worker is stopped for longer than a lease, and goes on: what it writes then is stale."""
    store_kills: int = 2
    runtime: Runtime = "tidings"


@dataclass(frozen=True)
class PlannedJob:
    """One submission, and what its client does besides. Times in seconds, from the start."""

    key: str
    owner: str
    body: dict[str, Any]
    at_s: float
    impatience_s: float | None
    """After so long the client gives the first call up, and repeats it."""
    repeats: bool
    """Whether it sends the same again later, with the same key."""
    cancel_after_s: float | None
    is_followed: bool


@dataclass(frozen=True)
class Fault:
    """Something that is done to the installation. ``pick`` (0 to 1) chooses among the workers."""

    at_s: float
    kind: Literal["kill_worker", "freeze_worker", "kill_store"]
    pick: float


@dataclass(frozen=True)
class Plan:
    """A run, before it is made."""

    seed: int
    size: Size
    jobs: list[PlannedJob]
    faults: list[Fault]


def make_plan(seed: int, size: Size) -> Plan:
    """Make the same plan for the same seed and size."""
    dice = random.Random(seed)
    jobs = [_plan_job(dice, n, size) for n in range(size.jobs)]
    faults = []
    at_s = size.worker_kill_every_s
    while at_s < size.duration_s:
        faults.append(Fault(at_s, "kill_worker", dice.random()))
        at_s += size.worker_kill_every_s
    at_s = size.freeze_every_s * 0.4
    while at_s < size.duration_s:
        faults.append(Fault(at_s, "freeze_worker", dice.random()))
        at_s += size.freeze_every_s
    for n in range(size.store_kills):
        part = size.duration_s / size.store_kills
        faults.append(Fault(part * (n + dice.uniform(0.3, 0.7)), "kill_store", 0.0))
    return Plan(seed, size, jobs, sorted(faults, key=lambda fault: fault.at_s))


def _plan_job(dice: random.Random, n: int, size: Size) -> PlannedJob:
    key = f"k{n:05}"
    job_type = dice.choices(["chaos.play", "chaos.plain", "chaos.hasty"], [75, 15, 10])[0]
    steps = dice.randint(2, 12)
    body: dict[str, Any] = {
        "type": job_type,
        "input": {
            "key": key,
            "steps": steps,
            "delay_ms": 0 if job_type == "chaos.hasty" else dice.randint(10, 120),
            "fail_times": 1 if job_type == "chaos.hasty" else dice.choices([0, 1, 2], [80, 15, 5])[0],
        },
        "tags": [key],
    }
    if dice.random() < 0.1:
        body["delay_s"] = round(dice.uniform(0.2, 4), 2)
    if dice.random() < 0.2:
        body["priority"] = dice.randint(1, 5)
    if dice.random() < 0.1:
        body["concurrency_key"] = f"one{dice.randrange(2)}"
    return PlannedJob(
        key=key,
        owner=f"owner{dice.randrange(_OWNERS)}",
        body=body,
        at_s=dice.uniform(0, size.duration_s * 0.9),
        impatience_s=dice.uniform(0.001, 0.02) if dice.random() < 0.1 else None,
        repeats=dice.random() < 0.1,
        cancel_after_s=dice.uniform(0, 1.5) if dice.random() < 0.1 else None,
        is_followed=dice.random() < 0.1,
    )
