"""Queues: how each is served, timed, repeated, limited and kept; the built-in ones, and what is declared over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from tidings.protocol import MAX_PRIORITY

from ..store.limits import QueueLimits, Rate

__all__ = [
    "BUILT_IN_POLICIES",
    "NAME_PATTERN",
    "QueuePolicy",
    "limits_of",
    "order_queues",
    "overlay_queues",
    "policy_of",
    "priority_of",
]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""Of a queue, a profile, a dependency: what goes into a key and onto a command line as it is."""

LONGEST_S = 366 * 86_400.0
NONE = "none"
"""How a file that has no null says that there is no limit."""


def _read_rate(value: Any) -> Any:
    # What is no text is told how to write one.
    return value if value is None or isinstance(value, Rate) else Rate.parse(str(value))


def _write_rate(value: Rate | None) -> str | None:
    return None if value is None else str(value)


_Rate = Annotated[Rate | None, BeforeValidator(_read_rate), PlainSerializer(_write_rate, str | None)]
_Delay = Annotated[float, Field(ge=0, le=LONGEST_S)]


class QueuePolicy(BaseModel):
    """How the jobs of one queue are served. Times in seconds; None: no limit of the queue's own.

    ``timeout_s``, ``max_attempts`` and ``backoff_s`` hold for jobs whose type does not say otherwise. Rates count job
    starts and are written ``"10/min"``, ``"20/s"``, ``"100/h"``; ``"none"`` takes a limit away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=NAME_PATTERN)
    priority: int = Field(3, ge=1, le=MAX_PRIORITY, description="1 is served first.")
    concurrency: int = Field(10, ge=1, le=10_000, description="Jobs one worker process runs at once.")
    max_running: int | None = Field(None, ge=1, description="Jobs all workers together run at once.")
    rate: _Rate = Field(None, description="Job starts of the queue.")
    rate_per_owner: _Rate = Field(None, description="Job starts of each owner.")
    rate_per_org: _Rate = Field(None, description="Job starts of each org.")
    timeout_s: float = Field(300.0, gt=0, le=LONGEST_S, description="How long one attempt may take.")
    max_attempts: int = Field(4, ge=1, le=1_000_000, description="How many tries there are in all.")
    backoff_s: tuple[_Delay, ...] = Field(
        (10.0, 20.0, 40.0),
        min_length=1,
        max_length=100,
        description="The delay after the first failure, the second …; the last one repeats.",
    )
    max_length: int | None = Field(
        None, ge=1, le=50_000_000, description="Jobs that may wait; a full queue refuses. Default: 5,000,000."
    )
    completed_kept_s: float = Field(
        7 * 86_400.0, ge=60, le=10 * LONGEST_S, description="How long completed jobs are kept."
    )
    failed_kept_s: float = Field(
        30 * 86_400.0, ge=60, le=10 * LONGEST_S, description="How long failed and cancelled jobs are kept."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_limits_away(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: None if value == NONE and key in _OPTIONAL else value for key, value in data.items()}

    @property
    def limits(self) -> QueueLimits:
        """What the store enforces."""
        return QueueLimits(
            self.max_length, self.max_running, self.rate, self.rate_per_owner, self.rate_per_org
        )


_OPTIONAL = frozenset({"max_running", "rate", "rate_per_owner", "rate_per_org", "max_length"})
_OWN = frozenset({"name", "max_running", "rate", "rate_per_owner", "rate_per_org"})


def _built_in(
    name: str, priority: int, concurrency: int, timeout_s: float, delays_s: tuple[float, ...], **rates: str
) -> QueuePolicy:
    # The first run is not among the retries.
    return QueuePolicy.model_validate(
        {
            "name": name, "priority": priority, "concurrency": concurrency, "timeout_s": timeout_s,
            "max_attempts": len(delays_s) + 1, "backoff_s": delays_s, **rates,
        }
    )  # fmt: skip


# Receivers of webhooks are down for hours: eight delays that double, up to an hour.
_WEBHOOK_DELAYS_S = tuple(min(3600.0, 30.0 * 2**n) for n in range(8))

BUILT_IN_POLICIES: Mapping[str, QueuePolicy] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            _built_in("critical", 1, 10, 60, (5, 10, 20)),
            _built_in("documents", 2, 8, 60, (10, 20, 40), rate="20/s"),
            _built_in("ai", 2, 5, 120, (30, 60, 120), rate_per_owner="10/min", rate_per_org="60/min"),
            _built_in("embeddings", 2, 5, 60, (20, 40, 80)),
            _built_in("exports", 3, 5, 300, (60, 300, 1800), rate_per_owner="10/min"),
            _built_in("reports", 3, 5, 300, (60, 300, 1800)),
            _built_in("emails", 3, 10, 30, (10, 20, 40), rate="100/min"),
            _built_in("webhooks", 3, 15, 30, _WEBHOOK_DELAYS_S),
            _built_in("integrations", 3, 5, 300, (30, 60, 120), rate="60/min"),
            _built_in("default", 3, 10, 300, (10, 20, 40)),
            _built_in("maintenance", 4, 2, 600, (60, 120, 240)),
            _built_in("scheduled", 5, 1, 300, (60, 120, 240)),
        )
    }
)
"""Every installation has these queues."""


def overlay_queues(
    declared: Mapping[str, Any], *, max_jobs_per_minute: int | None = None, worker_concurrency: int = 0
) -> dict[str, Any]:
    """Lay what is declared over the built-in queues, not validated yet.

    A queue that is not built in takes the rest from ``default``, without its limits on rates and running jobs.

    Args:
        declared: by queue, a policy or the fields that differ; untrusted.
        max_jobs_per_minute: the rate of ``default`` where none is declared.
        worker_concurrency: raises the concurrency of ``default`` where none is declared: whoever lets a worker run
            more jobs means these first of all.
    """
    default = BUILT_IN_POLICIES["default"]
    if max_jobs_per_minute is not None:
        default = default.model_copy(update={"rate": Rate(max_jobs_per_minute, 60.0)})
    if worker_concurrency > default.concurrency:
        default = default.model_copy(update={"concurrency": worker_concurrency})
    made: dict[str, Any] = {**BUILT_IN_POLICIES, "default": _overlay(default, declared.get("default", {}))}
    shared = made["default"] if isinstance(made["default"], Mapping) else dict(default)
    for name, fields in declared.items():
        if name in BUILT_IN_POLICIES:
            made[name] = made[name] if name == "default" else _overlay(BUILT_IN_POLICIES[name], fields)
        elif isinstance(fields, Mapping):
            rest = {key: value for key, value in shared.items() if key in QueuePolicy.model_fields}
            made[name] = {**rest, **dict.fromkeys(_OWN), "name": name, **fields}
        else:
            made[name] = fields
    return made


def _overlay(base: QueuePolicy, fields: Any) -> Any:
    return {**dict(base), **fields} if isinstance(fields, Mapping) else fields


def policy_of(policies: Mapping[str, QueuePolicy], queue: str) -> QueuePolicy:
    """Return a queue's policy; one that nobody declared is like ``default``, without its limits."""
    found = policies.get(queue)
    if found is None:
        default = policies.get("default") or BUILT_IN_POLICIES["default"]
        found = QueuePolicy.model_construct(**{**default.__dict__, **dict.fromkeys(_OWN), "name": queue})
    return found


def priority_of(queue: str, policies: Mapping[str, QueuePolicy] = BUILT_IN_POLICIES) -> int:
    """The priority of a queue, and of a job that is put into it without another one."""
    return policy_of(policies, queue).priority


def order_queues(queues: Iterable[str], policies: Mapping[str, QueuePolicy] = BUILT_IN_POLICIES) -> list[str]:
    """Return the queues in the order in which a worker serves them: by priority, then by name."""
    return sorted(set(queues), key=lambda name: (priority_of(name, policies), name))


def limits_of(policies: Mapping[str, QueuePolicy], queues: Iterable[str] = ()) -> dict[str, QueueLimits]:
    """Return the limits of all declared queues and of these, as the store takes them."""
    return {name: policy_of(policies, name).limits for name in {*policies, *queues}}
