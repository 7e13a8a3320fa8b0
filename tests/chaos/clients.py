"""The clients of a run: they submit with retries, cancel, watch, and at the end read what has become of everything."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import jwt

from tests.support.timing import scaled

from .history import History
from .installation import SECRET
from .plan import Plan, PlannedJob

__all__ = ["Clients"]

_CALL_S = 10.0
_GIVE_UP_S = 60.0
_END_S = 90.0
_OPEN = ["scheduled", "queued", "running", "retrying", "waiting_input"]
_PASSING = {408, 409, 429, 500, 502, 503, 504}
_READERS = 8


class Clients:
    """Plays the clients' part of a plan: ``run``, on a loop of its own."""

    def __init__(self, plan: Plan, url: str, history: History) -> None:
        self._plan, self._url, self._history = plan, url, history
        self._started = 0.0
        self._tokens: dict[str, str] = {}

    async def run(self) -> None:
        """Submit and follow all, wait until every job has ended, and read all logs twice, a lease apart.

        Raises:
            TimeoutError: some jobs do not end.
        """
        self._started = time.monotonic()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, connector=connector) as self._session:
            async with asyncio.TaskGroup() as group:
                for job in self._plan.jobs:
                    group.create_task(self._play(job), name=f"client {job.key}")
            await self._wait_for_ends()
            stored = await self._list_all()
            await self._read_logs(stored, reading=1)
            await asyncio.sleep(self._plan.size.lease_s + 1)  # whoever is late has had the time to be
            await self._read_logs(stored, reading=2)

    async def _play(self, job: PlannedJob) -> None:
        await asyncio.sleep(max(0.0, self._started + job.at_s - time.monotonic()))
        job_id = await self._submit(job, job.impatience_s)
        if job_id is None:
            return
        async with asyncio.TaskGroup() as group:
            if job.is_followed:
                group.create_task(self._follow(job, job_id))
            if job.repeats:
                group.create_task(self._submit(job, None))
            if job.cancel_after_s is not None:
                await asyncio.sleep(job.cancel_after_s)
                status, _ = await self._call_until_answered("POST", f"/api/jobs/{job_id}/cancel", job.owner)
                self._history.add("cancel", job_id=job_id, status=status)

    async def _submit(self, job: PlannedJob, impatience_s: float | None) -> str | None:
        """Post until there is an answer that counts; return the job's id."""
        give_up = time.monotonic() + scaled(_GIVE_UP_S)
        pause_s = 0.05
        while time.monotonic() < give_up:
            timeout_s, impatience_s = impatience_s or _CALL_S, None
            status, body = await self._call(
                "POST", "/api/jobs", job.owner, timeout_s, json=job.body, headers={"Idempotency-Key": job.key}
            )
            job_id = body.get("id") if status == 202 else None
            self._history.add("answer", key=job.key, owner=job.owner, status=status, job_id=job_id)
            if status != 0 and status not in _PASSING:
                return job_id
            await asyncio.sleep(pause_s)
            pause_s = min(1.0, pause_s * 2)
        self._history.add("given_up", key=job.key, owner=job.owner)
        return None

    async def _follow(self, job: PlannedJob, job_id: str) -> None:
        """Watch by long-poll from the first event to the last."""
        position, events, is_reset, done = "0", [], False, False
        give_up = time.monotonic() + self._plan.size.duration_s + scaled(_END_S)
        while not done and time.monotonic() < give_up:
            path = f"/api/jobs/{job_id}/events?after={position}&wait=5"
            status, page = await self._call("GET", path, job.owner, 5 + _CALL_S)
            if status != 200:
                await asyncio.sleep(0.1)
                continue
            is_reset = is_reset or bool(page.get("reset"))
            events += page["events"]
            position, done = page["position"], page["done"]
        self._history.add("watched", job_id=job_id, events=events, reset=is_reset, done=done)

    async def _wait_for_ends(self) -> None:
        async with asyncio.timeout(scaled(_END_S)):
            for owner in self._owners():
                query = "&".join(f"status={state}" for state in _OPEN)
                while True:
                    status, page = await self._call("GET", f"/api/jobs?limit=1&{query}", owner)
                    if status == 200 and not page["jobs"]:
                        break
                    await asyncio.sleep(0.2)

    async def _list_all(self) -> list[tuple[str, str]]:
        found = []
        for owner in self._owners():
            cursor = ""
            while cursor is not None:
                more = f"&cursor={cursor}" if cursor else ""
                _, page = await self._call_until_answered("GET", f"/api/jobs?limit=200{more}", owner)
                for view in page["jobs"]:
                    self._history.add("stored", job_id=view["id"], owner=owner, key=view["tags"][0])
                    found.append((view["id"], owner))
                cursor = page.get("next_cursor")
        return found

    async def _read_logs(self, stored: list[tuple[str, str]], *, reading: int) -> None:
        waiting = iter(stored)

        async def read() -> None:
            for job_id, owner in waiting:
                events, position, done = [], "0", False
                while not done:
                    path = f"/api/jobs/{job_id}/events?after={position}&limit=1000"
                    _, page = await self._call_until_answered("GET", path, owner)
                    events += page["events"]
                    if not page["events"] or page["position"] == position:
                        break
                    position, done = page["position"], page["done"]
                _, view = await self._call_until_answered("GET", f"/api/jobs/{job_id}", owner)
                self._history.add(
                    "log", reading=reading, job_id=job_id, events=events, status=view["status"],
                    position=view["position"], input=view["input"], owner=owner,
                    concurrency_key=view.get("concurrency_key"),
                )  # fmt: skip

        async with asyncio.TaskGroup() as group:
            for _ in range(_READERS):
                group.create_task(read())

    def _owners(self) -> list[str]:
        return sorted({job.owner for job in self._plan.jobs})

    async def _call_until_answered(self, method: str, path: str, owner: str) -> tuple[int, Any]:
        pause_s = 0.05
        async with asyncio.timeout(scaled(_GIVE_UP_S)):
            while True:
                status, body = await self._call(method, path, owner)
                if status != 0 and (status not in _PASSING or (method == "POST" and status == 409)):
                    return status, body
                await asyncio.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)

    async def _call(
        self, method: str, path: str, owner: str, timeout_s: float = _CALL_S, **options: Any
    ) -> tuple[int, Any]:
        """Call once; 0 when there was no answer."""
        headers = {"Authorization": f"Bearer {self._token(owner)}"} | options.pop("headers", {})
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(
                method, path, headers=headers, timeout=timeout, **options
            ) as answer:
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, {}

    def _token(self, owner: str) -> str:
        if owner not in self._tokens:
            now = time.time()
            claims = {"sub": owner, "iat": int(now), "exp": now + 3600}
            self._tokens[owner] = jwt.encode(claims, SECRET, "HS256")
        return self._tokens[owner]
