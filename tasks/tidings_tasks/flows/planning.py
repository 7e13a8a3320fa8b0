"""The job type ``flow``: checks a flow whole before it exists, and plans it for the store, which runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tidings.protocol.errors import FieldError, InvalidInput, UnknownJobType

from ..context import JobContext
from ..job_type import JobType
from ..outcomes import Fail
from ..registry import REGISTRY, Registry
from ..store import Keyspace, Tenant
from ..store.flow_plan import FlowPlan, PlannedStep
from ..store.references import Place, find_references
from ..submission import prepare
from .form import LONGEST_S, MAX_STEPS, Drawn, FlowInput

__all__ = ["FLOW", "FLOW_TYPE", "FlowJobType", "register_flow"]

FLOW_TYPE = "flow"
FLOW_QUEUE = "flows"
MAX_DEPTH = 3
_MAX_ERRORS = 50


class FlowJobType(JobType[FlowInput, Any]):
    """Jobs that the store runs: no worker takes one."""

    runs_in_store = True

    def plan(
        self,
        input: Any,
        tenant: Tenant,
        keyspace: Keyspace,
        *,
        queue: str | None = None,
        priority: int | None = None,
        depth: int = 0,
        registry: Registry = REGISTRY,
        **options: Any,
    ) -> FlowPlan:
        """Check a flow and all its steps; return its plan.

        Args:
            input: untrusted.
            priority: of the steps that have none of their own.
            depth: how many flows it is within.
            options: more that ``prepare`` takes for each step.

        Raises:
            InvalidInput: with entries named like ``input.steps.3.input.rows``.
        """
        flow = self.validate_input(input)
        if depth >= MAX_DEPTH:
            raise _invalid(
                [_error("input", "too_deep", f"flows lie within each other at most {MAX_DEPTH} deep")]
            )
        if queue not in (None, FLOW_QUEUE):
            raise _invalid(
                [_error("queue", "no_queue", "a flow has no queue; give its steps one, by their field queue")]
            )
        drawn = flow.draw()
        waits_for, references = _connect(drawn)
        _check_order(drawn, waits_for)
        places = {one.name: at for at, one in enumerate(drawn)}
        steps: list[PlannedStep] = []
        errors: list[FieldError] = []
        for at, (one, refers) in enumerate(zip(drawn, references, strict=True)):
            try:
                job_type: JobType[Any, Any] = (
                    self if one.step.type == self.name else registry.get(one.step.type)
                )
                data: Any = one.step.input
                if refers:
                    _check_template(job_type, data, [place for place, _ in refers])
                _, job = prepare(
                    job_type, tenant, keyspace, input=data, is_checked=bool(refers),
                    queue=one.step.queue, priority=one.step.priority or priority, delay_s=one.step.delay_s,
                    concurrency_key=one.step.concurrency_key or "",
                    tags=one.step.tags, metadata=one.step.metadata, depth=depth + 1, registry=registry, **options,
                )  # fmt: skip
            except UnknownJobType as error:
                errors.append(
                    _error(f"{one.field}.type", error.code, error.detail or "there is no such job type")
                )
            except InvalidInput as error:
                errors += [
                    entry.model_copy(update={"field": f"{one.field}.{entry.field}"}) for entry in error.errors
                ]
            else:
                needs = {name: places[name] for name in (_step_of(text) for _, text in refers)}
                steps.append(PlannedStep(one.name, job, tuple(sorted(waits_for[at])), needs))
            if len(errors) >= _MAX_ERRORS:
                break
        if errors:
            raise _invalid(errors)
        plan = FlowPlan(
            tuple(steps), flow.on_failure, flow.timeout_s, _spell_out(flow, drawn, waits_for, priority)
        )
        if plan.size > MAX_STEPS:
            raise _invalid(
                [
                    _error(
                        "input",
                        "too_many_steps",
                        f"at most {MAX_STEPS:,} steps, those of flows within it included",
                    )
                ]
            )
        return plan


def _connect(drawn: Sequence[Drawn]) -> tuple[list[set[int]], list[list[tuple[Place, str]]]]:
    """Return for each step which ones it waits for, and where its input refers to results.

    Raises:
        InvalidInput: a name is that of no step.
    """
    places = {one.name: at for at, one in enumerate(drawn)}
    waits_for: list[set[int]] = []
    references: list[list[tuple[Place, str]]] = []
    errors: list[FieldError] = []
    for one in drawn:
        # The steps of a flow within this one refer to each other.
        refers = [] if one.step.type == FLOW_TYPE else list(find_references(one.step.input))
        named = [(f"{one.field}.after.{at}", name) for at, name in enumerate(one.after)]
        named += [
            (".".join([one.field, "input", *map(str, place)]), _step_of(text)) for place, text in refers
        ]
        for field, name in named:
            if name not in places:
                errors.append(_error(field, "unknown_step", f"there is no step {name[:64]!r}"))
        waits_for.append({places[name] for _, name in named if name in places})
        references.append(refers)
    if errors:
        raise _invalid(errors[:_MAX_ERRORS])
    return waits_for, references


def _check_order(drawn: Sequence[Drawn], waits_for: Sequence[set[int]]) -> None:
    """Raise ``InvalidInput`` when steps wait for each other in a circle."""
    left = [len(places) for places in waits_for]
    following: list[list[int]] = [[] for _ in drawn]
    for at, places in enumerate(waits_for):
        for place in places:
            following[place].append(at)
    ready = [at for at, count in enumerate(left) if count == 0]
    for at in ready:
        for next_at in following[at]:
            left[next_at] -= 1
            if left[next_at] == 0:
                ready.append(next_at)
    stuck = {at for at, count in enumerate(left) if count > 0}
    if not stuck:
        return
    # Every one that is stuck waits for another one, so this walk comes to a circle.
    walk = [min(stuck)]
    while (before := min(waits_for[walk[-1]] & stuck)) not in walk:
        walk.append(before)
    circle = [*walk[walk.index(before) :], before]
    text = ", which waits for ".join(drawn[at].name for at in circle[1:][:5])
    message = f"{drawn[circle[0]].name} waits for {text}{' …' if len(circle) > 6 else ''}: one of them must come first"
    raise _invalid([_error(drawn[circle[0]].field + ".after", "circle", message)])


def _check_template(job_type: JobType[Any, Any], data: Any, holes: Iterable[Place]) -> None:
    """Check an input as far as it can be told while results are missing at these places.

    Raises:
        InvalidInput: with the errors that no result can mend.
    """
    places = [[str(part) for part in hole] for hole in holes]
    try:
        job_type.validate_input(data)
    except InvalidInput as error:
        left = [
            entry
            for entry in error.errors
            if not any(_meet(entry.field.split(".")[1:], place) for place in places)
        ]
        if left:
            raise _invalid(left) from error
    except Exception:  # noqa: S110 - an author's validator, which may take the missing part for a value
        pass


def _meet(field: Sequence[str], place: Sequence[str]) -> bool:
    """Whether an error at this field may be due to this place: one lies within the other, tags of unions left aside."""
    shorter, longer = sorted((field, place), key=len)
    rest = iter(longer)
    return all(part in rest for part in shorter)


def _spell_out(
    flow: FlowInput, drawn: Sequence[Drawn], waits_for: Sequence[set[int]], priority: int | None
) -> dict[str, Any]:
    """Return the flow as `steps`, each with its name and all that it waits for: as it is stored and shown."""
    steps = []
    for one, places in zip(drawn, waits_for, strict=True):
        body: dict[str, Any] = {"name": one.name, "type": one.step.type, "input": one.step.input}
        if places:
            body["after"] = [drawn[at].name for at in sorted(places)]
        if priority is not None:
            body["priority"] = priority
        body |= one.step.model_dump(
            mode="json", exclude_unset=True, exclude={"name", "type", "input", "after"}
        )
        steps.append(body)
    spelt: dict[str, Any] = {"steps": steps, "on_failure": flow.on_failure}
    if flow.timeout_s != LONGEST_S:
        spelt["timeout_s"] = flow.timeout_s
    return spelt


def _step_of(reference: str) -> str:
    return reference.partition(".")[0]


def _error(field: str, code: str, message: str) -> FieldError:
    return FieldError(field=field, code=code, message=message)


def _invalid(errors: list[FieldError]) -> InvalidInput:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidInput(f"{first.field}: {first.message}{more}", errors=errors)


async def _run(ctx: JobContext, input: FlowInput) -> None:
    """Run other jobs in their order: a chain, a group, or any steps that wait for each other.

    The steps become jobs of the same owner, each when those that it waits for have completed. The flow tells the progress of
    the whole and ends when all have ended.
    """
    raise Fail(
        "flow_not_planned", "a flow is submitted through Tidings, which plans it; no worker can run it"
    )


FLOW = FlowJobType(FLOW_TYPE, _run, queue=FLOW_QUEUE, timeout_s=LONGEST_S, max_attempts=1, backoff_s=(0,))


def register_flow(registry: Registry) -> None:
    """Let a registry know flows; those of ``tidings worker`` and ``tidings server`` do."""
    registry.add(FLOW)
