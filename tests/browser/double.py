"""A server that speaks the contract and misbehaves as told: it repeats, drops, swaps, forks, mutes and hangs up.

The real server must not do these things, so that only a double can show that the browser client withstands them.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import socketio
from aiohttp import web

from tidings.protocol import TERMINAL_KINDS, Position, new_job_id

__all__ = ["CSP", "Double", "ScriptedJob"]

STATIC = Path(__file__).parents[2] / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
BLANK_PAGE = "<!doctype html><meta charset=utf-8><title>double</title><link rel=icon href=data:,>"

NO_SUCH_JOB = {
    "code": "job_not_found",
    "status": 404,
    "title": "There is no such job",
    "detail": "no such job",
}

Event = dict[str, Any]


class ScriptedJob:
    """A job whose log the test writes, one event at a time."""

    def __init__(self) -> None:
        self.id = new_job_id(0)
        self.epoch = "e1"
        self.log: list[Event] = []
        self.forks: dict[str, int] = {}
        self.status = "queued"
        self.progress: dict[str, Any] | None = None
        self.result: Any = None
        self.holes: set[int] = set()
        self.max_page = 1_000
        self.ack_limit = 1_000

    @property
    def head(self) -> int:
        """The newest seq."""
        return self.log[-1]["seq"] if self.log else 0

    @property
    def position(self) -> str:
        """Where the log stands."""
        return f"{self.epoch}:{self.head}"

    @property
    def done(self) -> bool:
        """Whether the log has ended."""
        return bool(self.log) and self.log[-1]["kind"] in TERMINAL_KINDS

    def append(self, kind: str, data: dict[str, Any] | None = None, *, prev: int | None = None) -> Event:
        """Write the next event to the log, without telling anybody; ``prev`` leaves out what was folded."""
        seq = self.head + 1
        event: Event = {"job_id": self.id, "epoch": self.epoch, "seq": seq}
        if prev is not None:
            event["seq"] = seq = seq + 3
            event["prev"] = prev
        event |= {"kind": kind, "at": datetime.now(UTC).isoformat(), "attempt": 1, "data": data or {}}
        self.log.append(event)
        if kind == "progress":
            self.status, self.progress = "running", data
        elif kind in TERMINAL_KINDS:
            self.status, self.result = kind, (data or {}).get("result")
        return event

    def fork(self, keep: int) -> None:
        """Lose what came after seq ``keep`` and go on under another epoch."""
        self.forks[self.epoch] = keep
        self.epoch = f"e{len(self.forks) + 1}"
        self.log = [event for event in self.log if event["seq"] <= keep]

    def snapshot(self) -> dict[str, Any]:
        """The job's record, as REST and resets tell it."""
        return {
            "id": self.id, "type": "demo.steps", "status": self.status, "progress": self.progress, "attempt": 1,
            "position": self.position, "result": self.result, "error": None, "created_at": None,
        }  # fmt: skip

    def read(self, after: str, limit: int) -> dict[str, Any]:
        """What followed a position, or a reset."""
        at = Position.parse(after)
        if at.epoch and at.epoch != self.epoch and at.seq > self.forks.get(at.epoch, -1):
            return {"reset": True, "job": self.snapshot(), "position": self.position, "events": []}
        events = [it for it in self.log if it["seq"] > at.seq][:limit]
        position = f"{events[-1]['epoch']}:{events[-1]['seq']}" if events else after
        kept = [it for it in events if it["seq"] not in self.holes]
        done = self.done and position == self.position
        return {"events": kept, "position": position if position != "0" else f"{self.epoch}:0", "done": done}


class Double:
    """The misbehaving server. Create it, `start` it, drive it from the test's own loop, `stop` it."""

    def __init__(self) -> None:
        self.jobs: dict[str, ScriptedJob] = {}
        self.asked: list[tuple[str, str]] = []
        """Every subscribe and poll, as (how, after)."""
        self.tokens_shown: list[str] = []
        self.tokens_accepted: set[str] | None = None
        self.submissions: list[tuple[str | None, dict[str, Any]]] = []
        self.websocket_refused = False
        self.http_cut = False
        self.answers_lost = 0
        self.muted = False
        self.polls_at_once = 0
        self.changed = asyncio.Condition()
        self.sio = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins="*")
        self.rooms: dict[str, set[str]] = {}
        self._polling = 0
        self._runner: web.AppRunner | None = None
        self.url = ""
        self._stopped = asyncio.Event()
        self._later: list[asyncio.Task[None]] = []
        for name in ("connect", "disconnect", "subscribe", "unsubscribe", "authenticate"):
            self.sio.on(name, getattr(self, f"_on_{name}"))

    async def start(self) -> None:
        """Listen on a free port; `url` names it."""
        app = web.Application(middlewares=[self._gate])
        self.sio.attach(app)
        app.router.add_get("/blank", self._blank)
        app.router.add_get("/health/live", self._health)
        app.router.add_post("/api/jobs", self._submit)
        app.router.add_get("/api/jobs/{id}", self._get)
        app.router.add_get("/api/jobs/{id}/events", self._events)
        app.router.add_static("/static", STATIC)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close every connection and the port."""
        self._stopped.set()
        await self.hang_up()
        await asyncio.gather(*self._later)
        await self.sio.shutdown()
        if self._runner:
            await self._runner.cleanup()

    def add_job(self) -> ScriptedJob:
        """Add a job with its first event, `queued`."""
        job = ScriptedJob()
        job.append("queued", {"queue": "default", "priority": 5})
        self.jobs[job.id] = job
        return job

    async def tell(self, job: ScriptedJob, *events: Event) -> None:
        """Send events to the job's live watchers, and wake its pollers."""
        for event in events:
            for sid in list(self.rooms.get(job.id, ())):
                await self.sio.emit(f"job:{event['kind']}", event, to=sid)
        async with self.changed:
            self.changed.notify_all()

    async def tell_reset(self, job: ScriptedJob) -> None:
        """Send `job:reset` to the job's live watchers."""
        for sid in list(self.rooms.get(job.id, ())):
            await self.sio.emit("job:reset", {"job": job.snapshot(), "position": job.position}, to=sid)

    async def say(self, name: str, data: dict[str, Any]) -> None:
        """Send a message to every connection."""
        await self.sio.emit(name, data)

    async def hang_up(self) -> None:
        """Cut every live connection."""
        for sid in [sid for sid, _ in self.sio.manager.get_participants("/", None)]:
            await self.sio.disconnect(sid)

    @property
    def subscribes(self) -> list[str]:
        """The positions of all subscribes so far."""
        return [after for how, after in self.asked if how == "subscribe"]

    async def until_asked(self, how: str, count: int = 1) -> None:
        """Wait until so many subscribes or polls have been made."""
        async with self.changed:
            await self.changed.wait_for(lambda: sum(1 for it, _ in self.asked if it == how) >= count)

    async def until_shown(self, token: str) -> None:
        """Wait until a token was shown by a connect or an `authenticate`."""
        async with self.changed:
            await self.changed.wait_for(lambda: token in self.tokens_shown)

    async def _note(self, how: str, after: str) -> None:
        async with self.changed:
            self.asked.append((how, after))
            self.changed.notify_all()

    async def _show(self, token: str) -> bool:
        async with self.changed:
            self.tokens_shown.append(token)
            self.changed.notify_all()
        return self.tokens_accepted is None or token in self.tokens_accepted

    async def _on_connect(self, sid: str, environ: dict[str, Any], auth: dict[str, Any] | None) -> None:
        if not await self._show((auth or {}).get("token", "")):
            problem = {"code": "token_expired", "status": 401, "title": "The token has expired"}
            raise socketio.exceptions.ConnectionRefusedError("token_expired", problem)

    async def _on_disconnect(self, sid: str, reason: str) -> None:
        for members in self.rooms.values():
            members.discard(sid)

    async def _on_subscribe(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        job = self.jobs.get(data["job_id"])
        await self._note("subscribe", data.get("after", ""))
        if self.muted:
            await self._stopped.wait()
        if job is None:
            return {"ok": False, "error": NO_SUCH_JOB}
        self.rooms.setdefault(job.id, set()).add(sid)
        answer = job.read(data["after"], job.ack_limit)
        if not answer.get("reset"):
            rest = [event for event in job.log if event["seq"] > Position.parse(answer["position"]).seq]
            # A task begins only after this returns, and so after the acknowledgement.
            self._later.append(asyncio.create_task(self._tell_rest(sid, rest)))
        return {"ok": True, **answer}

    async def _tell_rest(self, sid: str, events: list[Event]) -> None:
        for event in events:
            await self.sio.emit(f"job:{event['kind']}", event, to=sid)

    async def _on_unsubscribe(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        self.rooms.get(data["job_id"], set()).discard(sid)
        await self._note("unsubscribe", "")
        return {"ok": True}

    async def _on_authenticate(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        return {"ok": await self._show(data["token"])}

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.websocket_refused and request.path.startswith("/socket.io"):
            raise web.HTTPForbidden
        if self.http_cut and request.path.startswith(("/api", "/health")):
            if request.transport:
                request.transport.close()
            raise web.HTTPServiceUnavailable
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = CSP
            response.headers["Cache-Control"] = "no-store"
        return response

    async def _blank(self, request: web.Request) -> web.Response:
        return web.Response(text=BLANK_PAGE, content_type="text/html")

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _submit(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key")
        known = [it for it in self.submissions if it[0] == key]
        self.submissions.append((key, await request.json()))
        job = self.jobs[known[0][1]["job_id"]] if known else self.add_job()
        self.submissions[-1][1]["job_id"] = job.id
        if self.answers_lost > 0:
            self.answers_lost -= 1
            if request.transport:
                request.transport.close()
        return web.json_response(job.snapshot(), status=202)

    def _job(self, request: web.Request) -> ScriptedJob:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            raise web.HTTPNotFound(text=json.dumps(NO_SUCH_JOB), content_type="application/problem+json")
        return job

    async def _get(self, request: web.Request) -> web.Response:
        job = self._job(request)
        await self._note("get", "")
        return web.json_response(job.snapshot())

    async def _events(self, request: web.Request) -> web.Response:
        job = self._job(request)
        after = request.query.get("after", "0")
        await self._note("poll", after)
        limit = min(job.max_page, int(request.query.get("limit", 1_000)))
        at = Position.parse(after)
        self._polling += 1
        self.polls_at_once = max(self.polls_at_once, self._polling)
        try:
            async with asyncio.timeout(float(request.query.get("wait", 0))), self.changed:
                await self.changed.wait_for(lambda: job.head > at.seq or job.done or job.epoch != at.epoch)
        except TimeoutError:
            pass
        finally:
            self._polling -= 1
        return web.json_response(job.read(after, limit))
