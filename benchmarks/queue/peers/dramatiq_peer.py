"""Stock Dramatiq on its Redis broker: one process with as many threads as the others have jobs at once, results kept."""

from __future__ import annotations

import os
import sys

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.queue import probe

from .producing import produce_blocking

_client = redis.Redis.from_url(os.environ["BENCH_URL"])
_broker = RedisBroker(client=_client)
_broker.add_middleware(Results(backend=RedisBackend(client=_client), store_results=True))
dramatiq.set_broker(_broker)


@dramatiq.actor(actor_name="noop")
def noop(n: int) -> None:
    """Do nothing."""
    probe.begin()
    probe.end()


@dramatiq.actor(actor_name="pickup")
def pickup(sent_ms: float) -> None:
    """Note how late it begins."""
    probe.pick_up(sent_ms)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        command = [
            "dramatiq", "benchmarks.queue.peers.dramatiq_peer", "--processes", "1", "--threads",
            os.environ["BENCH_CONCURRENCY"],
        ]  # fmt: skip
        os.execv(sys.executable, [sys.executable, "-m", *command])
    actors = {"noop": noop, "pickup": pickup}
    produce_blocking(connect=_client.ping, send=lambda job, data: actors[job].send(**data))
