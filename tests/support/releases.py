"""Two releases of the package side by side: the one under test, and a copy of it that is made to look like the next one."""

from __future__ import annotations

import os
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

_CHANGES: Mapping[str, Mapping[str, str]] = {
    "tidings/__init__.py": {
        f'__version__ = "{tidings.__version__}"': f'__version__ = "{NEXT_VERSION}"',
    },
    # One more member in what never changes of a job.
    "tidings_tasks/store/record.py": {
        "        return orjson.dumps(body)\n": '        body["region"] = {"name": "eu"}\n        return orjson.dumps(body)\n',
    },
    # One more field in the record and in an event's data, and an event of another kind.
    "tidings_tasks/store/lua/step.lua": {
        "  set(job, 'wk', worker)\n": "  set(job, 'wk', worker)\n  set(job, 'zn', 'eu-1')\n",
        "  emit(job, 'started', STARTED .. int(job.a) .. '}')\n": (
            "  emit(job, 'started', STARTED .. int(job.a) .. ',\"zone\":\"eu-1\"}')\n"
            "  emit(job, 'placed', '{\"zone\":\"eu-1\"}')\n"
        ),
    },
}


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
    for name, changes in _CHANGES.items():
        path = folder / name
        text = path.read_text("utf-8")
        for old, new in changes.items():
            assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
            text = text.replace(old, new)
        path.write_text(text, "utf-8")
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
