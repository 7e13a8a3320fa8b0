"""Drive jobs through the store as a worker would, step by step, and check what watchers saw of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import orjson

from tidings.protocol import Event, accepts, new_job_id
from tidings_tasks.store import Claim, Spec, Store, Submission, Tenant, Verb, Write, commands

__all__ = ["JobDriver", "check_sequence", "read_log"]


class JobDriver:
    """One worker's hands. Each driver has a queue of its own, so it claims only its own jobs."""

    def __init__(self, store: Store, *, queue: str | None = None, lease_ms: int = 60_000) -> None:
        self.store = store
        self.worker = f"driver-{new_job_id(0)[-12:]}"
        self.queue = queue or self.worker
        self._lease_ms = lease_ms
        self._calls = itertools.count(1)
        self._numbers: dict[tuple[str, int], int] = {}

    async def enqueue(self, tenant: Tenant | None = None, *, job_type: str = "demo.steps") -> str:
        """Store a queued job and return its id."""
        tenant = tenant or Tenant("alice")
        shard = self.store.keyspace.shard_of_tenant(tenant)
        job_id = new_job_id(shard)
        spec = Spec(job_type, tenant.owner, tenant.org, {"steps": 1}, 300, 3, (1,))
        await self.store.run(commands.enqueue(shard, [Submission(job_id, spec, self.queue, 3)]))
        return job_id

    async def claim(self, job_id: str) -> Claim:
        """Take the job, which must be the next of this driver's queue."""
        reply = await self.store.run(self._step(job_id, [], [(self.queue, 1)]))
        (claim,) = reply.claims
        assert claim.id == job_id
        return claim

    async def start(self, tenant: Tenant | None = None) -> Claim:
        """Store a job and take it."""
        return await self.claim(await self.enqueue(tenant))

    async def write(self, claim: Claim, *writes: tuple[Verb, object]) -> list[int]:
        """Make numbered writes in one call; each is a verb and its data."""
        numbered = []
        for verb, data in writes:
            number = self._numbers[claim.id, claim.attempt] = (
                self._numbers.get((claim.id, claim.attempt), 0) + 1
            )
            extra = {Verb.RETRY: '{"delay_ms":0}', Verb.FAIL: '{"dead":true}'}.get(verb, "")
            numbered.append(Write(claim.id, claim.attempt, number, verb, orjson.dumps(data), extra))
        return [int(code) for code in (await self.store.run(self._step(claim.id, numbered, []))).codes]

    async def progress(self, claim: Claim, *percents: float) -> None:
        """Write progress events."""
        await self.write(claim, *((Verb.PROGRESS, {"percent": percent}) for percent in percents))

    async def log(self, claim: Claim, *messages: str) -> None:
        """Write log events, which are never folded."""
        await self.write(
            claim, *((Verb.LOG, {"level": "info", "message": text, "fields": {}}) for text in messages)
        )

    async def complete(self, claim: Claim, result: object = None) -> None:
        """End the job well."""
        assert await self.write(claim, (Verb.COMPLETE, result)) == [1]

    def _step(self, job_id: str, writes: Sequence[Write], wants: Sequence[tuple[str, int]]):  # type: ignore[no-untyped-def]
        shard = int(job_id.rpartition("s")[2])
        call = next(self._calls)
        return commands.step(
            shard, worker=self.worker, call=call, lease_ms=self._lease_ms, writes=writes, wants=wants
        )


async def read_log(store: Store, job_id: str) -> list[Event]:
    """Read a job's whole log."""
    page = await store.run(commands.read_events(job_id, limit=20_000, max_bytes=1 << 30))
    assert page is not None
    return [Event.model_validate_json(text) for text in page.events]


def check_sequence(texts: Sequence[bytes], *, after: int = 0, head: int | None = None) -> list[Event]:
    """Check that a receiver at seq ``after`` could apply these envelopes one by one: in order, none twice, no gap.

    With ``head``, that they reach it and nothing follows a terminal event.
    """
    events = [Event.model_validate_json(text) for text in texts]
    at = after
    for event in events:
        assert accepts(at, seq=event.seq, prev=event.prev), f"at {at} came seq {event.seq} prev {event.prev}"
        at = event.seq
    for event in events[:-1]:
        assert not event.is_terminal, "something followed the terminal event"
    if head is not None:
        assert at == head, f"stopped at {at} of {head}"
    return events
