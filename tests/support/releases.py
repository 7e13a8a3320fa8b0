"""Two releases of the package side by side: the one under test, and a copy of it that is made to look like the next one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tidings
import tidings_server
import tidings_tasks

from .stack import clean_environ
from .timing import scaled

__all__ = ["NEXT_VERSION", "Release", "end", "free_port", "make_next", "this_release"]

NEXT_VERSION = "999.0.0"
_PACKAGES = (tidings, tidings_tasks, tidings_server)
_STATIC = Path(__file__).parents[2] / "static"

# What a next release might change: (where, what is there, what takes its place).
_CHANGES = (
    (
        "tidings/__init__.py",
        rf'__version__ = "{re.escape(tidings.__version__)}"',
        f'__version__ = "{NEXT_VERSION}"',
    ),
    # One more member in what never changes of a job.
    (
        "tidings_tasks/store/*.py",
        r"( +)return orjson\.dumps\(body\)\n",
        r'\1body["region"] = {"name": "eu"}\n\g<0>',
    ),
    # One more field in the record, one in an event's data, and an event of another kind.
    (
        "tidings_tasks/store/lua/*.lua",
        r"( +)emit\(job, 'started', (\w+ \.\. .+) \.\. '\}'\)\n",
        (
            r"\1set(job, 'zn', 'eu-1')\n"
            r"""\1emit(job, 'started', \2 .. ',"zone":"eu-1"}')\n"""
            r"""\1emit(job, 'placed', '{"zone":"eu-1"}')\n"""
        ),
    ),
)


@dataclass(frozen=True)
class Release:
    """Where a release is, and how its commands are started. ``cwd`` holds no code."""

    version: str
    path: str
    cwd: Path
    environ: Mapping[str, str]

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start ``tidings`` with these arguments, and return once it is ready."""
        read_end, write_end = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "tidings", *arguments, "--ready-fd", str(write_end)],
            cwd=self.cwd, pass_fds=[write_end],
            env=clean_environ(**self.environ) | {"PYTHONPATH": self.path, "TIDINGS_STATIC_DIR": str(_STATIC)} | environ,
        )  # fmt: skip
        os.close(write_end)
        with os.fdopen(read_end, "rb") as ready:
            assert ready.readline() == b"\n", f"{arguments} of {self.version} ended with {process.wait()}"
        return process


def this_release(cwd: Path, **environ: str) -> Release:
    """Return the release under test."""
    path = os.pathsep.join(str(Path(str(package.__file__)).parents[1]) for package in _PACKAGES)
    return Release(tidings.__version__, path, cwd, environ)


def make_next(folder: Path, cwd: Path, **environ: str) -> Release:
    """Copy the packages into ``folder``, and change the copy as a next release might."""
    for package in _PACKAGES:
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for where, there, then in _CHANGES:
        places = [path for path in folder.glob(where) if re.search(there, path.read_text("utf-8"))]
        assert len(places) == 1, f"{there!r} is to be in one place of {where}, not in {places}"
        text, count = re.subn(there, then, places[0].read_text("utf-8"))
        assert count == 1, f"{places[0]} has {count} times {there!r}"
        places[0].write_text(text, "utf-8")
    return Release(NEXT_VERSION, str(folder), cwd, environ)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    """End a process, and return its status."""
    if process.poll() is None:
        process.send_signal(number)
    return process.wait(scaled(30))
