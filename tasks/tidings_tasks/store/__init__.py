"""The job store: the only place that spells a key or runs Lua. State, log and wake-up change together or not at all."""

from . import commands
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
from .keys import Keyspace, Tenant
from .record import JobRecord, Spec, iso_time
from .store import Store, StoreMismatch, SyncStore

__all__ = [
    "Claim",
    "Command",
    "Enqueued",
    "EventsRead",
    "FeedRead",
    "Head",
    "JobRecord",
    "Keyspace",
    "Outcome",
    "Spec",
    "StepReply",
    "Store",
    "StoreMismatch",
    "Submission",
    "SyncStore",
    "Tenant",
    "Verb",
    "Write",
    "WriteCode",
    "commands",
    "iso_time",
]
