"""Ways to follow a job to its end, as different clients do; each returns the envelopes it was given, in order."""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import socketio

from tests.support.node import Node
from tests.support.timing import scaled
from tidings import Client
from tidings.protocol import Event

__all__ = ["Follow", "by_curl_poll", "by_curl_sse", "by_node", "by_sdk", "by_stock_python"]

Follow = Callable[[str, str, str], Awaitable[list[bytes]]]
"""Called with the server's URL, a token and the job's id."""

_END_S = 90.0


async def by_sdk(url: str, token: str, job_id: str) -> list[bytes]:
    """The Python SDK."""
    seen: list[bytes] = []
    async with asyncio.timeout(scaled(_END_S)), Client(url, token=token) as client:
        async for item in client.watch(job_id):
            assert isinstance(item, Event), item
            seen.append(orjson.dumps(item.model_dump(mode="json", exclude_none=False)))
    return seen


async def by_stock_python(url: str, token: str, job_id: str) -> list[bytes]:
    """The stock python-socketio client, over one WebSocket connection."""
    seen: list[bytes] = []
    ended = asyncio.Event()
    client = socketio.AsyncClient(reconnection=False)

    async def take(name: str, event: dict[str, object]) -> None:
        if name.startswith("job:"):
            seen.append(orjson.dumps(event))
            if event["kind"] in ("completed", "failed", "cancelled"):
                ended.set()

    client.on("*", take)
    await client.connect(url, auth={"token": token}, transports=["websocket"])
    try:
        ack = await client.call("subscribe", {"job_id": job_id, "after": "0"}, timeout=scaled(10))
        before = [orjson.dumps(event) for event in ack["events"]]
        if not any(Event.model_validate_json(text).is_terminal for text in before):
            async with asyncio.timeout(scaled(_END_S)):
                await ended.wait()
    finally:
        await client.disconnect()
        await client.shutdown()
    return before + seen


def by_node(node: Node, transports: str) -> Follow:
    """The stock Node client; ``polling,websocket`` is a browser's default."""

    async def follow(url: str, token: str, job_id: str) -> list[bytes]:
        script = Path(__file__).with_name("socketio.cjs")
        process = await asyncio.create_subprocess_exec(
            node.program, script, url, token, job_id, transports, env=node.env, stdout=PIPE, stderr=PIPE
        )
        return (await _finish(process)).splitlines()

    return follow


async def by_curl_poll(url: str, token: str, job_id: str) -> list[bytes]:
    """Long-polling with curl. A refused or broken connection is tried again from the same position."""
    seen: list[bytes] = []
    position, failures = "0", 0
    while True:
        try:
            answer = orjson.loads(
                await _curl(token, f"{url}/api/jobs/{job_id}/events?after={position}&wait=20")
            )
        except ConnectionError:
            failures += 1
            assert failures < 200, "the server did not come back"
            await asyncio.sleep(0.1)
            continue
        assert "events" in answer, answer
        assert not answer.get("reset"), answer
        seen += [orjson.dumps(event) for event in answer["events"]]
        position = answer["position"]
        if answer["done"]:
            return seen


async def by_curl_sse(url: str, token: str, job_id: str) -> list[bytes]:
    """SSE with curl. A broken stream is opened again with Last-Event-ID."""
    seen: list[bytes] = []
    last, failures = "0", 0
    while True:
        headers = ["-H", "Accept: text/event-stream", "-H", f"Last-Event-ID: {last}"]
        try:
            text = await _curl(token, f"{url}/api/jobs/{job_id}/events", "-N", *headers, partial=True)
        except ConnectionError:
            text = b""
        for block in text.split(b"\n\n"):
            fields = dict(
                line.split(b": ", 1) for line in block.splitlines() if b": " in line and line[:1] != b":"
            )
            if b"data" in fields and b"id" in fields:
                assert fields[b"event"] != b"reset", fields
                seen.append(fields[b"data"])
                last = fields[b"id"].decode()
                if fields[b"event"] in (b"completed", b"failed", b"cancelled"):
                    return seen
        failures += 1
        assert failures < 200, "the server did not come back"
        await asyncio.sleep(0.1)


async def _curl(token: str, url: str, *options: str, partial: bool = False) -> bytes:
    """Run curl. With ``partial``, what came before a broken connection counts, up to its last whole block.

    Raises:
        ConnectionError: the server was not reached, or went away.
    """
    program = shutil.which("curl")
    assert program, "these tests need curl"
    process = await asyncio.create_subprocess_exec(
        program,
        "-sS",
        "-m",
        "80",
        "-H",
        f"Authorization: Bearer {token}",
        *options,
        url,
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    if process.returncode and not (partial and out):
        raise ConnectionError(err.decode())
    return out[: out.rfind(b"\n\n") + 2] if partial else out


async def _finish(process: asyncio.subprocess.Process) -> bytes:
    try:
        async with asyncio.timeout(scaled(_END_S)):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"the follower did not end; it has {len(out.splitlines())} events") from None
    assert process.returncode == 0, err.decode()
    return out
