"""What a worker and its child processes tell each other: frames of a JSON list and bytes, over a socket pair.

Worker to child
    init {settings}                             once, first
    run attempt, module, is shutting down       the body is the job's spec
    stop reason, is urgent · shutting_down
    ack n                                       there is room again for all of the child's first n writes
    flushed n                                   the store has what was written before the child's flush n
    exit                                        end after this job
Child to worker
    ready · broken                              the body of ``broken`` says why no job can run
    write verb · join stream                    the body is the event's data, or text of a stream
    flush n
    end {outcome}                               the body is the data of the attempt's last write
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import orjson

__all__ = ["Frame", "FrameReader", "pack"]

_SIZES = struct.Struct(">II")


class Frame(NamedTuple):
    """One message: what it is, its arguments, and bytes that are passed on as they are."""

    what: str
    args: list[Any]
    body: bytes


def pack(what: str, *args: Any, body: bytes = b"") -> bytes:
    """Encode a frame."""
    head = orjson.dumps([what, *args])
    return b"".join((_SIZES.pack(len(head), len(body)), head, body))


class FrameReader:
    """Finds the frames in what arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now."""
        buffer = self._buffer
        buffer += data
        found: list[Frame] = []
        at = 0
        while len(buffer) - at >= _SIZES.size:
            head_size, body_size = _SIZES.unpack_from(buffer, at)
            body_at = at + _SIZES.size + head_size
            if len(buffer) < body_at + body_size:
                break
            what, *args = orjson.loads(buffer[at + _SIZES.size : body_at])
            found.append(Frame(what, args, bytes(buffer[body_at : body_at + body_size])))
            at = body_at + body_size
        del buffer[:at]
        return found
