"""The contract as code: ids, states, positions, events, models and errors. Pure; does no I/O."""

from . import errors
from .events import Event, EventHead, read_head
from .ids import JOB_ID_PATTERN, is_job_id, make_job_id, new_job_id, shard_of
from .models import (
    MAX_PRIORITY,
    ChangeJob,
    EventPage,
    FeedEvent,
    FeedPage,
    FileInfo,
    Job,
    JobError,
    JobPage,
    JobStats,
    JobStatus,
    JobTypeInfo,
    Progress,
    RetryPolicy,
    SubmitJob,
)
from .position import BEGINNING, Position, accepts
from .states import EDGES, LIFECYCLE, TERMINAL_KINDS, TERMINAL_STATES, EventKind, JobState

__all__ = [
    "BEGINNING",
    "EDGES",
    "JOB_ID_PATTERN",
    "LIFECYCLE",
    "MAX_PRIORITY",
    "TERMINAL_KINDS",
    "TERMINAL_STATES",
    "ChangeJob",
    "Event",
    "EventHead",
    "EventKind",
    "EventPage",
    "FeedEvent",
    "FeedPage",
    "FileInfo",
    "Job",
    "JobError",
    "JobPage",
    "JobState",
    "JobStats",
    "JobStatus",
    "JobTypeInfo",
    "Position",
    "Progress",
    "RetryPolicy",
    "SubmitJob",
    "accepts",
    "errors",
    "is_job_id",
    "make_job_id",
    "new_job_id",
    "read_head",
    "shard_of",
]
