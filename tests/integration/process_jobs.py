"""Job types that run in the process pool; a child process imports this module to find them."""

from __future__ import annotations

import logging
import os
import signal
import time

from pydantic import BaseModel

from tidings_tasks import JobCancelled, SyncJobContext, job

_logger = logging.getLogger("tests.process_jobs")


class Wish(BaseModel):
    how: str = ""
    size: int = 0


@job("proc.everything", process=True)
def everything(ctx: SyncJobContext, input: Wish) -> dict[str, object]:
    ctx.progress(10, "begun")
    ctx.log("info", "hello", answer=42)
    ctx.output("text")
    with_stream = ctx.stream("tokens")
    for word in ("one ", "two ", "three"):
        with_stream.write(word)
    _logger.info("from logging")
    for _ in ctx.track(range(2), message="tracking"):
        pass
    ctx.flush()
    saved = ctx.save_file("out.txt", b"content", "text/plain")
    return {"pid": os.getpid(), "owner": ctx.owner, "attempt": ctx.attempt, "file": saved["name"]}


@job("proc.pid", process=True)
def pid(ctx: SyncJobContext, input: Wish) -> int:
    kept = bytearray(input.size)
    del kept
    return os.getpid()


@job("proc.memory", process=True)
def memory(ctx: SyncJobContext, input: Wish) -> int:
    block = b"x" * input.size
    total = sum(range(2_000_000))
    return len(block) + total * 0


@job("proc.outputs", process=True)
def outputs(ctx: SyncJobContext, input: Wish) -> None:
    for number in range(input.size):
        ctx.output(number)


@job("proc.endless", process=True, timeout_s=0.5, max_attempts=1)
def endless(ctx: SyncJobContext, input: Wish) -> None:
    try:
        if input.how == "sleep":
            time.sleep(3600)
        elif input.how == "c":
            sum(range(10**13))  # one step of the interpreter, which nothing but SIGKILL can end
        while True:
            pass
    finally:
        ctx.log("info", "cleaned up")


@job("proc.waits", process=True)
def waits(ctx: SyncJobContext, input: Wish) -> str:
    ctx.output("started")
    try:
        while True:
            if input.how == "deaf":
                time.sleep(3600)
            if input.how == "shutdown" and ctx.shutting_down:
                return "saw the shutdown"
            if input.how == "asks" and ctx.cancelled:
                return "saw the cancellation"
            if input.how == "listens":
                ctx.progress(message="here")
            time.sleep(0.01)
    except JobCancelled:
        ctx.log("info", "told")
        raise


@job("proc.dies", process=True, max_attempts=2, backoff_s=(0,))
def dies(ctx: SyncJobContext, input: Wish) -> int:
    if ctx.attempt == 1 or input.how == "always":
        ctx.output("started")
        if input.how == "exit":
            os._exit(3)
        if input.how == "forks" and os.fork() == 0:
            time.sleep(3600)  # keeps all that its parent had open
        os.kill(os.getpid(), signal.SIGSEGV if input.how == "segfault" else signal.SIGKILL)
        time.sleep(3600)
    return ctx.attempt


@job("proc.submits", process=True)
def submits(ctx: SyncJobContext, input: Wish) -> str:
    return pid.submit(Wish(), owner=ctx.owner, org=ctx.org)
