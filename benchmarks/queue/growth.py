"""What the store's size changes: memory of a waiting job, and speed with many finished jobs kept.

The finished jobs are made by the store's own scripts, called in large steps: submitted, claimed, completed. An empty store
and the full one are then measured in turns of the same scenarios; the ratio is full to empty.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from tidings.protocol import new_job_id
from tidings_tasks.store import Spec, Submission, SyncStore, Tenant, Verb, Write, commands

from .measuring import Bench
from .results import Run
from .systems import TIDINGS

__all__ = ["measure_growth"]

_STEP, _LEASE_MS = 500, 600_000
_OWNERS = 500
_WAITING = 100_000


def measure_growth(bench: Bench, options: argparse.Namespace) -> list[Run]:
    """Measure memory, then drain and pick-up in the empty and in the full store. "peer" is the empty one."""
    kept = options.kept
    jobs, picked = (500, 20) if options.quick else (20_000, 150)
    waiting = 2_000 if options.quick else _WAITING
    runs = [Run("memory", "tidings", 0, {"bytes_per_job": _bytes_per_waiting_job(bench, waiting)})]
    for is_full in (False, True):
        if is_full:
            bench.store.empty()
            _fill(bench, kept)
        system = "tidings" if is_full else "empty store"
        for round_ in range(options.rounds):
            for scenario in ("drain", "pickup"):
                if scenario == "drain":
                    figures = bench.drain(TIDINGS, "noop", jobs, empties=not is_full)
                else:
                    figures = bench.pick_up(TIDINGS, picked, empties=not is_full)
                runs.append(Run(f"{kept:,} finished jobs: {scenario}", system, round_, figures))
                print(f"{system}: {scenario}: {figures}", file=sys.stderr)
    return runs


def _submissions(count: int) -> list[Submission]:
    made = []
    for number in range(count):
        tenant = Tenant(f"user{number % _OWNERS}", "bench")
        spec = Spec("bench.noop", tenant.owner, tenant.org, {"n": number}, 300, 3, (10, 20, 40))
        key = new_job_id(0)
        made.append(Submission(new_job_id(0), spec, "bench", 3, idempotency_key=key, fingerprint="f" * 32))
    return made


def _bytes_per_waiting_job(bench: Bench, count: int) -> float:
    bench.store.empty()
    store = SyncStore(bench.store.url)
    store.run(commands.enqueue(0, _submissions(_STEP)))
    before, payload = bench.store.used_bytes(), 0
    for _ in range(count // _STEP):
        batch = _submissions(_STEP)
        payload += sum(len(job.spec.to_json()) for job in batch)
        store.run(commands.enqueue(0, batch))
    store.close()
    return (bench.store.used_bytes() - before - payload) / count


def _fill(bench: Bench, count: int) -> None:
    store = SyncStore(bench.store.url, timeout_s=30)
    calls = itertools.count(1)
    writes: list[Write] = []
    for done in range(0, count + _STEP, _STEP):
        if done < count:
            store.run(commands.enqueue(0, _submissions(_STEP)))
        reply = store.run(
            commands.step(
                0, worker="filler", call=next(calls), lease_ms=_LEASE_MS, writes=writes,
                wants=[("bench", _STEP)] if done < count else [], most=_STEP,
            )
        )  # fmt: skip
        writes = [Write(claim.id, claim.attempt, 1, Verb.COMPLETE, b"null") for claim in reply.claims]
        if done % 100_000 == 0:
            print(f"filling: {done:,} of {count:,} jobs finished", file=sys.stderr)
    store.close()
