"""The job store: the only place that spells a key or runs Lua. State, log and wake-up change together or not at all."""

from . import bulk_commands, commands, schedule_commands, worker_commands
from .commands import (
    Claim,
    Command,
    DeadGroup,
    DeadPage,
    Enqueued,
    EventsRead,
    FeedRead,
    Head,
    Outcome,
    PurgePage,
    StepReply,
    Submission,
    Verb,
    Write,
    WriteCode,
)
from .durations import Durations, bucket_of
from .keys import Keyspace, Tenant
from .limits import Breaker, BreakerInfo, BreakerState, QueueInfo, QueueLimits, QueueState, Rate
from .record import JobRecord, Spec, iso_time
from .store import Store, StoreMismatch, SyncStore
from .worker_commands import RunningJob, WorkerInfo

__all__ = [
    "Breaker",
    "BreakerInfo",
    "BreakerState",
    "Claim",
    "Command",
    "DeadGroup",
    "DeadPage",
    "Durations",
    "Enqueued",
    "EventsRead",
    "FeedRead",
    "Head",
    "JobRecord",
    "Keyspace",
    "Outcome",
    "PurgePage",
    "QueueInfo",
    "QueueLimits",
    "QueueState",
    "Rate",
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
    "bulk_commands",
    "commands",
    "iso_time",
    "schedule_commands",
    "worker_commands",
]
