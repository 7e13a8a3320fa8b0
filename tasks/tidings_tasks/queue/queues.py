"""The built-in queues and their priorities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["BUILT_IN_QUEUES", "DEFAULT_PRIORITY", "order_queues", "priority_of"]

BUILT_IN_QUEUES: Mapping[str, int] = {
    "critical": 1,
    "documents": 2,
    "ai": 2,
    "embeddings": 2,
    "exports": 3,
    "reports": 3,
    "emails": 3,
    "webhooks": 3,
    "integrations": 3,
    "default": 3,
    "maintenance": 4,
    "scheduled": 5,
}
"""Every installation has these queues. 1 is served first."""

DEFAULT_PRIORITY = 3


def priority_of(queue: str) -> int:
    """The priority of a queue, and of a job that is put into it without another one."""
    return BUILT_IN_QUEUES.get(queue, DEFAULT_PRIORITY)


def order_queues(queues: Iterable[str]) -> list[str]:
    """Return the queues in the order in which a worker serves them: by priority, then by name."""
    return sorted(set(queues), key=lambda name: (priority_of(name), name))
