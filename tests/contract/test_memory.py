"""What a waiting job costs the store, with all its indexes, its idempotency key, and its entries in three feeds."""

from __future__ import annotations

from typing import Any

from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Keyspace, Submission, Tenant, commands

from .bench import Bench, spec_of

JOBS, OWNERS = 10_000, 500
MAX_BYTES = 1_200


def test_a_waiting_job_takes_little_memory(private_valkey: EmbeddedValkey) -> None:
    """Ten thousand jobs of five hundred owners: at most 1.2 kB each, beside what their authors gave."""
    bench = Bench(private_valkey.url, Keyspace())
    bench.checks = False

    def used_bytes() -> int:
        info: dict[str, Any] = bench.raw.info("memory")
        return int(info["used_memory"])

    def add(count: int) -> int:
        payload_bytes = 0
        for first in range(0, count, 500):
            batch = [
                Submission(
                    bench.new_id(),
                    spec_of(Tenant(f"user{(first + n) % OWNERS}", "acme")),
                    "default",
                    3,
                    idempotency_key=bench.new_id(),
                    fingerprint="f" * 32,
                )
                for n in range(500)
            ]
            payload_bytes += sum(len(job.spec.to_json()) for job in batch)
            bench.store.run(commands.enqueue(0, batch))
        return payload_bytes

    add(1_000)
    before_bytes = used_bytes()
    payload_bytes = add(JOBS)
    each_bytes = (used_bytes() - before_bytes - payload_bytes) / JOBS
    print(f"{each_bytes:.0f} bytes a waiting job")
    assert each_bytes <= MAX_BYTES
    bench.close()
