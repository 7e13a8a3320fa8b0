"""``run_job``: one job, run at once to its end, in a store of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dramatiq import Actor

from ..job_type import JobType
from ..registry import REGISTRY, Registry
from .job_run import JobRun
from .jobs import InMemoryJobs, Time
from .stopping import Moment

__all__ = ["run_job", "run_job_async"]


def run_job(
    job_type: JobType[Any, Any] | Actor[..., Any],
    input: Any = None,
    *,
    owner: str = "system",
    org: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    attempts: int | None = None,
    time: Time = "skip",
    cancel_at: Moment | None = None,
    time_out_at: Moment | None = None,
    hand_back_at: Moment | None = None,
    lose_at: Moment | None = None,
    shut_down_at: Moment | None = None,
    **options: Any,
) -> JobRun:
    """Submit a job and run it to its end, over all its attempts, without a store, a worker or waiting.

    What it submits itself is kept in ``JobRun.submitted``, and not run. A plain function runs in this thread.

    Args:
        job_type: or a plain Dramatiq actor; its input is then ``{"args": […], "kwargs": {…}}``.
        input: as for ``job_type.submit``, like ``owner``, ``org``, ``metadata`` and the ``options``.
        attempts: run so many attempts at most; the job may then be left ``retrying``.
        time: ``"skip"`` moves the store's clock over delays; ``"real"`` waits for them.
        cancel_at: the moment at which it is cancelled. A moment is an int: after so many events that the function
            has sent (0: before it is called); a str: after the first event of this kind (``"queued"``: before it
            is begun); or a function of an event: after the first one for which it is true.
        time_out_at: the moment at which its time is over. Its ``timeout_s`` holds too, in real time.
        hand_back_at: the moment at which the worker is done waiting at its shutdown, and gives the job back.
        lose_at: the moment at which its worker is lost; the function is told so, and the job runs again.
        shut_down_at: the moment from which ``ctx.shutting_down`` is true.

    Raises:
        InvalidInput: the input is not valid; see ``JobType.submit`` for the other errors.
        ValueError: a moment never came.
        LuaMissing: ``tidings[testing]`` is not installed.
    """
    jobs, run = _submit(job_type, input, time, owner=owner, org=org, metadata=metadata, **options)
    return jobs.run(
        run, attempts=attempts, cancel_at=cancel_at, time_out_at=time_out_at, hand_back_at=hand_back_at,
        lose_at=lose_at, shut_down_at=shut_down_at,
    )  # fmt: skip


async def run_job_async(
    job_type: JobType[Any, Any] | Actor[..., Any],
    input: Any = None,
    *,
    owner: str = "system",
    org: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    attempts: int | None = None,
    time: Time = "skip",
    cancel_at: Moment | None = None,
    time_out_at: Moment | None = None,
    hand_back_at: Moment | None = None,
    lose_at: Moment | None = None,
    shut_down_at: Moment | None = None,
    **options: Any,
) -> JobRun:
    """Do what ``run_job`` does, on the test's own event loop; a plain function runs on a thread."""
    jobs, run = _submit(job_type, input, time, owner=owner, org=org, metadata=metadata, **options)
    return await jobs.run_async(
        run, attempts=attempts, cancel_at=cancel_at, time_out_at=time_out_at, hand_back_at=hand_back_at,
        lose_at=lose_at, shut_down_at=shut_down_at,
    )  # fmt: skip


def _submit(
    found: JobType[Any, Any] | Actor[..., Any], input: Any, time: Time, **options: Any
) -> tuple[InMemoryJobs, JobRun]:
    if isinstance(found, JobType):
        jobs = InMemoryJobs(_registry_with(found), time=time)
        return jobs, jobs.submit(found, input, **options)
    jobs = InMemoryJobs(time=time)
    data = input or {}
    if options.pop("metadata", None) is not None:
        raise TypeError("jobs of plain actors have no metadata")
    return jobs, jobs.send_with_options(found, data.get("args", ()), data.get("kwargs"), **options)


def _registry_with(job_type: JobType[Any, Any]) -> Registry:
    """Return the registry that has this very type: the process's own, or one made for it, as in tests of libraries."""
    if job_type in list(REGISTRY):
        return REGISTRY
    made = Registry()
    for known in REGISTRY:
        if known.name != job_type.name:
            made.add(known)
    made.add(job_type)
    return made
