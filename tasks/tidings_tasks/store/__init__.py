"""The job store: the only place that spells a key or runs Lua. State, log and wake-up change together or not at all."""

from . import commands, worker_commands
from .commands import (
    Claim,
    Command,
    Enqueued,
    EventsRead,
    FeedRead,
    Head,
    Outcome,
    StepReply,
    Submission,
    Verb,
    Write,
    WriteCode,
)
from .durations import Durations, bucket_of
from .keys import Keyspace, Tenant
from .record import JobRecord, Spec, iso_time
from .store import Store, StoreMismatch, SyncStore
from .worker_commands import RunningJob, WorkerInfo

__all__ = [
    "Claim",
    "Command",
    "Durations",
    "Enqueued",
    "EventsRead",
    "FeedRead",
    "Head",
    "JobRecord",
    "Keyspace",
    "Outcome",
    "RunningJob",
    "Spec",
    "StepReply",
    "Store",
    "StoreMismatch",
    "Submission",
    "SyncStore",
    "Tenant",
    "Verb",
    "WorkerInfo",
    "Write",
    "WriteCode",
    "bucket_of",
    "commands",
    "iso_time",
    "worker_commands",
]
