"""What the OpenAPI document shows: one job, from its submission to its result."""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "AT",
    "DEAD_JOB",
    "EVENT_PAGE",
    "FEED_PAGE",
    "FILE",
    "JOB",
    "JOB_PAGE",
    "JOB_TYPES",
    "RATE_LIMIT",
    "STATS",
    "STATUS",
]

_ID: Final = "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0"
_EPOCH: Final = "k3f9a1c2"
AT: Final = "2026-11-23T10:00:00.123Z"

STATUS: Final[dict[str, Any]] = {
    "id": _ID,
    "type": "report.render",
    "status": "running",
    "progress": {"percent": 42.0, "message": "page 5 of 12", "current": 5, "total": 12},
    "attempt": 1,
    "position": f"{_EPOCH}:7",
    "queue_position": None,
    "eta_s": None,
    "slow": False,
    "waiting_for": None,
    "updated_at": AT,
}
JOB: Final[dict[str, Any]] = STATUS | {
    "status": "queued",
    "progress": None,
    "attempt": 0,
    "position": f"{_EPOCH}:1",
    "queue_position": 1,
    "queue": "reports",
    "priority": 3,
    "owner": "alice",
    "org": "acme",
    "input": {"title": "Quarterly report"},
    "result": None,
    "result_ref": None,
    "error": None,
    "tries": 0,
    "max_attempts": 3,
    "timeout_s": 300,
    "tags": ["quarterly"],
    "metadata": {},
    "retry_of": None,
    "parent": None,
    "step": None,
    "concurrency_key": None,
    "expires_at": None,
    "usage": None,
    "worker": None,
    "cancel_requested": False,
    "created_at": AT,
    "run_at": None,
    "started_at": None,
    "finished_at": None,
}
DEAD_JOB: Final[dict[str, Any]] = JOB | {
    "status": "failed",
    "queue_position": None,
    "attempt": 3,
    "tries": 3,
    "error": {"code": "exception", "type": "KeyError", "message": "'rows'"},
    "started_at": AT,
    "finished_at": AT,
    "stack": "Traceback (most recent call last):\n  File \"jobs.py\", line 12, in render\nKeyError: 'rows'\n",
    "fingerprint": "3f0a9c1d2b4e5f60",
}
JOB_PAGE: Final[dict[str, Any]] = {"jobs": [JOB], "next_cursor": None}
_PROGRESS: Final[dict[str, Any]] = {
    "job_id": _ID,
    "epoch": _EPOCH,
    "seq": 7,
    "prev": 4,
    "kind": "progress",
    "at": AT,
    "attempt": 1,
    "data": {"percent": 42.0, "message": "page 5 of 12", "current": 5, "total": 12},
}
EVENT_PAGE: Final[dict[str, Any]] = {
    "events": [_PROGRESS],
    "position": f"{_EPOCH}:7",
    "done": False,
    "reset": False,
    "job": None,
}
_STARTED: Final[dict[str, Any]] = {
    "job_id": _ID,
    "epoch": _EPOCH,
    "seq": 2,
    "kind": "started",
    "at": AT,
    "attempt": 1,
    "data": {"worker": "host-1", "attempt": 1},
}
FEED_PAGE: Final[dict[str, Any]] = {
    "feed": "mine",
    "events": [{"feed": "mine", "position": "k3f9a1c2_18f:12", "event": _STARTED}],
    "position": "k3f9a1c2_18f:12",
    "jobs": None,
    "reset": False,
}
STATS: Final[dict[str, Any]] = {
    "mode": "standalone",
    "counts": {
        "scheduled": 0, "queued": 1, "running": 2, "retrying": 0,
        "waiting_input": 0, "completed": 40, "failed": 1, "cancelled": 0,
    },
    "total": 44,
    "timestamp": AT,
}  # fmt: skip
JOB_TYPES: Final[dict[str, Any]] = {
    "job_types": [
        {
            "type": "report.render",
            "description": "Render a report.",
            "queue": "reports",
            "timeout_s": 300,
            "retry": {"max_attempts": 3, "backoff_s": [10, 300]},
            "input_schema": {
                "type": "object",
                "properties": {"title": {"type": "string"}},
                "required": ["title"],
            },
        }
    ]
}
RATE_LIMIT: Final[dict[str, Any]] = {"limit": 6000, "remaining": 5998, "reset_s": 0.02}
FILE: Final[dict[str, Any]] = {
    "id": "01JD8Z5T6N8Q4W3E2R1T0Y9V8K",
    "name": "report.pdf",
    "media_type": "application/pdf",
    "size_bytes": 52_114,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created_at": AT,
    "url": "/api/files/01JD8Z5T6N8Q4W3E2R1T0Y9V8K",
}
