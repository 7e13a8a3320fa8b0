"""Rate limits: a token bucket a caller, in this process's memory, for what creates something."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tidings.protocol.errors import RateLimited

__all__ = ["Allowance", "Limiter"]

_MAX_CALLERS = 20_000
_PERIOD_S = 60.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller has left. ``reset_s``: seconds until all of ``limit`` is there again."""

    limit: int
    remaining: int
    reset_s: float

    def headers(self) -> dict[str, str]:
        """The ``RateLimit-*`` fields (draft-ietf-httpapi-ratelimit-headers-07's three-field form)."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(math.ceil(self.reset_s)),
        }


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Limiter:
    """A bucket of ``per_minute`` tokens a caller, refilled evenly, so a burst of a whole minute's worth is let through.

    Each server process counts for itself. At most 20,000 callers are remembered; the one who was longest away is
    forgotten first, and only an idle caller's bucket can be full again by then.

    Args:
        per_minute: how many calls a minute and caller.
        now: a clock that never goes back, seconds.
    """

    def __init__(self, per_minute: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = per_minute
        self._per_s = per_minute / _PERIOD_S
        self._now = now
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def look(self, caller: str) -> Allowance:
        """Return what the caller has left, taking nothing."""
        return self._allowance(self._refilled(caller).tokens)

    def take(self, caller: str, count: int = 1) -> Allowance:
        """Take so many tokens, at most ``per_minute``, or none.

        Raises:
            RateLimited: the bucket has fewer; ``retry_after_s`` says when it has enough.
        """
        bucket = self._refilled(caller)
        self._buckets[caller] = bucket
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _MAX_CALLERS:
            self._buckets.popitem(last=False)
        if bucket.tokens < count:
            raise RateLimited(
                f"at most {self._limit} submissions a minute; wait as long as Retry-After says",
                retry_after_s=(count - bucket.tokens) / self._per_s,
            )
        bucket.tokens -= count
        return self._allowance(bucket.tokens)

    def _refilled(self, caller: str) -> _Bucket:
        now = self._now()
        bucket = self._buckets.get(caller)
        if bucket is None:
            return _Bucket(float(self._limit), now)
        return _Bucket(min(self._limit, bucket.tokens + (now - bucket.at) * self._per_s), now)

    def _allowance(self, tokens: float) -> Allowance:
        return Allowance(self._limit, int(tokens), (self._limit - tokens) / self._per_s)
