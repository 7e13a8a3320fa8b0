"""What the REST tests share: a served application on a real Valkey, tokens, and a worker's hand on the store."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tidings_server.app import CONNECTION_OPTIONS, build_app
from tidings_server.connection import Runner
from tidings_server.context import STORE
from tidings_tasks.context import JobContext
from tidings_tasks.registry import Registry, job
from tidings_tasks.settings import Settings
from tidings_tasks.store import Claim, Store, Verb, Write, commands

SECRET = "a-secret-for-tests-that-is-long-enough"
REGISTRY = Registry()

_USUAL = {Verb.RETRY: '{"delay_ms":0}', Verb.FAIL: '{"dead":true}'}
"""What stands behind the error of a write that says no more."""


class Rows(BaseModel):
    """The input of the tests' job type."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(ge=1, le=1000)
    title: str = "none"


@job("test.rows", queue="reports", registry=REGISTRY)
async def rows(ctx: JobContext, input: Rows) -> dict[str, int]:
    """Count rows; no worker runs it here."""
    return {"rows": input.rows}


def make_token(
    sub: object = "alice",
    *,
    org: object = None,
    scope: object = None,
    ttl_s: float = 3600,
    secret: str = SECRET,
    **claims: object,
) -> str:
    """Sign a token; what is None is left out."""
    now = time.time()
    body = {"sub": sub, "org": org, "scope": scope, "iat": now, "exp": now + ttl_s} | claims
    return jwt.encode(
        {name: value for name, value in body.items() if value is not None}, secret, algorithm="HS256"
    )


def bearer(sub: object = "alice", **claims: Any) -> dict[str, str]:
    """The header of a good token."""
    return {"Authorization": f"Bearer {make_token(sub, **claims)}"}


class Rest:
    """A served application and a client for it, with ``alice``'s token unless told otherwise."""

    def __init__(
        self, app: web.Application, runner: Runner, session: aiohttp.ClientSession, url: str
    ) -> None:
        self.app = app
        self.runner = runner
        self.session = session
        self.url = url
        self._calls = itertools.count(1)

    @property
    def store(self) -> Store:
        """The application's own store."""
        return self.app[STORE]

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = "",
        headers: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> tuple[aiohttp.ClientResponse, Any]:
        """Call, and return the answer with its decoded body; ``token=None`` sends none."""
        sent = dict(headers or {})
        if token is not None and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {token or make_token()}"
        async with self.session.request(
            method, self.url + path, headers=sent, allow_redirects=False, **kwargs
        ) as answer:
            body = await answer.read()
        decoded = orjson.loads(body) if body and answer.content_type.endswith("json") else body
        return answer, decoded

    async def submit(
        self, *, token: str = "", headers: dict[str, str] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Submit a job of the tests' type and return its view."""
        body = {"type": "test.rows", "input": {"rows": 3}} | fields
        answer, job_view = await self.call("POST", "/api/jobs", token=token, headers=headers, json=body)
        assert answer.status == 202, job_view
        return job_view

    async def claim(self, queue: str = "reports", shard: int = 0) -> Claim:
        """Take the next job as a worker would."""
        reply = await self._step(shard, wants=[(queue, 1)])
        assert reply.claims, "nothing to claim"
        return reply.claims[0]

    async def write(self, claim: Claim, *writes: tuple[Verb, Any], first: int = 1, extra: str = "") -> None:
        """Write as the worker that has claimed the job would."""
        numbered = [
            Write(claim.id, claim.attempt, number, verb, orjson.dumps(data), extra or _USUAL.get(verb, ""))
            for number, (verb, data) in enumerate(writes, first)
        ]
        await self._step(int(claim.id.rpartition("s")[2]), writes=numbered)

    async def _step(
        self, shard: int, *, writes: Sequence[Write] = (), wants: Sequence[tuple[str, int]] = ()
    ) -> Any:
        return await self.store.run(
            commands.step(
                shard, worker="w1", call=next(self._calls), lease_ms=60_000, writes=writes, wants=wants
            )
        )


@asynccontextmanager
async def serve(settings: Settings, store_url: str, *, mode: Any = "standalone") -> AsyncIterator[Rest]:
    """Serve an application on a free port, as ``run_server`` does."""
    app = build_app(settings, store_url=store_url, registry=REGISTRY, mode=mode)
    runner = Runner(app, shutdown_timeout=2, connection_options=dict(CONNECTION_OPTIONS))
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            yield Rest(app, runner, session, f"http://{host}:{port}")
    finally:
        await runner.cleanup()


def make_settings(data_dir: Path, key_prefix: str, **fields: Any) -> Settings:
    """Settings of a test's own."""
    return Settings.model_validate(
        {
            "env": "test",
            "jwt_secret": SECRET,
            "data_dir": data_dir,
            "key_prefix": key_prefix,
            "shutdown_grace_s": 2,
        }
        | fields
    )
