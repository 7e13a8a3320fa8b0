"""`make bench`: one job followed by many watchers, our server against stock python-socketio, in one run.

Prints the server's CPU time for each delivery and the deliveries a second, as medians of the rounds, and the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import jwt
import orjson
import psutil
import socketio

from tidings.protocol import new_job_id
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Spec, Store, Submission, Verb, Write, commands

from .load import Crowd
from .servers import SECRET

PROGRESS = orjson.dumps({"percent": 42.0, "message": "m" * 40, "current": 42, "total": 100})


async def run_tidings(url: str, claim_id: str, events: int, numbers: itertools.count[int]) -> None:
    """Write events as a worker does: in steps of 20."""
    store = Store(url)
    for _ in range(events // 20):
        writes = [Write(claim_id, 1, next(numbers), Verb.PROGRESS, PROGRESS) for _ in range(20)]
        await store.run(
            commands.step(0, worker="bench", call=time.time_ns(), lease_ms=600_000, writes=writes)
        )
    await store.aclose()


async def run_stock(url: str, job_id: str, events: int, numbers: itertools.count[int]) -> None:
    """Emit events to the room as another process does."""
    manager = socketio.AsyncRedisManager(url, write_only=True)
    for _ in range(events):
        event = {
            "job_id": job_id,
            "epoch": "bench",
            "seq": next(numbers),
            "kind": "progress",
            "data": orjson.loads(PROGRESS),
        }
        await manager.emit("job:progress", event, room=job_id)


async def start_job(url: str) -> str:
    """Store a job and take it."""
    store = Store(url)
    job_id = new_job_id(0)
    spec = Spec("bench", "bench", None, {}, 600, 1, (1,))
    await store.run(commands.enqueue(0, [Submission(job_id, spec, job_id, 3)]))
    await store.run(
        commands.step(0, worker="bench", call=time.time_ns(), lease_ms=600_000, wants=[(job_id, 1)])
    )
    await store.aclose()
    return job_id


async def measure(name: str, url: str, watchers: int, events: int, rounds: int) -> list[tuple[float, float]]:
    """Return (CPU microseconds a delivery, deliveries a second) of each round."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.servers", name, url, stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    job_id = await start_job(url)
    now = int(time.time())
    token = jwt.encode({"sub": "bench", "iat": now, "exp": now + 3600}, SECRET, "HS256")
    crowd = Crowd(port, token, job_id, marker=b'["job:progress"')
    await crowd.connect(watchers)
    server = psutil.Process(process.pid)
    numbers = itertools.count(1)
    found = []
    for _ in range(rounds + 1):
        reached = crowd.expect(watchers * events)
        before, began = server.cpu_times(), time.perf_counter()
        if name == "tidings":
            await run_tidings(url, job_id, events, numbers)
        else:
            await run_stock(url, job_id, events, numbers)
        await asyncio.wait_for(reached, 120)
        took, after = time.perf_counter() - began, server.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
        found.append((cpu_s / (watchers * events) * 1e6, watchers * events / took))
    crowd.close()
    await process.communicate()
    return found[1:]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--watchers", type=int, default=500)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as valkey:
        for name in ("tidings", "stock"):
            results[name] = asyncio.run(
                measure(name, valkey.url, options.watchers, options.events, options.rounds)
            )
    print(
        f"one job, {options.watchers} watchers, {options.events} events a round, median of {options.rounds} (min-max)\n"
    )
    print("| server | CPU µs a delivery | deliveries/s |\n|---|---|---|")
    for name, rows in results.items():
        cells = [
            f"{statistics.median(c):,.1f} ({min(c):,.1f}-{max(c):,.1f})" for c in zip(*rows, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    cpu = [statistics.median(row[0] for row in results[name]) for name in ("tidings", "stock")]
    rate = [statistics.median(row[1] for row in results[name]) for name in ("tidings", "stock")]
    print(f"\nratio to stock: CPU a delivery {cpu[0] / cpu[1]:.2f}x, deliveries/s {rate[0] / rate[1]:.1f}x")


if __name__ == "__main__":
    main()
