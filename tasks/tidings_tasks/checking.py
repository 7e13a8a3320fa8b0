"""``tidings check``: tries what the settings name, and says of each fault how to mend it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import redis.asyncio
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tidings.protocol.errors import TidingsError

from .embedded import EmbeddedStoreError, EmbeddedValkey, find_binary
from .job_modules import import_job_modules
from .queue.queues import BUILT_IN_POLICIES
from .schedules.declared import check_declared
from .settings import Settings, SettingsError
from .stalls import CloudRun, find_cloud_run
from .store import Keyspace, Store, iso_time

__all__ = ["Finding", "check_all", "explain_settings"]

# Sharded pub/sub, which events travel on, came with this version of Redis; every Valkey has it.
_LEAST_REDIS = (7, 0)


class Finding(NamedTuple):
    """What one check found. ``fix`` says what to do about an error or a warning."""

    subject: str
    status: Literal["ok", "warning", "error"]
    message: str
    fix: str = ""


async def check_all(settings: Settings, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Run every check; none of them changes anything that is kept, nor raises. ``environ``: this process's, by default."""
    findings = [
        _tell_env(settings),
        *_tell_cloud_run(os.environ if environ is None else environ),
        _check_secret(settings),
        _check_data_dir(settings),
        *_check_jobs(settings),
        *_tell_queues(settings),
        *_check_schedules(settings),
    ]
    if settings.store_url is not None:
        return [*findings, *await _check_store(settings, settings.store_url)]
    return [*findings, _check_embedded(settings)]


def explain_settings(error: SettingsError) -> list[Finding]:
    """Turn settings that are not valid into findings; what a message says behind its semicolon is the fix."""
    found = []
    for entry in error.errors:
        message, _, fix = entry.message.partition("; ")
        default = f"change {entry.field}, or unset it for its default (docs/settings.md)"
        found.append(Finding(entry.field, "error", message, fix or default))
    return found or [Finding("settings", "error", error.detail, "mend that file, or remove it")]


def _tell_env(settings: Settings) -> Finding:
    origin = "as set" if "env" in settings.model_fields_set else "the default, since it is not set"
    other = "production" if settings.env != "production" else "development"
    hint = ", as `tidings dev` runs" if other == "development" else ""
    return Finding(
        "TIDINGS_ENV",
        "ok",
        f"judged as {settings.env} ({origin}); TIDINGS_ENV={other} judges as {other}{hint}",
    )


def _tell_cloud_run(environ: Mapping[str, str]) -> list[Finding]:
    kind = find_cloud_run(environ)
    if kind is None:
        return []
    if kind is not CloudRun.SERVICE:
        return [Finding("Cloud Run", "ok", f"runs as a {kind.value}, whose CPU is always allocated")]
    message = (
        "runs as a service: unless its CPU is always allocated, which cannot be seen from inside, a worker loses its jobs "
        "between requests"
    )
    fix = "deploy a worker as a worker pool, or with --no-cpu-throttling --min-instances=1 (docs/deploy.md)"
    return [Finding("Cloud Run", "warning", message, fix)]


def _check_secret(settings: Settings) -> Finding:
    if settings.jwt_secret is not None:
        return Finding("JWT_SECRET", "ok", "set")
    status: Literal["error", "warning"] = "error" if settings.env == "production" else "warning"
    # The same value for every server: made once, and kept.
    fix = """echo "JWT_SECRET=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')" >> .env"""
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
    fix = "name the modules that register them: TIDINGS_JOBS=myapp.jobs, or `tidings worker myapp.jobs`"
    return [Finding("TIDINGS_JOBS", "warning", "no job types are registered", fix)]


def _tell_queues(settings: Settings) -> list[Finding]:
    """Tell what is declared over the built-in queues, and what a worker of these settings serves."""
    profile = settings.profile
    served = sorted(settings.queues) if profile.queues is None else profile.queues
    found = [
        Finding(
            "TIDINGS_WORKER_PROFILE",
            "ok",
            f"{profile.name}: up to {profile.concurrency} jobs at once of {', '.join(served)}",
        )
    ]
    for queue in sorted(settings.queues):
        policy, usual = settings.queues[queue], BUILT_IN_POLICIES.get(queue)
        written = policy.model_dump(mode="json", exclude={"name"})
        differs = (
            written
            if usual is None
            else {
                field: value
                for field, value in written.items()
                if getattr(policy, field) != getattr(usual, field)
            }
        )
        if differs:
            text = ", ".join(
                f"{field} {value}" for field, value in differs.items() if value is not None or usual
            )
            found.append(Finding(f"queue {queue}", "ok", text))
    for name in sorted(settings.dependencies):
        rule = settings.dependencies[name]
        text = f"opens for {rule.open_s:g} s after {rule.failures} failures within {rule.within_s:g} s"
        found.append(Finding(f"dependency {name}", "ok", text))
    return found


def _check_schedules(settings: Settings) -> list[Finding]:
    """Tell when each declared schedule is due, and whether its input suits its job type."""
    found = []
    try:
        registry = import_job_modules(settings.jobs)
        keyspace = Keyspace(settings.key_prefix, settings.shards)
        warnings = check_declared(settings.schedules, registry, settings.queues, keyspace)
        fix = "name the module that registers the type in TIDINGS_JOBS"
        found = [
            Finding(text.partition(":")[0], "warning", text.partition(": ")[2], fix) for text in warnings
        ]
    except SettingsError as error:
        if not any(entry.field.startswith("schedules.") for entry in error.errors):
            return []  # the modules, which were told of
        return explain_settings(error)
    for name, schedule in settings.schedules.items():
        due_ms = schedule.timing.next_after(time.time_ns() // 1_000_000)
        when = (
            "disabled" if not schedule.enabled else f"due next {iso_time(due_ms)}" if due_ms else "never due"
        )
        found.append(Finding(f"schedule {name}", "ok", f"{schedule.type}, {when}"))
    return found


def _check_embedded(settings: Settings) -> Finding:
    if settings.env == "production":
        fix = "REDIS_URL=redis://localhost:6379/0, with the address of your Valkey or Redis; TIDINGS_ENV=development embeds one"
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
    except (RedisError, OSError, TimeoutError) as error:
        cause = _find_cause(error)
        if isinstance(cause, AuthenticationError | NoPermissionError):
            return [_explain_refusal(cause, url)]
        return [_explain_silence(cause, url, settings.store_timeout_s)]
    except TidingsError as error:
        return [
            Finding("REDIS_URL", "error", str(error), "set TIDINGS_SHARDS or TIDINGS_KEY_PREFIX to match")
        ]
    return _judge_store(info, config)


def _explain_refusal(error: RedisError, url: str) -> Finding:
    form = "REDIS_URL=redis://USER:PASSWORD@HOST:PORT/0, or REDIS_PASSWORD beside REDIS_HOST"
    if isinstance(error, NoPermissionError):
        fix = "allow this user all commands, keys and channels: ACL SETUSER NAME on ~* &* +@all"
        return Finding("REDIS_URL", "error", "the store does not allow this user what is needed", fix)
    if urlsplit(url).password is None:
        return Finding("REDIS_URL", "error", "the store wants a password, and none is set", f"set it: {form}")
    return Finding("REDIS_URL", "error", "the store refuses this user and password", f"correct them: {form}")


def _find_cause(error: BaseException) -> BaseException:
    """Return what lies beneath: redis-py raises its general errors from those that say what is wrong."""
    telling = (OSError, AuthenticationError, NoPermissionError)
    while not isinstance(error, telling) and (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _explain_silence(cause: BaseException, url: str, timeout_s: float) -> Finding:
    """Say why there is no connection; the URL is told without its user and password."""
    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    match cause:
        case socket.gaierror():
            why, fix = "the host is unknown", "correct the host in REDIS_URL (or REDIS_HOST)"
        case ConnectionRefusedError() | FileNotFoundError():
            why = (
                "connection refused"
                if isinstance(cause, ConnectionRefusedError)
                else "there is no such socket"
            )
            fix = "start the store there, or set REDIS_URL to the address of one that runs"
        case ssl.SSLError():
            why = f"TLS failed ({cause.reason or 'no reason given'})"
            fix = "write redis:// for a store without TLS, rediss:// for one with a valid certificate"
        case TimeoutError() | RedisTimeoutError() | asyncio.CancelledError():
            why = f"no answer within {timeout_s:g} s"
            fix = "let this machine reach it (network, firewall), or correct the address in REDIS_URL"
        case _:
            why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            fix = "correct REDIS_URL: redis://HOST:PORT/0, or rediss:// for a store with TLS"
    return Finding("REDIS_URL", "error", f"the store at {where} does not answer: {why}", fix)


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
