"""Dramatiq's actor options, as its Retries, TimeLimit and AgeLimit define them, read as a policy of ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dramatiq.middleware import AgeLimit, Middleware, Retries, TimeLimit

__all__ = ["ACTOR_OPTIONS", "ActorDefaults", "ActorPolicy", "read_policy", "take_over"]

ACTOR_OPTIONS = frozenset(
    {
        "max_retries", "min_backoff", "max_backoff", "retry_when", "throws", "on_retry_exhausted",
        "time_limit", "max_age",
    }
)  # fmt: skip

_LONGEST_S = 366 * 86_400.0
_UNBOUNDED_ATTEMPTS = 1_000_000


@dataclass(frozen=True, slots=True)
class ActorDefaults:
    """What holds for an actor that doesn't say otherwise: Dramatiq's own numbers. Times in ms."""

    max_retries: int | None = 20
    min_backoff: int = 15_000
    max_backoff: int = 7 * 86_400_000
    retry_when: Callable[[int, BaseException], bool] | None = None
    time_limit: float = 600_000
    max_age: int | None = None


@dataclass(frozen=True, slots=True)
class ActorPolicy:
    """How an actor's job is timed and repeated, as the store keeps it."""

    timeout_s: float
    max_attempts: int
    backoff_s: tuple[float, ...]


def take_over(defaults: ActorDefaults, middleware: Middleware) -> ActorDefaults | None:
    """Return the defaults that one of the three replaced middlewares was configured with; None for any other."""
    values = {name: getattr(defaults, name) for name in ActorDefaults.__slots__}
    if isinstance(middleware, Retries):
        values |= {
            "max_retries": middleware.max_retries,
            "min_backoff": middleware.min_backoff,
            "max_backoff": middleware.max_backoff,
            "retry_when": middleware.retry_when,
        }
    elif isinstance(middleware, TimeLimit):
        values["time_limit"] = middleware.time_limit
    elif isinstance(middleware, AgeLimit):
        values["max_age"] = middleware.max_age
    else:
        return None
    return ActorDefaults(**values)


def read_policy(options: Mapping[str, Any], actor: Mapping[str, Any], defaults: ActorDefaults) -> ActorPolicy:
    """Read the policy from a message's options, the actor's, and the defaults, in this order.

    The delays double from ``min_backoff`` up to ``max_backoff``, where the list ends: the last one repeats.
    """

    def option(name: str) -> Any:
        return options.get(name, actor.get(name, getattr(defaults, name)))

    retries = option("max_retries")
    attempts = _UNBOUNDED_ATTEMPTS if retries is None else min(_UNBOUNDED_ATTEMPTS, max(1, int(retries) + 1))
    least_s, most_s = option("min_backoff") / 1000, min(_LONGEST_S, option("max_backoff") / 1000)
    delays = [min(least_s, most_s)]
    while 0 < delays[-1] < most_s and len(delays) < min(attempts - 1, 32):
        delays.append(min(most_s, delays[-1] * 2))
    limit = options.get("time_limit") or actor.get("time_limit") or defaults.time_limit
    timeout_s = _LONGEST_S if not math.isfinite(limit) else min(_LONGEST_S, max(0.001, limit / 1000))
    return ActorPolicy(timeout_s, attempts, tuple(delays))
