"""What the machine does to a store: submissions, writes, limits and states, likely to get into each other's way."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tidings_tasks.store import Breaker, QueueLimits, QueueState, Rate, Tenant, Verb

from .bench import ALICE, START_MS

__all__ = [
    "MAX_QUEUE_LENGTH", "NO_LIMITS", "QUEUES", "TENANTS", "TOKEN_MS", "breakers", "limits", "small", "states", "submissions",
    "wishes", "writes",
]  # fmt: skip

TENANTS = [ALICE, Tenant("bob", "acme"), Tenant("alice")]
QUEUES = ["a", "b"]
MAX_QUEUE_LENGTH = 5
TOKEN_MS = 600_000
"""Tokens come so slowly because buckets expire by the machine's clock, which goes on while the store's is held."""
HOUR_MS = 3_600_000
NO_LIMITS = QueueLimits()

small = st.integers(0, 10_000)
"""Picks one of what there is, modulo how much there is."""


def rarely(*values: Any, usually: Any) -> st.SearchStrategy[Any]:
    """Pick the usual value two times out of three."""
    return st.sampled_from([*values, *[usually] * 2 * len(values)])


submissions = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(TENANTS),
        "queue": st.sampled_from(QUEUES),
        "priority": st.integers(1, 3),
        "due": st.sampled_from(["", "", "", "+1000", "+1", str(START_MS + 5_000)]),
        "max_attempts": st.integers(1, 4),
        "idempotency_key": rarely("k", "l", usually=""),
        "fingerprint": st.sampled_from(["f", "g"]),
        "expires": rarely("+1", "+6000", str(START_MS + 1_000), usually=""),
        "concurrency_key": rarely("k", "k", "l", usually=""),
        "concurrency_limit": st.sampled_from([1, 1, 2]),
        "dedup_key": rarely("k", "l", usually=""),
        "dedup_ttl_ms": rarely(HOUR_MS, usually=0),
        "debounce": st.booleans(),
        "dependency": rarely("api", usually=""),
        "completed_kept_ms": rarely(5_000, usually=None),
    }
)
wishes = st.sampled_from(
    [
        {},
        {"concurrency_key": "k"},
        {"concurrency_key": "k", "expires": "+6000"},
        {"concurrency_key": "k", "concurrency_limit": 2},
        {"dependency": "api"},
        {"dependency": "api"},
        {"dependency": "api", "concurrency_key": "k"},
        {"dedup_key": "k", "debounce": True, "due": "+1000"},
    ]
)
writes = st.fixed_dictionaries(
    {
        "job": small,
        "attempt": st.sampled_from([0, 0, 0, 0, 0, 0, -1, 100]),
        "number": st.sampled_from([1, 1, 1, 1, 1, 0, -1, 3]),
        "verb": st.sampled_from([*Verb, *[Verb.PROGRESS] * 4, Verb.LOG, Verb.OUTPUT, Verb.RETRY]),
        "extra": st.sampled_from(['{"delay_ms":0}', '{"delay_ms":1000,"dead":true}']),
        "message": st.sampled_from(["row 1 is bad", "row 2 is bad", "no"]),
    }
)
rates = st.sampled_from(
    [None, None, *(Rate(count, TOKEN_MS / 1000, burst) for count, burst in [(1, 1), (1, 2), (2, 1), (3, 3)])]
)
limits = st.builds(
    QueueLimits,
    max_length=rarely(2, usually=None),
    max_running=rarely(1, 2, usually=None),
    rate=rates,
    rate_per_owner=rates,
    rate_per_org=rates,
)
breakers = st.sampled_from([Breaker(1, 60, 10), Breaker(2, 60, 10), Breaker(2, 1, 1)])
states = st.sampled_from([*QueueState, QueueState.ACTIVE])
