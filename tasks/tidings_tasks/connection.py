"""The store that ``job.submit()`` uses: configured once by ``connect``, or from the environment on first use."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tidings.protocol.errors import FieldError, InvalidInput

from .job_type import JobType
from .settings import Settings, SettingsError, load_settings
from .store import Keyspace, Submission, SyncStore, Tenant, commands
from .submission import MAX_BATCH, check_enqueued, fingerprint_of, prepare

__all__ = ["Submitter", "connect", "default_submitter", "require_store_url"]

_lock = threading.Lock()
_default: Submitter | None = None


class Submitter:
    """Puts jobs into the store. Thread-safe; close it when it is not the process's own."""

    def __init__(self, url: str, keyspace: Keyspace, *, timeout_s: float = 5.0) -> None:
        self._store = SyncStore(url, keyspace, timeout_s=timeout_s)

    def submit(
        self,
        job_type: JobType[Any, Any],
        input: Any,
        *,
        owner: str,
        org: str | None,
        idempotency_key: str = "",
        **options: Any,
    ) -> str:
        """Submit one job; see ``JobType.submit``."""
        tenant = Tenant(owner, org)
        shard, submission = prepare(
            job_type, tenant, self._store.keyspace, input=input, idempotency_key=idempotency_key,
            fingerprint=_fingerprint(job_type, input, options) if idempotency_key else "", **options,
        )  # fmt: skip
        return self._enqueue(shard, [submission])[0]

    def submit_many(
        self,
        job_type: JobType[Any, Any],
        inputs: Sequence[Any],
        *,
        owner: str,
        org: str | None,
        **options: Any,
    ) -> list[str]:
        """Submit many jobs, all or none; see ``JobType.submit_many``."""
        if not inputs:
            return []
        if len(inputs) > MAX_BATCH:
            message = f"at most {MAX_BATCH} jobs go into one call, not {len(inputs)}"
            raise InvalidInput(message, errors=[FieldError(field="inputs", code="too_many", message=message)])
        tenant = Tenant(owner, org)
        prepared = [prepare(job_type, tenant, self._store.keyspace, input=data, **options) for data in inputs]
        return self._enqueue(prepared[0][0], [submission for _, submission in prepared])

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def _enqueue(self, shard: int, submissions: list[Submission]) -> list[str]:
        reply = self._store.run(commands.enqueue(shard, submissions, all_or_none=True))
        return check_enqueued(reply)


def connect(target: Settings | str, *, keyspace: Keyspace | None = None) -> None:
    """Say which store ``job.submit()`` uses in this process. A later call replaces the earlier one.

    Args:
        target: settings, or a store URL (``redis://``, ``rediss://``, ``unix://``).
        keyspace: with a URL: the key prefix and shard count, where they are not the defaults.

    Raises:
        SettingsError: the settings name no store.
    """
    global _default
    made = _submitter(target) if isinstance(target, Settings) else Submitter(target, keyspace or Keyspace())
    with _lock:
        replaced, _default = _default, made
    if replaced is not None:
        replaced.close()


def default_submitter() -> Submitter:
    """Return the process's own, made from the environment when ``connect`` was not called.

    Raises:
        SettingsError: the environment names no store, or is not valid.
    """
    global _default
    with _lock:
        if _default is None:
            _default = _submitter(load_settings())
        return _default


def require_store_url(settings: Settings) -> str:
    """Return the store's URL.

    Raises:
        SettingsError: it is not set.
    """
    if settings.store_url is None:
        raise SettingsError(
            "the settings are not valid:",
            errors=[
                FieldError(
                    field="REDIS_URL",
                    code="missing",
                    message="no job store is configured; set REDIS_URL, like redis://localhost:6379/0, "
                    "or call tidings_tasks.connect(url)",
                )
            ],
        )
    return settings.store_url


def _submitter(settings: Settings) -> Submitter:
    keyspace = Keyspace(settings.key_prefix, settings.shards)
    return Submitter(require_store_url(settings), keyspace, timeout_s=settings.store_timeout_s)


def _fingerprint(job_type: JobType[Any, Any], data: Any, options: Mapping[str, Any]) -> str:
    return fingerprint_of(job_type.name, job_type.dump_input({} if data is None else data), dict(options))
