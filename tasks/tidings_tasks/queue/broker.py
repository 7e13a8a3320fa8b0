"""Our Dramatiq broker: ``actor.send()`` stores a job, and both our worker and the stock ``dramatiq`` command run it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq import Actor, Broker, Message
from dramatiq.middleware import AsyncIO, Callbacks, Middleware, Pipelines, ShutdownNotifications

from tidings.protocol.errors import StoreUnavailable

from ..connection import default_policies, default_store, open_sync_store
from ..job_type import JobType
from ..registry import REGISTRY, Registry
from ..settings import Settings
from ..store import Keyspace, SyncStore, commands
from ..submission import check_enqueued
from .actor_options import ActorDefaults, take_over
from .committer import Committer
from .consumer import TidingsConsumer
from .dependencies import breakers_of
from .event_loop import PatientAsyncIO
from .messages import submission_of
from .middleware import FOLLOWED, Policy, native_coroutine
from .queues import QueuePolicy, limits_of
from .results import JobResults
from .time_limits import ends_its_time

__all__ = ["TidingsBroker", "installed_broker"]

_log = logging.getLogger(__name__)

_CLOSE_S = 5.0


class TidingsBroker(Broker):
    """Keeps messages as jobs. Making one does no I/O.

    Dramatiq's Retries, TimeLimit and AgeLimit have no place here: what they are configured with is taken over, and
    said so in the log.

    Args:
        target: settings or a store URL; None: the process's own connection (``tidings_tasks.connect``, or the
            environment on first use).
        keyspace: with a URL: the key prefix and shard count, where they are not the defaults.
        middleware: instead of Dramatiq's usual set (AsyncIO, ShutdownNotifications, Callbacks, Pipelines); our own
            policy is added to either.
    """

    def __init__(
        self,
        target: Settings | str | None = None,
        *,
        keyspace: Keyspace | None = None,
        middleware: Iterable[Middleware] | None = None,
    ) -> None:
        self.settings = target if isinstance(target, Settings) else Settings()
        """Those given, or else the defaults: bounds and leases under the stock worker."""
        self.has_settings = target is self.settings
        self.defaults = ActorDefaults()
        self.job_types: dict[str, JobType[Any, Any]] = {}
        self._registry = REGISTRY
        self._store = None if target is None else open_sync_store(target, keyspace)
        self._lent: list[SyncStore] = []
        self._committer: Committer | None = None
        self._lock = threading.Lock()
        usual = [PatientAsyncIO(), ShutdownNotifications(), Callbacks(), Pipelines()]
        super().__init__(middleware=[])
        self.queues: set[str] = set()
        for found in usual if middleware is None else middleware:
            self.add_middleware(found)
        # Behind the others, so that it decides before Callbacks and Pipelines act on the outcome.
        self.add_middleware(Policy())

    @property
    def store(self) -> SyncStore:
        """The store.

        Raises:
            SettingsError: none was given, and the environment names none.
        """
        if self._store is None:
            return default_store()
        return self._lent[-1] if self._lent else self._store

    @contextmanager
    def lent(self, store: SyncStore) -> Iterator[None]:
        """Use another store than the one that was given while the context lasts; without one given, nothing changes."""
        self._lent.append(store)
        try:
            yield
        finally:
            self._lent.remove(store)

    @property
    def policies(self) -> Mapping[str, QueuePolicy]:
        """The policies of the queues: those of the broker's settings, else of the process's own connection."""
        return default_policies() if self._store is None else self.settings.queues

    def add_middleware(
        self,
        middleware: Middleware,
        *,
        before: type[Middleware] | None = None,
        after: type[Middleware] | None = None,
    ) -> None:
        """Add a middleware; of those that this broker replaces only the configuration is taken."""
        taken = take_over(self.defaults, middleware)
        if taken is not None:
            self.defaults = taken
            _log.warning(
                "%s is replaced by this broker's own policy, which takes its configuration",
                type(middleware).__name__,
            )
            return
        if type(middleware) is AsyncIO:
            middleware = PatientAsyncIO()
        if isinstance(middleware, AsyncIO | Policy) and any(
            type(m) is type(middleware) for m in self.middleware
        ):
            return
        super().add_middleware(middleware, before=before, after=after)

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known to workers."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """The queues of the declared actors."""
        return self.queues.copy()

    def declare_actor(self, actor: Actor[..., Any]) -> None:
        """Make an actor known to workers."""
        if native_coroutine(actor) is None:
            actor.fn = ends_its_time(actor.fn)
        super().declare_actor(actor)

    def declare_jobs(self, registry: Registry = REGISTRY) -> None:
        """Declare the registered job types as actors, so that the stock worker runs them too."""
        self._registry = registry
        for job_type in registry:
            if job_type.name not in self.actors:
                self.job_types[job_type.name] = job_type
                Actor(
                    _actor_function(job_type), broker=self, actor_name=job_type.name,
                    queue_name=job_type.queue, priority=0, options={},
                )  # fmt: skip

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Store a message as a job, and return it; both it and the one that is given get the job's id as their own.

        Its options ``owner`` and ``org`` say whose it is (default: ``system``); what Pipelines and Callbacks send
        belongs to the owner of the job that it follows.

        Args:
            delay: ms; it goes before the option ``eta`` (ms since the epoch).

        Raises:
            InvalidInput: arguments or options are no JSON, or the job type does not take them.
            QueueFull: the queue has no room.
            StoreUnavailable: the store cannot be reached.
        """
        self.emit_before("enqueue", message, delay)
        store = self.store
        shard, submission = submission_of(
            message, store.keyspace, actor=self.actors.get(message.actor_name),
            job_type=self.job_types.get(message.actor_name), defaults=self.defaults,
            inherited=FOLLOWED.get(), delay_ms=delay, registry=self._registry, policies=self.policies,
        )  # fmt: skip
        reply = store.run(commands.enqueue(shard, [submission]))
        (job_id,) = check_enqueued(reply)
        # A group, or whoever keeps a message and sends it, asks for its result by the message that was given here.
        object.__setattr__(message, "message_id", job_id)
        stored = message.copy()
        self.emit_after("enqueue", stored, delay)
        return stored

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> TidingsConsumer:
        """Return the messages of a queue, for the stock ``dramatiq`` worker."""
        # Each queue has a thread that consumes it, and they all start at once.
        with self._lock:
            if self._committer is None:
                if self.has_settings:
                    self._write_limits()
                self._committer = Committer(self.store, self)
                self._committer.start()
            committer = self._committer
        return TidingsConsumer(committer, queue_name, prefetch=prefetch, timeout_s=timeout / 1000)

    def stop_claiming(self) -> None:
        """Have consumers claim no more; running actors get ``shutdown_grace_s`` before their contexts hand them back."""
        with self._lock:
            if self._committer is not None:
                self._committer.stop_claiming()

    def get_results_backend(self) -> Any:
        """The backend of the program's Results middleware.

        Raises:
            RuntimeError: there is none.
        """
        return JobResults(super().get_results_backend())

    def _write_limits(self) -> None:
        # Where other workers or a server run they have written them; alone, this one does its best.
        limits = limits_of(self.settings.queues)
        breakers = breakers_of(self.settings.dependencies, self._registry.dependencies)
        for shard in range(self.store.keyspace.shards):
            try:
                self.store.run(commands.configure(shard, queues=limits, dependencies=breakers))
            except StoreUnavailable as error:
                _log.warning("the limits of shard %d are not written: %s", shard, error)

    def flush(self, queue_name: str) -> None:
        """Not supported: jobs are cancelled one by one, so that their watchers learn it."""
        raise NotImplementedError("a queue of jobs is not dropped; cancel its jobs")

    def flush_all(self) -> None:
        """Not supported, see ``flush``."""
        raise NotImplementedError("queues of jobs are not dropped; cancel their jobs")

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Not supported: watch the job itself, by the id of the message that ``send`` returned."""
        raise NotImplementedError("watch the jobs, by the ids of their messages")

    def close(self) -> None:
        """Write what workers have acknowledged, and close the connections that are the broker's own."""
        with self._lock:
            committer, self._committer = self._committer, None
        if committer is not None:
            committer.close(_CLOSE_S)
        if self._store is not None:
            self._store.close()


def installed_broker() -> TidingsBroker:
    """Return Dramatiq's global broker, made ours when none was set: modules with actors can then be imported.

    A program may use Dramatiq with another broker besides: that one is left alone, and its actors are not ours to run.
    """
    found = dramatiq.broker.global_broker
    if found is None:
        found = TidingsBroker()
        dramatiq.set_broker(found)
    if isinstance(found, TidingsBroker):
        return found
    _log.info("Dramatiq's broker is a %s; its actors are not run here", type(found).__name__)
    return TidingsBroker()


def _actor_function(job_type: JobType[Any, Any]) -> Any:
    from ..context import current_job

    if job_type.is_async:

        async def run_async(data: Any) -> Any:
            return await job_type.run(current_job(), job_type.validate_input(data))

        return run_async

    def run(data: Any) -> Any:
        return job_type.run(current_job(), job_type.validate_input(data))

    return run
