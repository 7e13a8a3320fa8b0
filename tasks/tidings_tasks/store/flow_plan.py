"""The plan of a flow: its steps as jobs to be stored later, and which waits for which. ``lua/flows.lua`` carries it out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tidings.protocol.ids import make_job_id, shard_of, time_ms_of

if TYPE_CHECKING:
    from .submissions import Submission

__all__ = ["FlowPlan", "PlannedStep", "step_id"]


def step_id(flow_id: str, number: int) -> str:
    """Return the id of a flow's step, counted from 1, which follows from the flow's: so a repeat makes no other jobs.

    Steps sort behind their flow, in their order. They may lie ahead of the clock by as many milliseconds as there are steps.
    """
    digest = hashlib.blake2b(f"{flow_id}:{number}".encode(), digest_size=10).digest()
    return make_job_id(shard_of(flow_id), time_ms_of(flow_id) + number, int.from_bytes(digest, "big"))


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step: the job that it becomes, whose id is not used, and the places (from 0) of the steps that it waits for.

    ``needs``: those of them whose results its input refers to, by name.
    """

    name: str
    job: Submission
    after: tuple[int, ...] = ()
    needs: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """A flow as it is stored. ``input`` is what it was made from, with every name and dependency written out.

    Args:
        on_failure: ``stop`` or ``continue``.
    """

    steps: tuple[PlannedStep, ...]
    on_failure: str
    timeout_s: float
    input: Any = None

    @property
    def size(self) -> int:
        """How many steps there are, those of flows within it included."""
        return sum(1 + (step.job.flow.size if step.job.flow else 0) for step in self.steps)

    def find_step_behind(self, key: str, held: int = 1) -> str | None:
        """Return the name of a step that could never run while flows around it hold so many places of a concurrency key."""
        for step in self.steps:
            job = step.job
            has_key = job.concurrency_key == key
            if has_key and job.concurrency_limit <= held:
                return step.name
            found = job.flow.find_step_behind(key, held + has_key) if job.flow else None
            if found is not None:
                return f"{step.name}.{found}"
        return None

    def options(self, flow_id: str) -> dict[str, Any]:
        """Return what ``flows.lua`` takes, for the flow of this id."""
        following: list[list[int]] = [[] for _ in self.steps]
        for number, step in enumerate(self.steps, 1):
            for place in step.after:
                following[place].append(number)
        steps = []
        for number, step in enumerate(self.steps, 1):
            job = step.job
            needs = {name: step_id(flow_id, place + 1) for name, place in (step.needs or {}).items()}
            job = replace(
                job, id=step_id(flow_id, number), spec=replace(job.spec, step=step.name, needs=needs or None)
            )
            body: dict[str, Any] = {
                "id": job.id,
                "n": step.name,
                "w": len(step.after),
                "q": job.queue,
                "p": job.priority,
                "due": job.due,
                "ma": job.spec.max_attempts,
                "spec": job.spec.to_json().decode(),
            }
            if following[number - 1]:
                body["t"] = following[number - 1]
            if options := job.options():
                body["more"] = options
            steps.append(body)
        return {"p": self.on_failure, "t": round(self.timeout_s * 1000), "s": steps}
