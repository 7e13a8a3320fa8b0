"""The form of a flow: what the input of a job of type ``flow`` looks like, and how each way to write it is spelt out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tidings.protocol import MAX_PRIORITY

__all__ = ["MAX_STEPS", "Drawn", "FlowInput", "StepInput"]

MAX_STEPS = 1_000
LONGEST_S = 7 * 86_400
"""The results of steps are kept as long as those of all completed jobs, so a flow is over by then."""

StepName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]


class StepInput(BaseModel):
    """A step: a job that is made when all steps that it waits for have completed."""

    model_config = ConfigDict(extra="forbid")

    name: StepName | None = Field(
        default=None, description="Letters, digits, `_` and `-`; without one, `step-` and its place from 1."
    )
    type: Word = Field(description="The job type.")
    input: dict[str, Any] = Field(
        default_factory=dict,
        description='Its input. `{"$result": "fetch.pages.0"}` in it stands for a part of the result of step `fetch`.',
    )
    after: list[StepName] = Field(
        default_factory=list,
        max_length=MAX_STEPS,
        description="The steps that it waits for, besides those whose results its input takes.",
    )
    queue: Word | None = Field(default=None, description="Instead of the job type's own queue.")
    priority: int | None = Field(
        default=None, ge=1, le=MAX_PRIORITY, description="Instead of the flow's, or of the queue's own."
    )
    delay_s: float | None = Field(
        default=None, ge=0, le=LONGEST_S, description="Wait so many seconds more, when its turn has come."
    )
    concurrency_key: str | None = Field(
        default=None, min_length=1, max_length=128, description="As for any job; see `POST /api/jobs`."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=16)
    metadata: dict[str, Any] = Field(default_factory=dict)


_EXAMPLE: Any = {
    "chain": [
        {"name": "first", "type": "demo.steps", "input": {"steps": 5, "delay_ms": 200}},
        {"name": "second", "type": "demo.steps", "input": {"steps": {"$result": "first.steps"}}},
    ]
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A step with its name, what it waits for by name, and the field of the input that it was written in."""

    name: str
    step: StepInput
    after: tuple[str, ...]
    field: str


class FlowInput(BaseModel):
    """A flow. Write `steps`, or for the usual forms `chain`, or `group` and maybe `then`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    steps: list[StepInput] | None = Field(
        default=None, min_length=1, max_length=MAX_STEPS, description="Any steps; `after` says their order."
    )
    chain: list[StepInput] | None = Field(
        default=None, min_length=1, max_length=MAX_STEPS, description="Steps one after the other."
    )
    group: list[StepInput] | None = Field(
        default=None, min_length=1, max_length=MAX_STEPS, description="Steps side by side."
    )
    then: StepInput | None = Field(
        default=None, description="A last step, when the whole `group` has completed."
    )
    on_failure: Literal["stop", "continue"] = Field(
        default="stop",
        description=(
            "When a step does not succeed: `stop` cancels all others; `continue` leaves out only what waits for it."
        ),
    )
    timeout_s: float = Field(
        default=LONGEST_S, gt=0, le=LONGEST_S, description="The time that the whole may take."
    )

    @model_validator(mode="after")
    def _one_form(self) -> FlowInput:
        given = [name for name in ("steps", "chain", "group") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of steps, chain and group")
        if self.then is not None and self.group is None:
            raise ValueError("then goes with group")
        if self.steps is None and any(drawn.step.after for drawn in self.draw()):
            raise ValueError(f"after goes with steps; {given[0]} says the order itself")
        twice = [name for name, count in Counter(drawn.name for drawn in self.draw()).items() if count > 1]
        if twice:
            raise ValueError(f"two steps have the name {twice[0]}; give each step another one")
        return self

    def draw(self) -> list[Drawn]:
        """Return all steps, in their order."""
        drawn: list[Drawn] = []
        for at, step in enumerate(self.steps or ()):
            drawn.append(Drawn(_name(step, at), step, tuple(step.after), f"input.steps.{at}"))
        for at, step in enumerate(self.chain or ()):
            drawn.append(Drawn(_name(step, at), step, tuple(d.name for d in drawn[-1:]), f"input.chain.{at}"))
        for at, step in enumerate(self.group or ()):
            drawn.append(Drawn(_name(step, at), step, (), f"input.group.{at}"))
        if self.then is not None:
            after = tuple(d.name for d in drawn)
            drawn.append(Drawn(_name(self.then, len(drawn)), self.then, after, "input.then"))
        return drawn


def _name(step: StepInput, at: int) -> str:
    return step.name or f"step-{at + 1}"
