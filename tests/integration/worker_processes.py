"""Real worker processes for tests: ``tidings worker`` and the stock ``dramatiq`` command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.stack import clean_environ
from tests.support.timing import scaled
from tidings_tasks.store import Keyspace


def worker_environ(url: str, keyspace: Keyspace, data_dir: Path, **settings: Any) -> dict[str, str]:
    """The environment of a worker process: what the test gives, and nothing of the machine's."""
    named = {f"TIDINGS_{name.upper()}": str(value) for name, value in settings.items()}
    return clean_environ(
        REDIS_URL=url, TIDINGS_KEY_PREFIX=keyspace.prefix, TIDINGS_SHARDS=str(keyspace.shards),
        TIDINGS_DATA_DIR=str(data_dir), TIDINGS_ENV="test", PYTHONFAULTHANDLER="1", **named,
    )  # fmt: skip


@contextmanager
def worker_process(
    *modules: str, environ: dict[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``tidings worker``, from its first claim on."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tidings", "worker", *modules, "--ready-fd", str(write_end)],
        env=environ, cwd=cwd, pass_fds=[write_end],
    )  # fmt: skip
    os.close(write_end)
    try:
        with os.fdopen(read_end, "rb") as ready:
            assert ready.readline() == b"\n", f"the worker ended with {process.wait()}"
        yield process
    finally:
        end_process(process)


@contextmanager
def dramatiq_process(
    module: str, *args: str, environ: dict[str, str], cwd: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the stock ``dramatiq`` command with one worker process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dramatiq", module, "--processes", "1", "--threads", "2", *args],
        env=environ, cwd=cwd,
    )  # fmt: skip
    try:
        yield process
    finally:
        end_process(process)


def end_process(process: subprocess.Popen[bytes]) -> int:
    """End a process with SIGTERM, and return its status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(scaled(20))
    except subprocess.TimeoutExpired:
        # faulthandler answers SIGABRT with the stacks of all threads: what it hangs in is in the test's output.
        family = psutil.Process(process.pid)
        for member in [*family.children(recursive=True), family]:
            member.send_signal(signal.SIGABRT)
        process.wait(scaled(20))
        raise
