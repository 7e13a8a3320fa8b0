"""Flows put together in Python: steps, the results they hand on, and what runs after what. Pure; ``submit`` alone does I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

__all__ = ["Flow", "Result", "Step", "chain", "group"]

Policy = Literal["stop", "continue"]


class Step:
    """A job to be made in a flow; ``JobType.step`` makes one. Put it into one flow, once.

    Args:
        type: the job type's name.
        input: as the type takes it; in a dict, ``Result`` objects may stand for what other steps will have returned.
        name: letters, digits, ``_`` and ``-``; None: the last word of the type's name, with a number where that is taken.
        after: steps that it waits for besides.
        options: more fields of a step: ``queue``, ``priority``, ``delay_s``, ``concurrency_key``, ``tags``, ``metadata``.
    """

    def __init__(
        self,
        type: str,
        input: BaseModel | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        after: Sequence[Step] = (),
        **options: Any,
    ) -> None:
        self.type = type
        self.input: BaseModel | Mapping[str, Any] = {} if input is None else input
        self.name = name
        self.after = tuple(after)
        self.options = {key: value for key, value in options.items() if value is not None}

    @property
    def result(self) -> Result:
        """What the step will have returned: put it, or a part of it, into the input of another one."""
        return Result(self)

    def __repr__(self) -> str:
        return f"Step({self.type!r}, name={self.name!r})"


class Result:
    """A step's result, or with ``[key]`` a part of it, in the input of a step that comes after."""

    def __init__(self, step: Step, path: tuple[str | int, ...] = ()) -> None:
        self.step, self.path = step, path

    def __getitem__(self, key: Any) -> Result:
        if not isinstance(key, str | int) or "." in str(key) or isinstance(key, bool):
            raise TypeError(
                f"a part of a result is named by a key without a dot, or by a place, not by {key!r}"
            )
        return Result(self.step, (*self.path, key))

    def __iter__(self) -> Iterator[Any]:
        # Without this, Python would ask for one place after the other, without end.
        raise TypeError("a result is not known before its step has run; hand it on whole, or by [key]")


class Flow:
    """Steps and what each waits for. ``chain`` and ``group`` make the usual ones; they take flows as well as steps.

    Args:
        parts: steps and flows, side by side.
        on_failure: when a step does not succeed: ``stop`` cancels all others, ``continue`` leaves out what waits for it.
        timeout_s: the time that the whole may take, seconds; None: a week, which is the most.
    """

    def __init__(
        self, *parts: Step | Flow, on_failure: Policy = "stop", timeout_s: float | None = None
    ) -> None:
        self.on_failure, self.timeout_s = on_failure, timeout_s
        self._waits: dict[Step, tuple[Step, ...]] = {}
        for part in parts:
            self._add(part, ())

    def __len__(self) -> int:
        return len(self._waits)

    def to_input(self) -> dict[str, Any]:
        """Return the input of the job of type ``flow`` that this is, with every step named.

        Raises:
            ValueError: a step waits for one that is not in the flow, or refers to its result.
        """
        names = self._names()
        steps = []
        for step, waits in self._waits.items():
            data = step.input
            if isinstance(data, BaseModel):
                data = data.model_dump(mode="json", by_alias=True, round_trip=True)
            body: dict[str, Any] = {
                "name": names[step],
                "type": step.type,
                "input": _with_references(data, names),
                **step.options,
            }
            if after := [_name_of(each, names) for each in (*waits, *step.after)]:
                body["after"] = list(dict.fromkeys(after))
            steps.append(body)
        made: dict[str, Any] = {"steps": steps, "on_failure": self.on_failure}
        if self.timeout_s is not None:
            made["timeout_s"] = self.timeout_s
        return made

    def submit(self, **options: Any) -> str:
        """Set the flow going and return the id of its job. Takes and raises what ``JobType.submit`` does."""
        from .planning import FLOW

        return FLOW.submit(self.to_input(), **options)

    async def submit_async(self, **options: Any) -> str:
        """Do what ``submit`` does, without blocking the event loop."""
        from .planning import FLOW

        return await FLOW.submit_async(self.to_input(), **options)

    def _add(self, part: Step | Flow, before: Sequence[Step]) -> list[Step]:
        """Take a part in, behind these steps, and return the steps that it ends with."""
        waits = {part: ()} if isinstance(part, Step) else part._waits  # noqa: SLF001 - one of this class
        for step, its_own in waits.items():
            if step in self._waits:
                raise ValueError(f"{step!r} is in the flow twice; make another step of the same type")
            self._waits[step] = its_own or tuple(before)
        awaited = {each for its_own in waits.values() for each in its_own}
        return [step for step in waits if step not in awaited]

    def _names(self) -> dict[Step, str]:
        taken = {step.name for step in self._waits if step.name is not None}
        names: dict[Step, str] = {}
        for step in self._waits:
            name = step.name
            if name is None:
                word = name = step.type.rpartition(".")[2][:56]
                number = 1
                while name in taken:
                    number += 1
                    name = f"{word}-{number}"
                taken.add(name)
            names[step] = name
        return names


def chain(*parts: Step | Flow, on_failure: Policy = "stop", timeout_s: float | None = None) -> Flow:
    """Put parts one after the other: each begins when all steps of the one before have completed."""
    made = Flow(on_failure=on_failure, timeout_s=timeout_s)
    before: list[Step] = []
    for part in parts:
        before = made._add(part, before) or before  # noqa: SLF001 - this module's own
    return made


def group(*parts: Step | Flow, on_failure: Policy = "stop", timeout_s: float | None = None) -> Flow:
    """Put parts side by side."""
    return Flow(*parts, on_failure=on_failure, timeout_s=timeout_s)


def _name_of(step: Step, names: Mapping[Step, str]) -> str:
    try:
        return names[step]
    except KeyError:
        raise ValueError(f"{step!r} is waited for, but is not in the flow") from None


def _with_references(value: Any, names: Mapping[Step, str]) -> Any:
    if isinstance(value, Result):
        return {"$result": ".".join([_name_of(value.step, names), *map(str, value.path)])}
    if isinstance(value, Mapping):
        return {key: _with_references(part, names) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_references(part, names) for part in value]
    return value
