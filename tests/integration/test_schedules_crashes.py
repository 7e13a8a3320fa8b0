"""Three worker processes with one schedule, killed in turn: every due time is one job, and none is lost."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

from tests.integration.running import open_jobs
from tests.integration.worker_processes import worker_environ, worker_process
from tests.support.timing import eventually
from tidings.protocol import JobState
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.registry import Registry
from tidings_tasks.store import JobRecord, Keyspace, Tenant, commands

EVERY_MS = 200
FIRINGS = 50
SCHEDULE = {
    "often": {
        "type": "demo.steps", "input": {"steps": 1, "delay_ms": 0},
        "every_s": EVERY_MS / 1000, "overlap": "queue", "catch_up": "all", "catch_up_limit": 1000,
    }
}  # fmt: skip


async def test_killed_schedulers_neither_lose_nor_double_a_run(
    private_valkey: EmbeddedValkey, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Fifty due times 200 ms apart, a kill -9 about every five, and the store once."""
    url = private_valkey.url
    environ = worker_environ(url, keyspace, tmp_path, schedules=json.dumps(SCHEDULE), lease_s="1")

    async with open_jobs(url, keyspace, Registry()) as jobs:

        async def read_runs() -> list[JobRecord]:
            return await jobs.store.run(commands.list_jobs(0, Tenant("system"), limit=1_000))

        async def reached(count: int) -> list[JobRecord] | None:
            found = await read_runs()
            return found if len(found) >= count else None

        with ExitStack() as stack:
            workers = [
                stack.enter_context(worker_process("tidings_tasks.demo", environ=environ)) for _ in range(3)
            ]
            victims = cycle(range(3))
            for count in range(5, FIRINGS, 5):
                await eventually(lambda count=count: reached(count), 60)  # type: ignore[misc]
                if count == FIRINGS // 2:
                    private_valkey.kill()
                    private_valkey.start()
                victim = next(victims)
                workers[victim].send_signal(signal.SIGKILL)
                workers[victim].wait()
                workers[victim] = stack.enter_context(worker_process("tidings_tasks.demo", environ=environ))
            await eventually(lambda: reached(FIRINGS), 60)

            async def all_done() -> bool:
                done = [record for record in await read_runs() if record.state is JobState.COMPLETED]
                return len(done) >= FIRINGS

            await eventually(all_done, 60)
        # What the last worker left behind is not of interest: it ended in the middle of a due time or between two.
        found = sorted(await read_runs(), key=lambda record: record.id)
        due = [str((record.spec.metadata or {})["due"]) for record in found]
        assert len(set(due)) == len(due)
        assert due == sorted(due)
        times = [int(record.id[:10].translate(_TO_BASE_32), 32) for record in found]
        assert times == list(range(times[0], times[-1] + 1, EVERY_MS))
        for record in found:
            kinds = await jobs.kinds(record.id)
            assert kinds[0] == "queued"
            assert kinds.count("completed") <= 1


_TO_BASE_32 = str.maketrans("ABCDEFGHJKMNPQRSTVWXYZ", "abcdefghijklmnopqrstuv")
"""From Crockford's alphabet, which ids are written in, to the one that ``int`` reads."""
