"""The store's two shells, asynchronous and synchronous, over the same commands and scripts."""

from __future__ import annotations

import secrets
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from tidings.protocol.errors import StoreUnavailable, TidingsError

from .commands import Command
from .keys import Keyspace
from .scripts import load_script

__all__ = ["FORMAT", "Store", "StoreMismatch", "SyncStore"]

T = TypeVar("T")

FORMAT = "1"
"""The version of what the scripts keep; a store with another one is refused."""

_RETRIES = 3
_MAX_CONNECTIONS = 64


class StoreMismatch(TidingsError):
    """The store was set up with another format or shard count than this process has."""

    code, status, title = "store_mismatch", 500, "The store belongs to another installation"


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the job store cannot be reached: {type(error).__name__}", retry_after_s=2)


class _Shell:
    """What both shells share: where the scripts are called and how a new connection is greeted."""

    def __init__(self, keyspace: Keyspace, lease_ms: int) -> None:
        self.keyspace = keyspace
        self._lease_ms = lease_ms

    def _attach_args(self, shard: int) -> list[Any]:
        generation = secrets.token_hex(4)
        return [self.keyspace.shard(shard), FORMAT, self.keyspace.shards, self._lease_ms, generation]

    def _check_attached(self, reply: Any) -> None:
        if reply[0] == b"mismatch":
            field, found = reply[1].decode(), reply[2].decode()
            wanted = FORMAT if field == "format" else str(self.keyspace.shards)
            raise StoreMismatch(
                f"the store at prefix {self.keyspace.prefix!r} has {field} {found}, this process has {wanted}; "
                f"{field} is fixed when an installation is made: use the same, or another key prefix"
            )

    def _call(self, command: Command[Any]) -> tuple[str, str, list[Any]]:
        script = load_script(command.script)
        return script.sha, script.source, [1, self.keyspace.shard(command.shard), *command.args]


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
        super().__init__(keyspace or Keyspace(), int(lease_s * 1000))
        self.url = url
        pool: redis.asyncio.BlockingConnectionPool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=30,
            retry=AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), _RETRIES),
            redis_connect_func=self._greet,
        )
        self._redis = redis.asyncio.Redis.from_pool(pool)

    async def _greet(self, connection: Any) -> None:
        await connection.on_connect()
        for shard in range(self.keyspace.shards):
            args = self._attach_args(shard)
            await connection.send_command("EVAL", load_script("attach").source, 1, *args)
            self._check_attached(await connection.read_response())

    async def run(self, command: Command[T]) -> T:
        """Run a command.

        Raises:
            StoreUnavailable: the store could not be reached in time; whether the command took effect is unknown.
            StoreMismatch: the store belongs to another installation.
        """
        sha, source, args = self._call(command)
        try:
            try:
                reply = await self._redis.evalsha(sha, *args)
            except NoScriptError:
                reply = await self._redis.eval(source, *args)
            except ResponseError as error:
                if "DETACHED" not in str(error):
                    raise
                await self._redis.eval(load_script("attach").source, 1, *self._attach_args(command.shard))
                reply = await self._redis.eval(source, *args)
        except (redis.ConnectionError, redis.TimeoutError, TimeoutError, OSError) as error:
            raise _unavailable(error) from error
        except ResponseError as error:
            if str(error).startswith(
                ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "OOM", "MISCONF", "NOREPLICAS")
            ):
                raise _unavailable(error) from error
            raise
        return command.parse(reply)

    async def wait(self, keys: list[str], timeout_s: float) -> tuple[str, bytes] | None:
        """Take the first entry that one of these lists of one shard has, or None when the time is over.

        Raises:
            StoreUnavailable: the store went away.
        """
        try:
            reply: Any = await self._redis.blpop(keys, timeout=timeout_s)
        except RedisError as error:
            raise _unavailable(error) from error
        return None if reply is None else (reply[0].decode(), reply[1])

    async def ping(self) -> None:
        """Raise ``StoreUnavailable`` unless the store answers."""
        try:
            await self._redis.ping()
        except (RedisError, TimeoutError, OSError) as error:
            raise _unavailable(error) from error

    async def publish(self, channel: str, payload: bytes) -> None:
        """Publish on a sharded channel, outside any script; only for what no log needs to remember.

        Raises:
            StoreUnavailable: the store went away.
        """
        try:
            await self._redis.execute_command("SPUBLISH", channel, payload)  # type: ignore[no-untyped-call]
        except (RedisError, TimeoutError, OSError) as error:
            raise _unavailable(error) from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


class SyncStore(_Shell):
    """The store for code without an event loop: ``actor.send()``, ``job.submit()``, the lease thread. Thread-safe."""

    def __init__(
        self, url: str, keyspace: Keyspace | None = None, *, lease_s: float = 6.0, timeout_s: float = 5.0
    ) -> None:
        super().__init__(keyspace or Keyspace(), int(lease_s * 1000))
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
        connection.on_connect()
        for shard in range(self.keyspace.shards):
            connection.send_command("EVAL", load_script("attach").source, 1, *self._attach_args(shard))
            self._check_attached(connection.read_response())

    def run(self, command: Command[T]) -> T:
        """Run a command; see ``Store.run``."""
        sha, source, args = self._call(command)
        try:
            try:
                reply = self._redis.evalsha(sha, *args)
            except NoScriptError:
                reply = self._redis.eval(source, *args)
            except ResponseError as error:
                if "DETACHED" not in str(error):
                    raise
                self._redis.eval(load_script("attach").source, 1, *self._attach_args(command.shard))
                reply = self._redis.eval(source, *args)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise _unavailable(error) from error
        return command.parse(reply)

    def wait(self, keys: list[str], timeout_s: float) -> tuple[str, bytes] | None:
        """Take the first entry that one of these lists has; see ``Store.wait``."""
        try:
            reply: Any = self._redis.blpop(keys, timeout=timeout_s)
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error
        return None if reply is None else (reply[0].decode(), reply[1])

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()
        self._redis.connection_pool.disconnect()
