"""However ``tidings dev`` ends, no process of it is left; and a part that dies comes back by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest

from tests.support.processes import family_of, is_running, open_in_terminal, survivors
from tests.support.stack import LiveStack, clean_environ
from tests.support.timing import eventually_sync, scaled

pytestmark = pytest.mark.acceptance

TERMINAL = {"completed", "failed", "cancelled"}


def call(stack: LiveStack, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
    """Call the API as alice, or with a token, and return the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token or stack.token()}", "Content-Type": "application/json"}
    with urlopen(Request(stack.url + path, data, headers, method=method), timeout=scaled(20)) as answer:
        return json.load(answer)


def submit(stack: LiveStack, **steps: Any) -> str:
    """Submit a ``demo.steps`` job, and return its id."""
    return str(call(stack, "POST", "/api/jobs", {"type": "demo.steps", "input": steps})["id"])


def state_of(stack: LiveStack, job_id: str) -> str:
    """Return a job's state."""
    return str(call(stack, "GET", f"/api/jobs/{job_id}/status")["status"])


def wait_for_end(stack: LiveStack, job_id: str) -> dict[str, Any]:
    """Return a job that has ended."""
    eventually_sync(lambda: state_of(stack, job_id) in TERMINAL, 30)
    return dict(call(stack, "GET", f"/api/jobs/{job_id}"))


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LiveStack]:
    """Run a stack of this test's own, which the test may end as it likes."""
    stack = LiveStack(tmp_path / "data")
    stack.start()
    yield stack
    if stack.process.poll() is None:
        stack.stop()
    else:
        stack.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_no_process_outlives_the_stack(stack: LiveStack, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM, a closed terminal and kill -9 of the parent all end every part, in the midst of a job."""
    job_id = submit(stack, steps=1000, delay_ms=50)
    eventually_sync(lambda: state_of(stack, job_id) == "running")
    family = family_of(stack.process.pid)
    assert len(family) == 4
    os.kill(stack.process.pid, number)
    assert stack.process.wait(scaled(30)) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert survivors(family) == []


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """Who does not want to wait for running jobs presses Ctrl-C again; still nothing is left."""
    stack = LiveStack(tmp_path / "data", environ={"TIDINGS_SHUTDOWN_GRACE_S": "600"})
    stack.start()
    job_id = submit(stack, steps=1000, delay_ms=1000)
    eventually_sync(lambda: state_of(stack, job_id) == "running")
    family = family_of(stack.process.pid)
    os.kill(stack.process.pid, signal.SIGINT)
    server = psutil.Process(stack.pid("server"))
    server.wait(scaled(20))
    assert stack.process.poll() is None
    os.kill(stack.process.pid, signal.SIGINT)
    assert stack.process.wait(scaled(10)) == -signal.SIGINT
    stack.close()
    assert survivors(family) == []


def test_a_killed_parent_of_the_command_ends_it(tmp_path: Path) -> None:
    """`make dev` is such a parent: killed with -9, it takes the whole stack with it."""
    code = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = [sys.executable, "-m", "tidings", "dev", "--with-parent", "--json", "--port", "0"]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--data", str(tmp_path / "data")],
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        assert parent.stdout is not None
        next(line for line in parent.stdout if json.loads(line)["event"] == "ready")
        family = family_of(parent.pid)
        assert len(family) == 5
        parent.kill()
    assert survivors(family) == []


DEV = [sys.executable, "-m", "tidings", "dev", "--port", "0"]


def test_ctrl_c_in_a_terminal_reaches_the_parent_alone(tmp_path: Path) -> None:
    """The terminal signals its foreground group; the children are in others, and end in order: no one complains."""
    process, terminal = open_in_terminal(
        [*DEV, "--data", str(tmp_path / "data")], clean_environ(NO_COLOR="1")
    )
    seen = _read_until(terminal, b"Token:")
    family = family_of(process.pid)
    groups = {os.getpgid(member.pid) for member in family}
    assert len(groups) == len(family) == 4
    os.write(terminal, b"\x03")
    while chunk := _read_terminal(terminal):
        seen += chunk
    os.close(terminal)
    assert process.wait(scaled(20)) == 0
    assert b"Traceback" not in seen, seen.decode()
    assert b"status -" not in seen, seen.decode()
    assert survivors(family) == []


LEADER = """
import signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *_: None)
subprocess.run(sys.argv[1:])
"""


def test_a_closed_terminal_ends_the_stack(tmp_path: Path) -> None:
    """Also where the terminal's session has a leader that does not pass the hang-up on, as `make` does not."""
    leader = [sys.executable, "-c", LEADER, *DEV, "--data", str(tmp_path / "data")]
    process, terminal = open_in_terminal(leader, clean_environ())
    _read_until(terminal, b"Token:")
    family = family_of(process.pid)
    assert len(family) == 5
    os.close(terminal)
    process.wait(scaled(30))
    assert survivors(family) == []


def _read_until(terminal: int, words: bytes) -> bytes:
    seen = b""
    while words not in seen:
        chunk = _read_terminal(terminal)
        assert chunk, seen.decode()
        seen += chunk
    return seen


def _read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says so when the last process of a terminal is gone.
        return b""


def test_the_stack_ends_when_nobody_reads_it(tmp_path: Path) -> None:
    """`tidings dev | head -1` leaves nothing running."""
    command = [
        sys.executable,
        "-m",
        "tidings",
        "dev",
        "--json",
        "--port",
        "0",
        "--data",
        str(tmp_path / "data"),
    ]
    with subprocess.Popen(
        command, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(scaled(30)) == 0


def test_data_survives_a_restart(stack: LiveStack) -> None:
    """A finished job is there again after the stack was stopped, and after it was killed with -9."""
    ended = wait_for_end(stack, submit(stack, steps=3))
    assert ended["status"] == "completed"
    stack.stop()
    stack.start()
    assert call(stack, "GET", f"/api/jobs/{ended['id']}") == ended
    later = wait_for_end(stack, submit(stack, steps=2))
    family = family_of(stack.process.pid)
    stack.process.kill()
    stack.close()
    assert survivors(family) == []
    stack.start()
    assert call(stack, "GET", f"/api/jobs/{later['id']}") == later


def test_a_job_survives_the_restart_of_everything(stack: LiveStack) -> None:
    """A job that ran when the stack was killed ends after it is back."""
    job_id = submit(stack, steps=100, delay_ms=20)
    eventually_sync(lambda: state_of(stack, job_id) == "running")
    stack.process.kill()
    stack.close()
    stack.start()
    assert wait_for_end(stack, job_id)["status"] == "completed"


def test_a_worker_that_crashes_is_back_at_once(live_stack: LiveStack) -> None:
    """The next worker is started and takes jobs; the crashed one's job ends too."""
    since = live_stack.mark()
    crashed = submit(live_stack, steps=3, crash_at=2)
    assert live_stack.wait_for("ended", "worker", since=since)["status"] == -signal.SIGKILL
    live_stack.wait_for("up", "worker", since=since)
    assert wait_for_end(live_stack, submit(live_stack, steps=1))["status"] == "completed"
    ended = wait_for_end(live_stack, crashed)
    assert (ended["status"], ended["result"]) == ("completed", {"steps": 3, "attempt": 2})


@pytest.mark.parametrize("name", ["store", "server", "worker"])
def test_every_part_comes_back(live_stack: LiveStack, name: str) -> None:
    """Each part may be killed; the others go on, and jobs run again, under the same address."""
    url = live_stack.url
    others = {live_stack.pid(part) for part in ("store", "server", "worker") if part != name}
    since = live_stack.mark()
    killed = live_stack.kill(name)
    live_stack.wait_for("up", name, since=since)
    assert live_stack.pid(name) != killed
    assert all(is_running(pid) for pid in others)
    job_id = eventually_sync(lambda: _try_submit(live_stack), 30)
    assert wait_for_end(live_stack, job_id)["status"] == "completed"
    assert live_stack.url == url


def _try_submit(stack: LiveStack) -> str | None:
    try:
        return submit(stack, steps=2)
    except OSError:
        return None


@pytest.mark.parametrize("command", ["server", "worker"])
def test_a_process_of_its_own_ends_gracefully(
    command: str, valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """`tidings server` and `tidings worker` end with status 0 after SIGTERM."""
    environ = clean_environ(
        REDIS_URL=valkey_url, TIDINGS_KEY_PREFIX=key_prefix, TIDINGS_JOBS="tidings_tasks.demo", PORT="0",
        JWT_SECRET="x" * 32, TIDINGS_DATA_DIR=str(tmp_path),
    )  # fmt: skip
    ready_end, ready_fd = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "tidings", command, "--ready-fd", str(ready_fd)],
        env=environ,
        pass_fds=[ready_fd],
    ) as process:
        os.close(ready_fd)
        assert os.read(ready_end, 1) == b"\n"
        os.close(ready_end)
        process.terminate()
        assert process.wait(scaled(20)) == 0
