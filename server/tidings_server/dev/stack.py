"""``tidings dev``: the store, the server and the worker as children of one process, from the first line to the last."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from tidings_tasks.embedded import START_TIMEOUT_S, STOP_GRACE_S, EmbeddedValkey
from tidings_tasks.settings import Settings

from ..listening import find_port, make_url
from ..minting import make_kept_secret, mint_token
from .child import Child
from .importing import try_import
from .terminal import Terminal
from .watching import find_sources, watch_sources

__all__ = ["READY_SUBJECT", "DevStack"]

READY_SUBJECT = "dev"
"""The ``sub`` of the token that is printed."""

_TOKEN_TTL_S = 7 * 86_400
_POLL_S = 0.02
_LAST_POLL_S = 0.2
_READY_TIMEOUT_S = 30.0
# Over the time that a process gives its own work, for what it still has to write and close.
_CLOSING_S = 3.0


class DevStack:
    """Everything that runs under one ``tidings dev``. Make it, then ``run`` it once, on the main thread's loop.

    Making it takes the port, the data directory's lock and the secret, or refuses.

    Args:
        settings: of development; ``jobs`` are all modules to load.
        modules: those to watch for changes.
        as_json: announce events as JSON lines.

    Raises:
        SettingsError: the port cannot be used, or the kept secret cannot be read.
        StoreInUse: another process uses the data directory.
    """

    def __init__(self, settings: Settings, *, modules: Sequence[str], as_json: bool) -> None:
        self._settings = settings
        self._modules = modules
        self._data_dir = settings.data_dir.absolute()
        self._port = find_port(settings.host, settings.port)
        self._url = make_url(settings.host, self._port)
        self._embedded = None if settings.store_url is not None else EmbeddedValkey(self._data_dir)
        if self._embedded is not None:
            self._embedded.claim()
        own = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
        self._secret = own or make_kept_secret(self._data_dir)
        self._gone = asyncio.Event()
        self._terminal = Terminal(as_json=as_json, on_gone=self._gone.set)
        self._introduced = False
        self._reloading = False
        self._env = self._make_env()

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, keep it running until ``stop``, and end it in order: server and worker, then the store.

        Raises:
            ChildFailed: a part does not come up.
        """
        store = self._make_store()
        parts = self._make_parts()
        running: dict[Child, asyncio.Task[None]] = {}
        ended = [asyncio.create_task(event.wait(), name="dev-stop") for event in (stop, self._gone)]
        try:
            if store is not None:
                running[store] = asyncio.create_task(store.run(), name="dev-store")
                ready = asyncio.create_task(store.ready.wait(), name="dev-store-ready")
                await asyncio.wait({ready, *running.values(), *ended}, return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
            if not stop.is_set() and all(not task.done() for task in running.values()):
                running |= {part: asyncio.create_task(part.run(), name=f"dev-{part.name}") for part in parts}
                await self._watch_until_end({*running.values(), *ended}, parts)
            await self._finish(running, store)
        finally:
            for task in (*running.values(), *ended):
                task.cancel()
            await asyncio.gather(*running.values(), *ended, return_exceptions=True)
            if self._embedded is not None:
                self._embedded.release()

    async def _watch_until_end(self, tasks: set[asyncio.Task[object]], parts: Sequence[Child]) -> None:
        """Return when one of the tasks ends; meanwhile reload the parts whenever job code changes."""

        async def reload(paths: list[Path]) -> None:
            await self._reload(paths, parts)

        sources = find_sources(self._modules)
        watcher = asyncio.create_task(watch_sources(sources, reload), name="dev-watch")
        # A watcher that cannot run, such as for want of inotify watches, does not end the stack.
        watcher.add_done_callback(self._report_watcher)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    def _report_watcher(self, watcher: asyncio.Task[None]) -> None:
        error = None if watcher.cancelled() else watcher.exception()
        if error is not None:
            self._terminal.say("dev", f"changes of job code are not noticed any more: {error!r}")

    async def _finish(self, running: Mapping[Child, asyncio.Task[None]], store: Child | None) -> None:
        """End the parts, the store last, and raise what ended one of them early."""
        parts = [part for part in running if part is not store]
        for part in parts:
            part.stop()
        results = await asyncio.gather(*(running[part] for part in parts), return_exceptions=True)
        if store is not None:
            store.stop()
            results += await asyncio.gather(running[store], return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _reload(self, paths: Sequence[Path], parts: Sequence[Child]) -> None:
        """Restart the parts on changed job code, unless it does not import."""
        names = ", ".join(sorted({path.name for path in paths}))
        self._terminal.say("dev", f"changed: {names}")
        reason = await try_import(self._settings.jobs, self._env)
        if reason is not None:
            for line in reason.splitlines():
                self._terminal.say("dev", line)
            self._terminal.say("dev", _describe_refusal(parts))
            self._terminal.announce("reload_refused", paths=[str(path) for path in paths], reason=reason)
            return
        self._terminal.announce("reloading", paths=[str(path) for path in paths])
        self._reloading = True
        for part in parts:
            part.restart()

    async def _can_import(self) -> bool:
        return await try_import(self._settings.jobs, self._env) is None

    def _note_up(self, parts: Sequence[Child]) -> None:
        """Say that a reload is done, once every part is up with the new code."""
        if self._reloading and all(part.is_up for part in parts):
            self._reloading = False
            self._terminal.say("dev", "reloaded")
            self._terminal.announce("reloaded")

    def _make_store(self) -> Child | None:
        embedded = self._embedded
        if embedded is None:
            return None

        async def wait_ready() -> None:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not embedded.is_ready():  # noqa: ASYNC110  # another process's state has no event
                    await asyncio.sleep(_POLL_S)

        self._terminal.say("dev", f"REDIS_URL is not set: running an embedded store on {embedded.directory}")
        return Child(
            "store", embedded.argv, self._terminal,
            grace_s=STOP_GRACE_S, pass_fds=embedded.pass_fds, wait_ready=wait_ready,
        )  # fmt: skip

    def _make_parts(self) -> list[Child]:
        grace_s = self._settings.shutdown_grace_s + _CLOSING_S
        # The script beside this interpreter may be missing from PATH; the module is always there.
        command = [sys.executable, "-m", "tidings"]
        parts: list[Child] = []

        async def note_server() -> None:
            self._note_up(parts)
            await self._introduce()

        async def note_worker() -> None:
            self._note_up(parts)

        for name, note in (("server", note_server), ("worker", note_worker)):
            part = Child(
                name, [*command, name], self._terminal,
                grace_s=grace_s, env=self._env, on_ready=note, can_start=self._can_import,
                is_recycled=name == "worker",
            )  # fmt: skip
            parts.append(part)
        return parts

    def _make_env(self) -> dict[str, str]:
        settings = self._settings
        store_url = self._embedded.url if self._embedded is not None else settings.store_url or ""
        # The port is the server's; a worker would take these names for its own.
        inherited = {name: value for name, value in os.environ.items() if name not in {"PORT", "SOCKET_PORT"}}
        return inherited | {
            "PYTHONUNBUFFERED": "1",
            "TIDINGS_DATA_DIR": str(self._data_dir),
            "TIDINGS_ENV": settings.env,
            "TIDINGS_HOST": settings.host,
            "TIDINGS_JOBS": ",".join(settings.jobs),
            "TIDINGS_JWT_SECRET": self._secret,
            "TIDINGS_LOG_FORMAT": settings.log_format,
            "TIDINGS_PORT": str(self._port),
            "TIDINGS_REDIS_URL": store_url,
        }

    async def _introduce(self) -> None:
        """Say where the server is, once it answers that it is ready; to people at the first time alone."""
        try:
            await self._await_health()
        except TimeoutError:
            self._terminal.say("dev", f"the server does not become ready: see {self._url}/health/ready")
            return
        token = mint_token(self._settings, self._secret, sub=READY_SUBJECT, ttl_s=_TOKEN_TTL_S)
        page = f"{self._url}/#token={token}"
        text = (
            f"\n  Tidings is ready; Ctrl-C ends everything. Data is kept in {self._data_dir}\n"
            f"\n  Page:  {page}\n  Token: {token}\n"
            f'         (for sub "{READY_SUBJECT}", valid for 7 days; `tidings token` makes others)\n\n'
        )
        self._terminal.announce(
            "ready", None if self._introduced else text, url=self._url, page=page, token=token,
            port=self._port, data_dir=str(self._data_dir),
        )  # fmt: skip
        self._introduced = True

    async def _await_health(self) -> None:
        timeout, pause_s = aiohttp.ClientTimeout(total=2), _POLL_S
        async with asyncio.timeout(_READY_TIMEOUT_S), aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.get(f"{self._url}/health/ready") as answer:
                        if answer.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(pause_s)
                # Each question is a line in the server's log.
                pause_s = min(pause_s * 2, _LAST_POLL_S)


def _describe_refusal(parts: Sequence[Child]) -> str:
    """What becomes of the parts when a change does not import: a part that was not up may have met the change."""
    starting = [part.name for part in parts if not part.is_up]
    if not starting:
        return "the code before the change goes on running"
    verb = "is" if len(starting) == 1 else "are"
    return (
        f"the {' and the '.join(starting)} {verb} not up; what cannot start with this code waits for a change"
    )
