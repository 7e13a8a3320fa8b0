"""Job ids: a ULID and the shard that holds the job, ``^[0-9A-HJKMNP-TV-Z]{26}s[0-9]+$`` (contract §1)."""

from __future__ import annotations

import re
import secrets
import time

__all__ = ["JOB_ID_PATTERN", "is_job_id", "make_job_id", "new_job_id", "shard_of", "time_ms_of"]

JOB_ID_PATTERN = r"^[0-9A-HJKMNP-TV-Z]{26}s[0-9]+$"
_JOB_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}s(0|[1-9][0-9]{0,4})")
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


def new_job_id(shard: int, *, now_ms: int | None = None) -> str:
    """Make an id: 48 bits of time and 80 random bits (ULID, Crockford base 32), then ``s`` and the shard.

    Ids sort by creation time to the millisecond; within one millisecond their order is random.
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return make_job_id(shard, now_ms, secrets.randbits(80))


def make_job_id(shard: int, time_ms: int, bits: int) -> str:
    """Make the id of these parts: 48 bits of time, 80 other bits, and the shard. Equal parts make equal ids."""
    value = (time_ms << 80) | bits
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)]) + f"s{shard}"


def is_job_id(text: object) -> bool:
    """Tell whether ``text`` has the form of a job id. It says nothing about the job's existence."""
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


def shard_of(job_id: str) -> int:
    """Return the shard a well-formed job id names.

    Raises:
        ValueError: ``job_id`` is not of the form above.
    """
    match = _JOB_ID.fullmatch(job_id)
    if match is None:
        raise ValueError(f"not a job id: {job_id[:64]!r}")
    return int(match.group(1))


def time_ms_of(job_id: str) -> int:
    """Return the time in an id, ms since the Unix epoch: when it was made, unless whoever made it chose another one."""
    value = 0
    for character in job_id[:10]:
        value = value * 32 + _ALPHABET.index(character)
    return value
