"""``tidings check``: tries what the settings name, and says of each fault how to mend it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Mapping
from typing import Any, Literal, NamedTuple, cast

import redis.asyncio
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from tidings.protocol.errors import TidingsError

from .embedded import EmbeddedStoreError, EmbeddedValkey, find_binary
from .job_modules import import_job_modules
from .settings import Settings, SettingsError
from .store import Keyspace, Store

__all__ = ["Finding", "check_all"]

# Sharded pub/sub, which events travel on, came with this version of Redis; every Valkey has it.
_LEAST_REDIS = (7, 0)


class Finding(NamedTuple):
    """What one check found. ``fix`` says what to do about an error or a warning."""

    subject: str
    status: Literal["ok", "warning", "error"]
    message: str
    fix: str = ""


async def check_all(settings: Settings) -> list[Finding]:
    """Run every check; none of them changes anything that is kept, nor raises."""
    findings = [_check_secret(settings), _check_data_dir(settings), *_check_jobs(settings)]
    if settings.store_url is not None:
        return [*findings, *await _check_store(settings, settings.store_url)]
    return [*findings, _check_embedded(settings)]


def _check_secret(settings: Settings) -> Finding:
    if settings.jwt_secret is not None:
        return Finding("JWT_SECRET", "ok", "set")
    status: Literal["error", "warning"] = "error" if settings.env == "production" else "warning"
    fix = 'set one of at least 32 characters: python -c "import secrets; print(secrets.token_urlsafe(32))"'
    return Finding("JWT_SECRET", status, "not set; only `tidings dev` makes one of its own", fix)


def _check_data_dir(settings: Settings) -> Finding:
    directory = settings.data_dir.absolute()
    # A directory that is still to be made is judged by the nearest one that exists.
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        fix = "make it writable for this user, or set TIDINGS_DATA_DIR to a directory that is"
        return Finding("TIDINGS_DATA_DIR", "error", f"{existing}: {error.strerror}", fix)
    return Finding("TIDINGS_DATA_DIR", "ok", f"{directory} can be written")


def _check_jobs(settings: Settings) -> list[Finding]:
    try:
        registry = import_job_modules(settings.jobs)
    except SettingsError as error:
        fix = "mend the module, or name another one in TIDINGS_JOBS"
        return [
            Finding("TIDINGS_JOBS", "error", f"{entry.field}: {entry.message}", fix) for entry in error.errors
        ]
    names = ", ".join(job_type.name for job_type in registry)
    if names:
        return [Finding("TIDINGS_JOBS", "ok", f"registers {names}")]
    fix = "set it to the modules that register them, like myapp.jobs, or give them to `tidings worker`"
    return [Finding("TIDINGS_JOBS", "warning", "no job types are registered", fix)]


def _check_embedded(settings: Settings) -> Finding:
    if settings.env == "production":
        fix = "set it to a Valkey or Redis, like redis://localhost:6379/0; TIDINGS_ENV=development embeds one"
        return Finding("REDIS_URL", "error", "not set, and production has no embedded store", fix)
    try:
        find_binary()
    except EmbeddedStoreError as error:
        return Finding("REDIS_URL", "error", f"not set, and {error}", "set REDIS_URL to a running store")
    where = EmbeddedValkey(settings.data_dir).directory
    return Finding("REDIS_URL", "ok", f"not set: the embedded store will be used, in {where}")


async def _check_store(settings: Settings, url: str) -> list[Finding]:
    try:
        async with asyncio.timeout(settings.store_timeout_s * 2):
            async with redis.asyncio.Redis.from_url(
                url, socket_timeout=settings.store_timeout_s, socket_connect_timeout=settings.store_timeout_s
            ) as client:
                info = await client.info()
                config = await _read_config(client)
            await _attach(settings, url)
    except (AuthenticationError, NoPermissionError):
        fix = "mend the user and password in REDIS_URL (or REDIS_PASSWORD)"
        return [Finding("REDIS_URL", "error", "the store refuses this user and password", fix)]
    except (RedisError, OSError, TimeoutError) as error:
        fix = "is it running, and can this machine reach it? mend REDIS_URL otherwise"
        return [Finding("REDIS_URL", "error", f"the store does not answer: {type(error).__name__}", fix)]
    except TidingsError as error:
        return [
            Finding("REDIS_URL", "error", str(error), "set TIDINGS_SHARDS or TIDINGS_KEY_PREFIX to match")
        ]
    return _judge_store(info, config)


async def _attach(settings: Settings, url: str) -> None:
    """Greet the store as every process does, which refuses one of another installation."""
    store = Store(url, Keyspace(settings.key_prefix, settings.shards), timeout_s=settings.store_timeout_s)
    try:
        await store.ping()
    finally:
        await store.aclose()


async def _read_config(client: redis.asyncio.Redis) -> Mapping[str, str]:
    # Hosted stores forbid CONFIG; what cannot be read is not judged.
    try:
        return await cast("Awaitable[dict[str, str]]", client.config_get("maxmemory-policy", "appendonly"))
    except ResponseError:
        return {}


def _judge_store(info: Mapping[str, Any], config: Mapping[str, str]) -> list[Finding]:
    is_valkey = info.get("server_name") == "valkey"
    version = str(info["valkey_version" if is_valkey else "redis_version"])
    name = f"{'Valkey' if is_valkey else 'Redis'} {version}"
    if not is_valkey and tuple(int(part) for part in version.split(".")[:2]) < _LEAST_REDIS:
        return [Finding("REDIS_URL", "error", f"{name} is too old", "use Valkey, or Redis 7 or newer")]
    findings = [Finding("REDIS_URL", "ok", f"{name} answers")]
    policy = config.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        fix = "set maxmemory-policy noeviction in the store's configuration"
        findings.append(Finding("REDIS_URL", "error", f"the store may drop jobs (it evicts: {policy})", fix))
    if config.get("appendonly") == "no":
        fix = "set appendonly yes in the store's configuration"
        findings.append(
            Finding("REDIS_URL", "warning", "jobs do not survive the store's restart (no AOF)", fix)
        )
    return findings
