"""What an event stream's chunks become: batches, of which only the first with events answers the question."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tidings import WatchPolicy, errors
from tidings.cursor import Batch
from tidings.protocol.ids import new_job_id
from tidings.transport import TransportFailed
from tidings.transport.sse import ServerSentEvents

JOB = new_job_id(0)
NOW = "2026-11-23T10:00:00Z"


class Chunks:
    """Stands in for a response, so that the test decides where the stream is cut; sockets don't let it."""

    content_type = "text/event-stream"

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.content = self

    @asynccontextmanager
    async def exchange(self, *_: Any, **__: Any) -> AsyncIterator[Chunks]:
        yield self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def message(seq: int, epoch: str = "e1") -> bytes:
    """Make an event as a message."""
    event = {"job_id": JOB, "epoch": epoch, "seq": seq, "kind": "log", "at": NOW, "attempt": 1, "data": {}}
    return b"event: log\ndata: " + json.dumps(event).encode() + b"\n\n"


async def follow(*chunks: bytes) -> list[Batch]:
    """Take the batches of these chunks; behind the last one the stream has broken off."""
    batches: list[Batch] = []
    stream = ServerSentEvents(Chunks(*chunks), WatchPolicy())  # type: ignore[arg-type]  # a stand-in for Http

    async def take() -> None:
        async for batch in stream.follow(JOB, "0"):
            batches.append(batch)  # noqa: PERF401 - what came before the error is wanted

    with pytest.raises(TransportFailed, match="ended before the job did"):
        await take()
    return batches


async def test_a_comment_is_a_sign_of_life_and_the_first_events_are_the_answer() -> None:
    """Only they may lead into another epoch."""
    batches = await follow(b": hello\n\n", message(1) + message(2), message(3)[:40], message(3)[40:])
    assert [[event.seq for event in batch.events] for batch in batches] == [[], [1, 2], [], [3]]
    assert [batch.answer for batch in batches] == [True, True, False, False]


async def test_a_reset_stands_between_what_came_before_and_behind_it() -> None:
    """In one chunk."""
    job = {
        "id": JOB, "type": "t", "status": "running", "progress": None, "attempt": 1, "position": "e2:5",
        "updated_at": NOW, "queue": "q", "priority": 5, "owner": "o", "org": None, "input": {}, "tries": 0,
        "max_attempts": 1, "timeout_s": 1, "tags": [], "metadata": {}, "created_at": NOW,
    }  # fmt: skip
    reset = b"event: reset\ndata: " + json.dumps({"job": job, "position": "e2:5"}).encode() + b"\n\n"
    batches = await follow(message(1) + reset + message(6, "e2"))
    assert [(len(batch.events), batch.reset, batch.position) for batch in batches] == [
        (1, False, None),
        (0, True, "e2:5"),
        (1, False, None),
    ]


@pytest.mark.parametrize(
    "chunk", [b"data: {\n\n", b"event: reset\ndata: {}\n\n", b"data: []\n\n", b"data: 1\n\n"]
)
async def test_what_is_no_event_is_an_error_that_no_retry_mends(chunk: bytes) -> None:
    """The server speaks another language."""
    stream = ServerSentEvents(Chunks(chunk), WatchPolicy())  # type: ignore[arg-type]  # a stand-in for Http
    with pytest.raises(errors.InternalError) as caught:
        await anext(stream.follow(JOB, "0"))
    assert not caught.value.temporary
