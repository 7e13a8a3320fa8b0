"""Celery on its Redis transport: the threads pool with as many threads as the others have jobs at once, results kept."""

from __future__ import annotations

import os
import sys

from celery import Celery, group

from benchmarks.queue import probe

from .producing import produce_blocking

_URL = f"redis+socket://{os.environ['BENCH_SOCKET']}"

app = Celery("bench", broker=_URL, backend=_URL)
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@app.task(name="noop")
def noop(n: int) -> None:
    """Do nothing."""
    probe.begin()
    probe.end()


@app.task(name="pickup")
def pickup(sent_ms: float) -> None:
    """Note how late it begins."""
    probe.pick_up(sent_ms)


def _work() -> None:
    app.worker_main(
        [
            "worker", "--pool", "threads", "--concurrency", os.environ["BENCH_CONCURRENCY"], "--loglevel", "ERROR",
            "--without-gossip", "--without-mingle",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        _work()
    else:
        produce_blocking(
            connect=lambda: app.connection_for_write().ensure_connection(),
            send=lambda job, data: app.tasks[job].apply_async(kwargs=data),
            # Celery has no call that sends many; a group is what its documentation offers.
            send_many=lambda job, datas: group(app.tasks[job].s(**data) for data in datas).apply_async(),
        )
