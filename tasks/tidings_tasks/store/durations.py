"""How long jobs of a type take: a histogram with log-spaced buckets, and the percentiles that are read from it.

Bucket 0 ends at 1.2 ms and each one is a fifth wider than the one before. A percentile is the geometric middle of its
bucket, so it is at most 10 % off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["LAST_BUCKET", "Durations", "bucket_of"]

_FIRST_S = 0.001
_RATIO = 1.2
_LOG_RATIO = math.log(_RATIO)
LAST_BUCKET = 119
"""Whatever takes longer than a month falls into it."""


def bucket_of(duration_s: float) -> int:
    """Return the number of the bucket that a duration falls into."""
    if duration_s < _FIRST_S:
        return 0
    return min(LAST_BUCKET, int(math.log(duration_s / _FIRST_S) / _LOG_RATIO))


@dataclass(frozen=True, slots=True)
class Durations:
    """What is known of a type's completed jobs. ``count`` is what the percentiles rest on: newer jobs, at most 1,000."""

    p50_s: float
    p90_s: float
    p95_s: float
    count: int

    @classmethod
    def from_buckets(cls, buckets: Mapping[int, int]) -> Durations | None:
        """Read a histogram; None when it is empty."""
        total = sum(buckets.values())
        if total <= 0:
            return None
        p50_s, p90_s, p95_s = _percentiles(buckets, total, (0.50, 0.90, 0.95))
        return cls(p50_s, p90_s, p95_s, total)


def _percentiles(buckets: Mapping[int, int], total: int, ranks: Iterable[float]) -> list[float]:
    found: list[float] = []
    ordered = sorted(buckets)
    for rank in ranks:
        below, bucket = 0, ordered[-1]
        for at in ordered:
            below += buckets[at]
            if below >= rank * total:
                bucket = at
                break
        found.append(_FIRST_S * _RATIO ** (bucket + 0.5))
    return found
