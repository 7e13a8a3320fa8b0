"""The store's two shells, asynchronous and synchronous, over the same commands and scripts."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from tidings.protocol.errors import StoreUnavailable, TidingsError

from .commands import Command
from .exchange import Exchange
from .keys import Keyspace
from .scripts import Script, load_attach, load_script

__all__ = ["FORMAT", "Store", "StoreMismatch", "SyncStore"]

T = TypeVar("T")

FORMAT = "2"
"""The version of what the scripts keep; a store with another one is refused."""

_RETRIES = 3
_MAX_CONNECTIONS = 64
_NUDGE_KEPT_MS = 1_000
_LEAST_WAIT_S = 0.01
_REFUSALS = (ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_REFUSAL_CODES = ("BUSY ", "MISCONF ", "NOREPLICAS ")


class StoreMismatch(TidingsError):
    """The store was set up with another format or shard count than this process has."""

    code, status, title = "store_mismatch", 500, "The store belongs to another installation"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise ``StoreUnavailable`` for all that may pass: no connection, no answer in time, a store that takes nothing."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, TimeoutError, OSError) as error:
        message = f"the job store cannot be reached: {type(error).__name__}"
        raise StoreUnavailable(message, retry_after_s=2) from error
    except ResponseError as error:
        if not isinstance(error, _REFUSALS) and not str(error).startswith(_REFUSAL_CODES):
            raise
        message = f"the job store does not take this now: {error}"
        raise StoreUnavailable(message, retry_after_s=2) from error


def _is_detached(error: ResponseError) -> bool:
    """Tell whether a script found that the store was emptied under an open connection."""
    return str(error).startswith("DETACHED")


def _is_missing(error: ResponseError) -> bool:
    """Tell whether the store does not have the script's function yet."""
    return str(error).startswith("Function not found")


@contextlib.contextmanager
def _heeded() -> Iterator[None]:
    """End a task that is cancelled while it waits for the store, whatever the library makes of the cancellation.

    redis-py awaits ``asyncio.wait_for`` whenever it sends. In Python 3.11 that returns instead of raising when it is
    cancelled just as its future is done (https://github.com/python/cpython/issues/86296), and a loop that was told to
    end would go on for ever.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


class _Shell:
    """What both shells share: where the scripts are called and how a new connection is greeted."""

    def __init__(self, keyspace: Keyspace, lease_ms: int, timeout_s: float) -> None:
        self.keyspace = keyspace
        self._lease_ms = lease_ms
        # A read that blocks must end before the bound on every command does.
        self._longest_block_s = timeout_s / 2

    def _attach_args(self, shard: int) -> list[Any]:
        generation = secrets.token_hex(4)
        return [1, self.keyspace.shard(shard), FORMAT, self.keyspace.shards, self._lease_ms, generation]

    def _check_attached(self, reply: Any) -> None:
        if reply[0] == b"mismatch":
            field, found = reply[1].decode(), reply[2].decode()
            wanted = FORMAT if field == "format" else str(self.keyspace.shards)
            raise StoreMismatch(
                f"the store at prefix {self.keyspace.prefix!r} has {field} {found}, this process has {wanted}; "
                f"{field} is fixed when an installation is made: use the same, or another key prefix"
            )

    def _call(self, command: Command[Any]) -> tuple[Script, list[Any]]:
        return load_script(command.script), [1, self.keyspace.shard(command.shard), *command.args]


class Store(_Shell):
    """The store for code on an event loop. Close it with ``aclose``; safe for concurrent use on its loop.

    Every new connection first attaches: it fixes the shard count and notices a store with another history
    (``attach.lua``). Commands are repeated after a lost connection, which the scripts are made for.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_s: the bound on one command and on connecting.
    """

    def __init__(
        self,
        url: str,
        keyspace: Keyspace | None = None,
        *,
        lease_s: float = 6.0,
        timeout_s: float = 5.0,
        max_connections: int = _MAX_CONNECTIONS,
    ) -> None:
        super().__init__(keyspace or Keyspace(), int(lease_s * 1000), timeout_s)
        self.url = url
        retry = AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), _RETRIES)
        pool: redis.asyncio.BlockingConnectionPool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=30,
            retry=retry,
            redis_connect_func=self._greet,
        )
        self._redis = redis.asyncio.Redis.from_pool(pool)
        self._exchange = Exchange(pool, retry, max_connections=max_connections, timeout_s=timeout_s)

    async def _greet(self, connection: Any) -> None:
        try:
            await connection.on_connect()
            shards = range(self.keyspace.shards)
            for shard in shards:
                await connection.send_command("EVAL", load_attach(), *self._attach_args(shard))
            for _ in shards:
                self._check_attached(await connection.read_response())
        except BaseException:
            # redis-py closes a connection only after errors of its own: it would use this one as if it were attached, or,
            # when the task was cancelled meanwhile, leave it open for ever.
            await connection.disconnect(nowait=True)
            raise

    async def run(self, command: Command[T]) -> T:
        """Run a command.

        Raises:
            StoreUnavailable: the store could not be reached in time, or takes nothing now; whether the command took
                effect is unknown.
            StoreMismatch: the store belongs to another installation.
        """
        script, args = self._call(command)
        with _heeded(), _translated():
            try:
                reply = await self._evaluate(script, args)
            except ResponseError as error:
                if not _is_detached(error):
                    raise
                attached = await self._redis.eval(load_attach(), *self._attach_args(command.shard))
                self._check_attached(attached)
                reply = await self._evaluate(script, args)
        return command.parse(reply)

    async def _evaluate(self, script: Script, args: list[Any]) -> Any:
        try:
            return await self._exchange.call("FCALL", script.function, *args)
        except ResponseError as error:
            if not _is_missing(error):
                raise
        try:
            await self._exchange.call("FUNCTION", "LOAD", "REPLACE", script.library)
        except ResponseError:
            return await self._exchange.call("EVAL", script.text, *args)
        return await self._exchange.call("FCALL", script.function, *args)

    async def wait(self, keys: list[str], timeout_s: float) -> tuple[str, bytes] | None:
        """Take the first entry that one of these lists of one shard has, or None when the time is over.

        An entry whose reply is lost on the way is gone: what must not be lost has another way too.

        Raises:
            StoreUnavailable: the store went away.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(_LEAST_WAIT_S, deadline - time.monotonic())
            with _heeded(), _translated():
                reply: Any = await self._redis.blpop(keys, timeout=min(left_s, self._longest_block_s))
            if reply is not None:
                return reply[0].decode(), reply[1]
            if time.monotonic() >= deadline:
                return None

    async def nudge(self, key: str) -> None:
        """End a ``wait`` for this list; one that begins within the next second too.

        Raises:
            StoreUnavailable: the store went away.
        """
        with _heeded(), _translated():
            async with self._redis.pipeline(transaction=True) as both:
                both.rpush(key, b"1")
                both.pexpire(key, _NUDGE_KEPT_MS)
                await both.execute()

    async def ping(self) -> None:
        """Raise ``StoreUnavailable`` unless the store answers."""
        with _heeded(), _translated():
            await self._redis.ping()

    async def publish(self, channel: str, payload: bytes) -> None:
        """Publish on a sharded channel, outside any script; only for what no log needs to remember.

        Raises:
            StoreUnavailable: the store went away.
        """
        with _heeded(), _translated():
            await self._redis.execute_command("SPUBLISH", channel, payload)  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._exchange.aclose()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


class SyncStore(_Shell):
    """The store for code without an event loop: ``actor.send()``, ``job.submit()``, the lease thread. Thread-safe."""

    def __init__(
        self, url: str, keyspace: Keyspace | None = None, *, lease_s: float = 6.0, timeout_s: float = 5.0
    ) -> None:
        super().__init__(keyspace or Keyspace(), int(lease_s * 1000), timeout_s)
        self.url = url
        pool: redis.BlockingConnectionPool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=30,
            retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), _RETRIES),
            redis_connect_func=self._greet,
        )
        self._redis = redis.Redis(connection_pool=pool)

    def _greet(self, connection: Any) -> None:
        try:
            connection.on_connect()
            shards = range(self.keyspace.shards)
            for shard in shards:
                connection.send_command("EVAL", load_attach(), *self._attach_args(shard))
            for _ in shards:
                self._check_attached(connection.read_response())
        except BaseException:
            # As in Store._greet.
            connection.disconnect()
            raise

    def run(self, command: Command[T]) -> T:
        """Run a command; see ``Store.run``."""
        script, args = self._call(command)
        with _translated():
            try:
                reply = self._evaluate(script, args)
            except ResponseError as error:
                if not _is_detached(error):
                    raise
                self._check_attached(self._attach(command.shard))
                reply = self._evaluate(script, args)
        return command.parse(reply)

    def _attach(self, shard: int) -> Any:
        return self._redis.eval(load_attach(), *self._attach_args(shard))

    def _evaluate(self, script: Script, args: list[Any]) -> Any:
        try:
            return self._redis.fcall(script.function, *args)
        except ResponseError as error:
            if not _is_missing(error):
                raise
        try:
            self._redis.function_load(script.library, replace=True)
        except ResponseError:
            return self._redis.eval(script.text, *args)
        return self._redis.fcall(script.function, *args)

    def wait(self, keys: list[str], timeout_s: float) -> tuple[str, bytes] | None:
        """Take the first entry that one of these lists has; see ``Store.wait``."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(_LEAST_WAIT_S, deadline - time.monotonic())
            with _translated():
                reply: Any = self._redis.blpop(keys, timeout=min(left_s, self._longest_block_s))
            if reply is not None:
                return reply[0].decode(), reply[1]
            if time.monotonic() >= deadline:
                return None

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()
        self._redis.connection_pool.disconnect()
