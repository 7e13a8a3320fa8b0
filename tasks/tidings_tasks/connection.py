"""The store that ``job.submit()`` uses: configured once by ``connect``, or from the environment on first use."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tidings.protocol.errors import FieldError, InvalidInput

from .job_type import JobType
from .queue.queues import BUILT_IN_POLICIES, QueuePolicy
from .registry import REGISTRY, Registry
from .settings import Settings, SettingsError, load_settings
from .store import Keyspace, Submission, SyncStore, Tenant, commands
from .submission import MAX_BATCH, check_enqueued, fingerprint_of, prepare

__all__ = [
    "Submitter",
    "connect",
    "connected",
    "default_policies",
    "default_store",
    "default_submitter",
    "open_sync_store",
    "require_store_url",
    "substituted",
]


@dataclass(frozen=True, slots=True, eq=False)
class _Connection:
    store: SyncStore
    policies: Mapping[str, QueuePolicy]


_lock = threading.Lock()
_default: _Connection | None = None
_substitutes: list[_Connection] = []
_substitute: ContextVar[_Connection | None] = ContextVar("tidings_substitute", default=None)


class Submitter:
    """Puts jobs into a store, by the policies of their queues. Thread-safe; the store is its owner's to close."""

    def __init__(
        self,
        store: SyncStore,
        policies: Mapping[str, QueuePolicy] = BUILT_IN_POLICIES,
        registry: Registry | None = None,
    ) -> None:
        self._store = store
        self._policies = policies
        self._registry = REGISTRY if registry is None else registry

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
            fingerprint=_fingerprint(job_type, input, options) if idempotency_key else "",
            policies=self._policies, registry=self._registry, **options,
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
        prepared = [
            prepare(
                job_type,
                tenant,
                self._store.keyspace,
                input=data,
                policies=self._policies,
                registry=self._registry,
                **options,
            )
            for data in inputs
        ]
        return self._enqueue(prepared[0][0], [submission for _, submission in prepared])

    def _enqueue(self, shard: int, submissions: list[Submission]) -> list[str]:
        reply = self._store.run(commands.enqueue(shard, submissions, all_or_none=True))
        return check_enqueued(reply)


def open_sync_store(target: Settings | str, keyspace: Keyspace | None = None) -> SyncStore:
    """Make a store from settings, or from a URL and a keyspace. No I/O yet.

    Raises:
        SettingsError: the settings name no store.
    """
    if isinstance(target, str):
        return SyncStore(target, keyspace)
    its_keyspace = keyspace or Keyspace(target.key_prefix, target.shards)
    return SyncStore(require_store_url(target), its_keyspace, timeout_s=target.store_timeout_s)


def connect(
    target: Settings | str,
    *,
    keyspace: Keyspace | None = None,
    queues: Mapping[str, QueuePolicy] | None = None,
) -> None:
    """Say which store ``job.submit()`` and ``actor.send()`` use in this process. A later call replaces the earlier one.

    Args:
        target: settings, or a store URL (``redis://``, ``rediss://``, ``unix://``).
        keyspace: with a URL: the key prefix and shard count, where they are not the defaults.
        queues: with a URL: the queues' policies, where they are not the built-in ones.

    Raises:
        SettingsError: the settings name no store.
    """
    own = target.queues if isinstance(target, Settings) else BUILT_IN_POLICIES
    _replace(_Connection(open_sync_store(target, keyspace), own if queues is None else queues))


@contextmanager
def connected(
    url: str, keyspace: Keyspace, queues: Mapping[str, QueuePolicy] | None = None
) -> Iterator[None]:
    """Be connected while the context lasts: as the program said by ``connect``, else to this store."""
    if _default is not None:
        yield
        return
    connect(url, keyspace=keyspace, queues=queues)
    try:
        yield
    finally:
        _replace(None)


@contextmanager
def substituted(store: SyncStore, queues: Mapping[str, QueuePolicy]) -> Iterator[None]:
    """Have everything in this process use another store while the context lasts: a test's. Neither is closed.

    It goes before whatever ``connect`` is called with meanwhile.
    """
    made = _Connection(store, queues)
    _substitutes.append(made)
    # Where several tests' jobs run at once, as tasks of one loop, each has its own.
    token = _substitute.set(made)
    try:
        yield
    finally:
        _substitutes.remove(made)
        # A fixture may be left in another context than it was entered in.
        with suppress(ValueError):
            _substitute.reset(token)


def default_store() -> SyncStore:
    """Return the process's own store, made from the environment when ``connect`` was not called.

    Raises:
        SettingsError: the environment names no store, or is not valid.
    """
    return _default_connection().store


def default_policies() -> Mapping[str, QueuePolicy]:
    """Return the policies of the queues that go with ``default_store``; raises as that does."""
    return _default_connection().policies


def default_submitter() -> Submitter:
    """Return what ``job.submit()`` uses; raises as ``default_store`` does."""
    connection = _default_connection()
    return Submitter(connection.store, connection.policies)


def _default_connection() -> _Connection:
    global _default
    if _substitutes:
        own = _substitute.get()
        return own if own in _substitutes else _substitutes[-1]
    with _lock:
        if _default is None:
            settings = load_settings()
            _default = _Connection(open_sync_store(settings), settings.queues)
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


def _replace(made: _Connection | None) -> None:
    global _default
    with _lock:
        replaced, _default = _default, made
    if replaced is not None:
        replaced.store.close()


def _fingerprint(job_type: JobType[Any, Any], data: Any, options: Mapping[str, Any]) -> str:
    return fingerprint_of(job_type.name, job_type.dump_input({} if data is None else data), dict(options))
