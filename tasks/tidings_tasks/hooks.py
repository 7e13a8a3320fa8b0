"""Hooks: functions of job authors that a worker calls when jobs begin and end.

A hook is called in the worker, after the change is stored, with a ``JobInfo``; sync ones on a thread, async ones on the
worker's loop. It is given ``hook_timeout_s``. One that raises, hangs or is too slow is logged and counted, and never
fails or delays a job. What happens where no worker runs the job is not told here: a job that is cancelled or expires
while it waits, one whose worker died. For those watch the feed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .job_type import JobType

if TYPE_CHECKING:
    from .usage import Usage

__all__ = [
    "HOOKS", "Hook", "HookEvent", "Hooks", "JobInfo",
    "on_cancelled", "on_completed", "on_failed", "on_retrying", "on_started",
]  # fmt: skip

FnT = TypeVar("FnT", bound=Callable[["JobInfo"], Any])


class HookEvent(StrEnum):
    """When a hook is called."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRYING = "retrying"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as a hook sees it.

    ``tries`` counts failed attempts, this one included. ``duration_s`` and ``usage`` are None at the start, ``error``
    (``{"code", "type", "message"}``) is there when it failed, ``delay_s`` when it will be tried again.
    """

    id: str
    type: str
    queue: str
    owner: str
    org: str | None
    attempt: int
    tries: int
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    duration_s: float | None = None
    error: Mapping[str, str] | None = None
    delay_s: float | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """A registered function. ``types``: of which job types it wants to hear; None: of all."""

    fn: Callable[[JobInfo], Any]
    types: frozenset[str] | None

    @property
    def name(self) -> str:
        """Where it is, for the log."""
        return f"{getattr(self.fn, '__module__', '?')}.{getattr(self.fn, '__qualname__', repr(self.fn))}"


class Hooks:
    """The hooks of a process, in the order in which they were registered."""

    def __init__(self) -> None:
        self._hooks: dict[HookEvent, list[Hook]] = {}

    def add(self, event: HookEvent, hook: Hook) -> None:
        """Register a hook. The same function takes its own place, as when its module is reloaded."""
        hooks = self._hooks.setdefault(event, [])
        for at, known in enumerate(hooks):
            if known.name == hook.name and "<locals>" not in hook.name:
                hooks[at] = hook
                return
        hooks.append(hook)

    def remove(self, fn: Callable[[JobInfo], Any]) -> None:
        """Forget a function, for whatever it was registered."""
        for event, hooks in self._hooks.items():
            self._hooks[event] = [hook for hook in hooks if hook.fn is not fn]

    def find(self, event: HookEvent, job_type: str) -> list[Hook]:
        """Return who wants to hear of this."""
        hooks = self._hooks.get(event)
        if not hooks:
            return []
        return [hook for hook in hooks if hook.types is None or job_type in hook.types]


HOOKS = Hooks()
"""The hooks of this process."""

_Types = Iterable["str | JobType[Any, Any]"]


def _register(event: HookEvent, fn: FnT | None, types: _Types | None) -> Any:
    names = None
    if types is not None:
        if isinstance(types, str):
            raise TypeError(f'on_{event.value}: types is a list, such as ["{types}"]')
        names = frozenset(kind if isinstance(kind, str) else kind.name for kind in types)

    def add(found: FnT) -> FnT:
        if not callable(found):
            raise TypeError(f"on_{event.value}: types goes by name, as in on_{event.value}(types=[...])")
        HOOKS.add(event, Hook(found, names))
        return found

    return add if fn is None else add(fn)


@overload
def on_started(fn: FnT, /) -> FnT: ...
@overload
def on_started(*, types: _Types | None = None) -> Callable[[FnT], FnT]: ...
def on_started(fn: Any = None, /, *, types: _Types | None = None) -> Any:
    """Call the function when a job begins an attempt. It is begun before the job's function, which does not wait for it."""
    return _register(HookEvent.STARTED, fn, types)


@overload
def on_completed(fn: FnT, /) -> FnT: ...
@overload
def on_completed(*, types: _Types | None = None) -> Callable[[FnT], FnT]: ...
def on_completed(fn: Any = None, /, *, types: _Types | None = None) -> Any:
    """Call the function when a job is completed."""
    return _register(HookEvent.COMPLETED, fn, types)


@overload
def on_failed(fn: FnT, /) -> FnT: ...
@overload
def on_failed(*, types: _Types | None = None) -> Callable[[FnT], FnT]: ...
def on_failed(fn: Any = None, /, *, types: _Types | None = None) -> Any:
    """Call the function when a job has failed for good."""
    return _register(HookEvent.FAILED, fn, types)


@overload
def on_retrying(fn: FnT, /) -> FnT: ...
@overload
def on_retrying(*, types: _Types | None = None) -> Callable[[FnT], FnT]: ...
def on_retrying(fn: Any = None, /, *, types: _Types | None = None) -> Any:
    """Call the function when an attempt has failed and the job will be tried again."""
    return _register(HookEvent.RETRYING, fn, types)


@overload
def on_cancelled(fn: FnT, /) -> FnT: ...
@overload
def on_cancelled(*, types: _Types | None = None) -> Callable[[FnT], FnT]: ...
def on_cancelled(fn: Any = None, /, *, types: _Types | None = None) -> Any:
    """Call the function when a running job was cancelled."""
    return _register(HookEvent.CANCELLED, fn, types)
