"""Where job types are registered: ``@job`` fills ``REGISTRY``, and does nothing else."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, overload

from pydantic import BaseModel

from tidings.protocol.errors import UnknownJobType

from .context import JobContext, SyncJobContext
from .job_type import JobType, NoInput

__all__ = ["REGISTRY", "JobType", "Registry", "job", "load_modules"]

InputT = TypeVar("InputT", bound=BaseModel)
ResultT = TypeVar("ResultT")


class Registry:
    """Job types by name."""

    def __init__(self) -> None:
        self._types: dict[str, JobType[Any, Any]] = {}

    def __iter__(self) -> Iterator[JobType[Any, Any]]:
        return iter([self._types[name] for name in sorted(self._types)])

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, name: object) -> bool:
        return name in self._types

    @property
    def queues(self) -> frozenset[str]:
        """Every queue that a worker may serve but those that settings declare: the built-in ones and those of the registered types."""
        from .queue.queues import BUILT_IN_POLICIES

        return frozenset(BUILT_IN_POLICIES) | {
            found.queue for found in self._types.values() if not found.runs_in_store
        }

    @property
    def dependencies(self) -> frozenset[str]:
        """The dependencies that the registered types name."""
        return frozenset(found.dependency for found in self._types.values() if found.dependency is not None)

    def add(self, job_type: JobType[Any, Any]) -> None:
        """Register a type. The same function may register again, as when its module is reloaded.

        Raises:
            ValueError: another function has this name.
        """
        known = self._types.get(job_type.name)
        if known is not None and _place(known.fn) != _place(job_type.fn):
            raise ValueError(
                f"job type {job_type.name!r} is registered twice: {_place(known.fn)}, {_place(job_type.fn)}"
            )
        self._types[job_type.name] = job_type

    def get(self, name: str) -> JobType[Any, Any]:
        """Return a type.

        Raises:
            UnknownJobType: there is none; the error names those that look alike.
        """
        try:
            return self._types[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._types, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownJobType(f"there is no job type {name[:128]!r}{hint}") from None


REGISTRY = Registry()
"""The types of this process."""


class _Decorator(Protocol):
    @overload
    def __call__(
        self, fn: Callable[[JobContext, InputT], Awaitable[ResultT]], /
    ) -> JobType[InputT, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[[JobContext], Awaitable[ResultT]], /) -> JobType[NoInput, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[[SyncJobContext, InputT], ResultT], /) -> JobType[InputT, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[[SyncJobContext], ResultT], /) -> JobType[NoInput, ResultT]: ...


def job(
    name: str,
    *,
    queue: str = "default",
    timeout_s: float | None = None,
    max_attempts: int | None = None,
    backoff_s: Sequence[float] | None = None,
    process: bool = False,
    concurrency_limit: int = 1,
    dependency: str | None = None,
    expires_s: float | None = None,
    description: str | None = None,
    registry: Registry = REGISTRY,
) -> _Decorator:
    """Register a function, ``async`` or plain, as a job type. No I/O, no environment, no broker.

    Args:
        timeout_s: how long one attempt may take, seconds. This and the next two, None: as the queue says that the job
            goes into.
        max_attempts: how many tries there are in all, 1 or more.
        backoff_s: the delay after the first failure, the second …; the last one repeats. The worker adds up to a
            quarter at random, so that jobs that failed together do not come back together.
        process: run the (plain) function in the process pool: it has a core of its own, and can be stopped anywhere.
        concurrency_limit: how many jobs with one ``concurrency_key`` run at once, in each tenant.
        dependency: what the job needs, such as a model's API: when it fails again and again, its jobs are put off.
        expires_s: a job that was not begun so many seconds after it was due fails as ``expired``.
        description: for ``GET /api/job-types``; None: the function's docstring.
    """
    caller = inspect.currentframe()
    # Models that are defined inside a function are found where the decorator is used, as pydantic does it.
    namespace = dict(caller.f_back.f_locals) if caller is not None and caller.f_back is not None else {}

    def register(fn: Callable[..., Any], /) -> JobType[Any, Any]:
        found: JobType[Any, Any] = JobType(
            name, fn, queue=queue, timeout_s=timeout_s, max_attempts=max_attempts,
            backoff_s=backoff_s, process=process, concurrency_limit=concurrency_limit,
            dependency=dependency, expires_s=expires_s, description=description, namespace=namespace,
        )  # fmt: skip
        registry.add(found)
        return found

    return register


def load_modules(names: Iterable[str]) -> Registry:
    """Import the modules that register job types, with the working directory importable, and return ``REGISTRY``.

    Flows are always among the types.

    Plain Dramatiq actors in them are declared on a ``TidingsBroker``, unless the program set a broker of its own.

    Raises:
        ImportError: a module is not there, or does not import.
    """
    from .flows.planning import register_flow
    from .queue.broker import installed_broker

    installed_broker()
    if "" not in sys.path:
        sys.path.insert(0, "")
    for name in names:
        importlib.import_module(name)
    register_flow(REGISTRY)
    return REGISTRY


def _place(fn: Callable[..., Any]) -> str:
    return f"{fn.__module__}.{fn.__qualname__}"
