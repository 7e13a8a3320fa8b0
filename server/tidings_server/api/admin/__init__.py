"""The calls for operators, one file a resource. All need the scope `admin`."""

from . import dead, dead_bulk, dependencies, queues, schedules, workers

__all__ = ["ROUTES"]

ROUTES = (
    *dead.ROUTES,
    *dead_bulk.ROUTES,
    *queues.ROUTES,
    *schedules.ROUTES,
    *workers.ROUTES,
    *dependencies.ROUTES,
)
