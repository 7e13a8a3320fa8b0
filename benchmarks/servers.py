"""The servers that are compared, each in a process of its own: `python -m benchmarks.servers NAME STORE_URL`.

It prints its port on a line when it is ready, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import jwt
import socketio
from aiohttp import web

from tidings_server.auth import Authenticator
from tidings_server.gateway import Gateway
from tidings_server.relay import Relay
from tidings_tasks.settings import Settings
from tidings_tasks.store import Store

SECRET = "benchmark-secret-benchmark-secret-benchmark"


def tidings(url: str) -> web.Application:
    """Our gateway and relay, with tokens and ownership checked."""
    settings = Settings(jwt_secret=SECRET)  # type: ignore[arg-type]  # pydantic makes the secret
    store = Store(url)
    relay = Relay(store)
    gateway = Gateway(settings, store, relay, Authenticator(settings))
    app = web.Application()
    gateway.attach(app)

    async def keep(_: web.Application):  # type: ignore[no-untyped-def]
        await relay.start()
        yield
        await gateway.aclose()
        await relay.aclose()
        await store.aclose()

    app.cleanup_ctx.append(keep)
    return app


def stock(url: str) -> web.Application:
    """python-socketio as its documentation shows it: rooms, and AsyncRedisManager between processes."""
    server = socketio.AsyncServer(async_mode="aiohttp", client_manager=socketio.AsyncRedisManager(url))

    @server.event
    async def connect(sid: str, _environ: object, auth: dict[str, str]) -> None:
        jwt.decode(auth["token"], SECRET, algorithms=["HS256"])

    @server.event
    async def subscribe(sid: str, data: dict[str, str]) -> dict[str, bool]:
        await server.enter_room(sid, data["job_id"])
        return {"ok": True}

    app = web.Application()
    server.attach(app)
    return app


async def serve(app: web.Application) -> None:
    """Serve until standard input ends."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    gc.collect()
    gc.freeze()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve({"tidings": tidings, "stock": stock}[sys.argv[1]](sys.argv[2])))
