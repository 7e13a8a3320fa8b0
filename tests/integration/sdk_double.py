"""A small real server that speaks the contract over real sockets, and misbehaves as a test asks it to.

The real server must not drop, repeat, fork or stall on demand; only a double can show that the SDK withstands it.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import socketio
from aiohttp import web

from tidings import Backoff, WatchPolicy
from tidings.protocol import TERMINAL_KINDS, Position, new_job_id

__all__ = ["GOOD_TOKEN", "IMPATIENT", "Double", "ScriptedJob", "answer_problem", "running"]

GOOD_TOKEN = "good-token"  # a fixed word of this double, not a secret
IMPATIENT = WatchPolicy(
    failures_before_descent=2,
    stable_after_s=0.3,
    probe_every_s=0.2,
    offline_timeout_s=20,
    poll_wait_s=1,
    connect_timeout_s=1,
    silence_timeout_s=1,
    backoff=Backoff(base_s=0.02, cap_s=0.1),
)
Envelope = dict[str, Any]


@dataclass
class ScriptedJob:
    """A job whose log the test writes."""

    id: str = field(default_factory=lambda: new_job_id(0))
    epoch: str = "e1"
    log: list[Envelope] = field(default_factory=list)
    forks: dict[str, int] = field(default_factory=dict)
    status: str = "queued"
    input: Any = None
    result: Any = None
    result_ref: str | None = None
    error: dict[str, Any] | None = None
    retry_of: str | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def head(self) -> int:
        """The newest seq."""
        return int(self.log[-1]["seq"]) if self.log else 0

    @property
    def position(self) -> str:
        """Where the log stands."""
        return f"{self.epoch}:{self.head}"

    @property
    def done(self) -> bool:
        """Whether the job has ended."""
        return bool(self.log) and self.log[-1]["kind"] in TERMINAL_KINDS

    def is_valid(self, after: Position) -> bool:
        """Tell whether a reader that stands there can go on."""
        if after.epoch and after.epoch != self.epoch and after.seq > self.forks.get(after.epoch, -1):
            return False
        return after.seq <= self.head and (not self.log or _base(self.log[0]) <= after.seq)

    def page(self, after_text: str, limit: int) -> dict[str, Any]:
        """Answer what follows a position, as the contract's §4 and §5 say."""
        after = Position.parse(after_text)
        if self.is_valid(after):
            events = [event for event in self.log if event["seq"] > after.seq][:limit]
            stands = f"{events[-1]['epoch']}:{events[-1]['seq']}" if events else self.position
            return {"events": events, "position": stands, "done": self.done and stands == self.position}
        events = self.log[-1:] if self.done else []
        return {
            "events": events,
            "position": self.position,
            "done": self.done,
            "reset": True,
            "job": self.record(),
        }

    def record(self) -> dict[str, Any]:
        """The whole job."""
        now = datetime.now(UTC).isoformat()
        return {
            "id": self.id, "type": "demo.steps", "status": self.status, "progress": None, "attempt": 1,
            "position": self.position, "updated_at": now, "queue": "default", "priority": 5, "owner": "alice",
            "org": None, "input": self.input, "result": self.result, "result_ref": self.result_ref,
            "error": self.error, "tries": 0, "max_attempts": 3, "timeout_s": 60.0, "tags": [], "metadata": {},
            "retry_of": self.retry_of, "created_at": now,
        }  # fmt: skip


class Double:
    """One server; `start` again after `stop` to come back on the same port with the same jobs."""

    def __init__(self) -> None:
        self.jobs: dict[str, ScriptedJob] = {}
        self.tokens = {GOOD_TOKEN}
        self.expired: set[str] = set()
        self.port = 0
        # What goes wrong:
        self.block: set[str] = set()
        """Any of ``websocket``, ``sse``, ``poll``, ``rest``: answered 403 by a gateway."""
        self.faults: deque[web.Response] = deque()
        """Answers to the next REST calls that are no event requests."""
        self.mangle: Callable[[Envelope], list[Envelope]] = lambda event: [event]
        """What becomes of each live event on a socket or stream."""
        self.ack_gate: asyncio.Event | None = None
        """Acks wait for it; events of the job are sent meanwhile, as they must not be."""
        self.stale_ack = False
        """Whether an ack held by the gate tells of the time before it."""
        self.ack_limit = 1_000
        self.rest_gate: asyncio.Event | None = None
        """What an ack could not hold waits for it, and is given up when the subscription is replaced meanwhile."""
        self.refuse_connect: dict[str, Any] | None = None
        self.hold_sse_body = False
        # What was seen:
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.subscribes: list[tuple[str, str]] = []
        self.unsubscribed: asyncio.Queue[str] = asyncio.Queue()
        self.subscribed: asyncio.Queue[str] = asyncio.Queue()
        self.streamed: asyncio.Queue[str] = asyncio.Queue()
        self.polled: asyncio.Queue[str] = asyncio.Queue()
        self.authenticated: asyncio.Queue[str] = asyncio.Queue()
        self._keys: dict[str, ScriptedJob] = {}
        self._subscriptions: dict[str, dict[str, bool]] = {}
        self._transports: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None
        self._pending: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connected(self) -> int:
        """How many Socket.IO clients there are."""
        return len(self._subscriptions)

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._sio = socketio.AsyncServer(async_mode="aiohttp", async_handlers=False, monitor_clients=False)
        self._sio.on("connect", self._on_connect)
        self._sio.on("disconnect", self._on_disconnect)
        self._sio.on("subscribe", self._on_subscribe)
        self._sio.on("unsubscribe", self._on_unsubscribe)
        self._sio.on("authenticate", self._on_authenticate)
        app = web.Application(middlewares=[self._gate], client_max_size=8 << 20)
        self._sio.attach(app)
        app.router.add_post("/api/jobs", self._submit)
        app.router.add_get("/api/jobs", self._list)
        app.router.add_get("/api/jobs/stats", self._stats)
        app.router.add_get("/api/jobs/{id}", self._get)
        app.router.add_get("/api/jobs/{id}/status", self._status)
        app.router.add_get("/api/jobs/{id}/result", self._result)
        app.router.add_get("/api/jobs/{id}/events", self._events)
        app.router.add_post("/api/jobs/{id}/cancel", self._cancel)
        app.router.add_post("/api/jobs/{id}/retry", self._retry)
        app.router.add_delete("/api/jobs/{id}", self._delete)
        app.router.add_post("/api/files", self._upload)
        app.router.add_get("/api/files/{id}", self._download)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Die: drop everything and stop listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self.drop()
            for task in self._pending:
                task.cancel()
            await runner.cleanup()
            await self._sio.shutdown()
            # The library leaves the heartbeat of each connection asleep for its whole interval.
            for heartbeat in asyncio.all_tasks():
                if "_send_ping" in repr(heartbeat.get_coro()):
                    heartbeat.cancel()
            self._subscriptions.clear()

    def drop(self) -> None:
        """Cut every connection without a word."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    def add(self, **fields: Any) -> ScriptedJob:
        """Make a job with its `queued` event."""
        job = ScriptedJob(**fields)
        self.jobs[job.id] = job
        self.append(job, "queued", {"queue": "default", "priority": 5})
        return job

    def append(
        self, job: ScriptedJob, kind: str, data: dict[str, Any] | None = None, *, folded: int = 0
    ) -> Envelope:
        """Write an event behind ``folded`` progress events that left no trace, and tell the watchers."""
        seq = job.head + 1 + folded
        event: Envelope = {"job_id": job.id, "epoch": job.epoch, "seq": seq}
        if folded:
            event["prev"] = job.head
        event |= {"kind": kind, "at": datetime.now(UTC).isoformat(), "attempt": 1, "data": data or {}}
        job.log.append(event)
        if kind in TERMINAL_KINDS:
            job.status = kind
            job.result, job.error = (data or {}).get("result"), (data or {}).get("error")
        elif kind == "started":
            job.status = "running"
        job.changed.set()
        job.changed = asyncio.Event()
        for sid, jobs in self._subscriptions.items():
            if jobs.get(job.id):
                self._emit(sid, [event])
        return event

    def progress(self, job: ScriptedJob, count: int, *, folded: int = 0) -> None:
        """Write several progress events."""
        for _ in range(count):
            self.append(
                job, "progress", {"percent": 1.0, "current": job.head + 1, "total": 100}, folded=folded
            )

    def fork(self, job: ScriptedJob, head: int) -> None:
        """Lose the events behind ``head`` and begin a new epoch there."""
        job.forks = {epoch: min(seq, head) for epoch, seq in job.forks.items()} | {job.epoch: head}
        job.log = [event for event in job.log if event["seq"] <= head]
        job.epoch = f"e{len(job.forks) + 1}"

    async def flush(self) -> None:
        """Wait until all events are on their way."""
        await asyncio.gather(*self._pending)

    async def say(self, name: str, data: dict[str, Any]) -> None:
        """Emit an event to every Socket.IO client."""
        await self._sio.emit(name, data)

    async def hang_up(self) -> None:
        """Disconnect every Socket.IO client properly."""
        for sid in list(self._subscriptions):
            await self._sio.disconnect(sid)

    # Socket.IO

    async def _on_connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        problem = self.refuse_connect or self._check((auth or {}).get("token"))
        if problem is not None:
            raise socketio.exceptions.ConnectionRefusedError(problem["code"], problem)
        self._subscriptions[sid] = {}

    def _on_disconnect(self, sid: str, reason: str) -> None:
        self._subscriptions.pop(sid, None)

    async def _on_subscribe(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        job_id, after = data["job_id"], data.get("after")
        self.subscribes.append((job_id, after))
        job = self.jobs.get(job_id)
        if job is None:
            return {"ok": False, "error": _problem(404, "job_not_found")}
        answer = {"ok": True, **job.page(after, self.ack_limit)}
        if self.ack_gate is not None:
            self._subscriptions[sid][job_id] = True
            self.subscribed.put_nowait(after)
            await self.ack_gate.wait()
            if not self.stale_ack:
                answer = {"ok": True, **job.page(after, self.ack_limit)}
        else:
            self._subscriptions[sid][job_id] = False
            # Runs when the ack has been queued: the rest of the log, then live.
            task = asyncio.create_task(self._go_live(sid, job, answer["position"]))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
            self.subscribed.put_nowait(after)
        return answer

    async def _go_live(self, sid: str, job: ScriptedJob, position: str) -> None:
        seq, current = Position.parse(position).seq, len(self.subscribes)
        if self.rest_gate is not None:
            await self.rest_gate.wait()
            if len(self.subscribes) != current:
                return
        self._emit(sid, [event for event in job.log if event["seq"] > seq])
        if sid in self._subscriptions:
            self._subscriptions[sid][job.id] = True

    def _emit(self, sid: str, events: list[Envelope]) -> None:
        for event in self._mangled(events):
            task = asyncio.ensure_future(self._sio.emit(f"job:{event['kind']}", event, to=sid))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    def _mangled(self, events: list[Envelope]) -> list[Envelope]:
        return [copy for event in events for copy in self.mangle(event)]

    async def _on_unsubscribe(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        self._subscriptions[sid].pop(data["job_id"], None)
        self.unsubscribed.put_nowait(data["job_id"])
        return {"ok": True}

    async def _on_authenticate(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        self.authenticated.put_nowait(data["token"])
        return {"ok": self._check(data["token"]) is None}

    # REST

    def _check(self, token: str | None) -> dict[str, Any] | None:
        if token in self.expired:
            return _problem(401, "token_expired")
        return None if token in self.tokens else _problem(401, "unauthenticated")

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        assert isinstance(request.transport, asyncio.Transport)
        self._transports.add(request.transport)
        path = request.path
        self.requests.append((request.method, path))
        if path.startswith("/socket.io"):
            return web.Response(status=403) if "websocket" in self.block else await handler(request)
        self.headers.append(dict(request.headers))
        what = "rest"
        if path.endswith("/events"):
            what = "sse" if "event-stream" in request.headers.get("Accept", "") else "poll"
        if what in self.block:
            return web.Response(status=403, text="<h1>no</h1>", content_type="text/html")
        if what == "rest" and self.faults:
            return self.faults.popleft()
        problem = self._check(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if problem is None and request.match_info.get("id", "") not in {"", *self.jobs} and "jobs" in path:
            problem = _problem(404, "job_not_found")
        return answer_problem(problem) if problem else await handler(request)

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if body["type"] == "demo.invalid":
            errors = [{"field": "input.steps", "code": "missing", "message": "Field required"}]
            return answer_problem(_problem(422, "invalid_input") | {"errors": errors})
        key = request.headers["Idempotency-Key"]
        if key not in self._keys:
            self._keys[key] = self.add(input=body.get("input", {}))
        return web.json_response(self._keys[key].record(), status=202)

    async def _list(self, request: web.Request) -> web.Response:
        jobs = sorted(self.jobs.values(), key=lambda job: job.id, reverse=True)
        jobs = [job for job in jobs if job.status == request.query.get("status", job.status)]
        start, limit = int(request.query.get("cursor", 0)), int(request.query.get("limit", 50))
        rest = start + limit < len(jobs)
        page = [job.record() for job in jobs[start : start + limit]]
        return web.json_response({"jobs": page, "next_cursor": str(start + limit) if rest else None})

    async def _stats(self, _: web.Request) -> web.Response:
        counts = {job.status: 1 for job in self.jobs.values()}
        now = datetime.now(UTC).isoformat()
        return web.json_response(
            {"mode": "embedded", "counts": counts, "total": len(self.jobs), "timestamp": now}
        )

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._job(request).record())

    async def _status(self, request: web.Request) -> web.Response:
        job = self._job(request)
        etag = request.headers.get("If-None-Match", f'W/"{job.position}"')
        if f'W/"{job.position}"' == etag and "wait" in request.query and not job.done:
            await _wait(job.changed, float(request.query["wait"]))
        if request.headers.get("If-None-Match") == f'W/"{job.position}"':
            return web.Response(status=304)
        return web.json_response(job.record(), headers={"ETag": f'W/"{job.position}"'})

    async def _result(self, request: web.Request) -> web.Response:
        return web.json_response({"large": self._job(request).id})

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.done:
            return answer_problem(_problem(409, "illegal_state"))
        reason = (await request.json())["reason"] if request.can_read_body else None
        self.append(job, "cancelled", {"by": "alice", "reason": reason})
        return web.json_response(job.record(), status=202)

    async def _retry(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.status not in {"failed", "cancelled"}:
            return answer_problem(_problem(409, "illegal_state"))
        return web.json_response(self.add(retry_of=job.id).record(), status=202)

    async def _delete(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if not job.done:
            return answer_problem(_problem(409, "illegal_state"))
        del self.jobs[job.id]
        return web.Response(status=204)

    async def _upload(self, request: web.Request) -> web.Response:
        part = (await request.post())["file"]
        assert isinstance(part, web.FileField)
        content = part.file.read()
        self.bodies.append(content)
        now = datetime.now(UTC).isoformat()
        return web.json_response(
            {"id": "F1", "name": part.filename, "media_type": part.content_type, "size_bytes": len(content),
             "sha256": "00", "created_at": now, "url": "/api/files/F1"},
            status=201,
        )  # fmt: skip

    async def _download(self, request: web.Request) -> web.Response:
        return web.Response(body=request.match_info["id"].encode() * 1000)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        after = request.query.get("after", "0")
        if "event-stream" in request.headers.get("Accept", ""):
            return await self._stream(request, job, after)
        self.polled.put_nowait(after)
        page = job.page(after, int(request.query.get("limit", 1000)))
        wait_s = float(request.query.get("wait", 0))
        if wait_s and not page["events"] and not page["done"] and not page.get("reset"):
            await _wait(job.changed, wait_s)
            page = job.page(after, int(request.query.get("limit", 1000)))
        return web.json_response(page)

    async def _stream(self, request: web.Request, job: ScriptedJob, after: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.streamed.put_nowait(after)
        if self.hold_sse_body:
            await asyncio.Event().wait()
        await response.write(b": open\n\n")
        while True:
            changed = job.changed
            page = job.page(after, 1_000)
            if page.get("reset"):
                event = (
                    f"event: reset\ndata: {json.dumps({'job': page['job'], 'position': job.position})}\n\n"
                )
                if page["events"]:
                    before = f"{job.epoch}:{_base(page['events'][0])}"
                    event = f"event: reset\ndata: {json.dumps({'job': page['job'], 'position': before})}\n\n"
                await response.write(event.encode())
            for sent in self._mangled(page["events"]):
                place = f"{sent['epoch']}:{sent['seq']}"
                text = f"event: {sent['kind']}\nid: {place}\ndata: {json.dumps(sent)}\n\n"
                await response.write(text.encode())
            after = page["position"]
            if job.done:
                return response
            if not await _wait(changed, 0.2):
                await response.write(b": heartbeat\n\n")

    def _job(self, request: web.Request) -> ScriptedJob:
        return self.jobs[request.match_info["id"]]


@asynccontextmanager
async def running() -> AsyncIterator[Double]:
    """Run a double."""
    double = Double()
    await double.start()
    try:
        yield double
    finally:
        await double.stop()


def answer_problem(problem: dict[str, Any], **headers: str) -> web.Response:
    """Answer a problem document."""
    return web.json_response(
        problem, status=problem["status"], content_type="application/problem+json",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )  # fmt: skip


def _problem(status: int, code: str) -> dict[str, Any]:
    return {"type": f"/problems/{code}", "title": code, "status": status, "detail": f"the double says {code}",
            "code": code, "request_id": "r1"}  # fmt: skip


def _base(event: Envelope) -> int:
    return int(event.get("prev", event["seq"] - 1))


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
