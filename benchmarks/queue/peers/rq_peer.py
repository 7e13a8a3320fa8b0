"""RQ with its SimpleWorker, which runs one job after the other in its own process: the stock one forks for each, and is slower."""

from __future__ import annotations

import logging
import os
import sys

import redis
from rq import Queue, SimpleWorker

from benchmarks.queue import probe

from .producing import produce_blocking

_connection = redis.Redis.from_url(os.environ["BENCH_URL"])
_queue = Queue("bench", connection=_connection)
_JOBS = {name: f"benchmarks.queue.peers.rq_peer.{name}" for name in ("noop", "pickup")}


def noop(n: int) -> None:
    """Do nothing."""
    probe.begin()
    probe.end()


def pickup(sent_ms: float) -> None:
    """Note how late it begins."""
    probe.pick_up(sent_ms)


def _send_many(job: str, datas: object) -> None:
    _queue.enqueue_many([Queue.prepare_data(_JOBS[job], kwargs=data) for data in datas])  # type: ignore[attr-defined]


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        logging.getLogger("rq.worker").setLevel(logging.ERROR)
        SimpleWorker([_queue], connection=_connection).work(logging_level="ERROR")
    else:
        produce_blocking(
            connect=_connection.ping,
            send=lambda job, data: _queue.enqueue(_JOBS[job], kwargs=data),
            send_many=_send_many,
        )
