"""The client's commands as a user runs them: real processes against a real connection."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from tests.integration.sdk_double import GOOD_TOKEN, Double, ScriptedJob, running
from tests.support.timing import scaled
from tidings.cli import main


@dataclass
class Outcome:
    """What a command came to."""

    status: int
    out: str
    err: str


class Shell:
    """Runs `tidings` with an environment that names the double: as a process, or cheaper in a thread of this one."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def start(self, *arguments: str, out: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        """Start a process."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "tidings", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *arguments: str) -> Outcome:
        """Run a command to its end in a thread; one at a time, since it writes where this process does."""
        async with asyncio.timeout(scaled(20)):
            status = await asyncio.to_thread(main, arguments)
        said = self._capsys.readouterr()
        return Outcome(status, said.out, said.err)


async def finish(process: asyncio.subprocess.Process) -> Outcome:
    """Wait for a command's end."""
    async with asyncio.timeout(scaled(20)):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Outcome(process.returncode, (out or b"").decode(), err.decode())


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    """Give a running double."""
    async with running() as server:
        yield server


@pytest.fixture
def shell(double: Double, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell for the double."""
    monkeypatch.setenv("TIDINGS_URL", double.url)
    monkeypatch.setenv("TIDINGS_TOKEN", GOOD_TOKEN)
    return Shell(capsys)


def play(double: Double, job: ScriptedJob, end: str = "completed") -> None:
    """Let a job run."""
    double.append(job, "started", {"worker": "w", "attempt": 1})
    double.append(
        job, "progress", {"percent": 50.0, "message": "half [bold]\x1b[2J", "current": 1, "total": 2}
    )
    double.append(job, "log", {"level": "info", "message": "a line", "fields": {"n": 1}})
    double.append(job, "output", {"stream": "text", "chunk": "tok"})
    double.append(job, "output", {"stream": "text", "chunk": "en\nnext"})
    error = {"code": "boom", "type": "Boom", "message": "it broke"}
    data = {"completed": {"result": {"pages": 3}}, "failed": {"error": error}, "cancelled": {"by": "bob"}}
    double.append(job, end, data[end])


async def test_submit_prints_the_job(double: Double, shell: Shell, tmp_path: Path) -> None:
    """For people by its id, for programs whole."""
    (tmp_path / "in.json").write_text('{"steps": 4}')
    said = await shell.run(
        "submit", "demo.steps", "--input", f"@{tmp_path}/in.json", "--tag", "a", "--priority", "2"
    )
    (job,) = double.jobs.values()
    assert said == Outcome(0, f"{job.id} queued\n", "")
    assert double.bodies == [{"type": "demo.steps", "input": {"steps": 4}, "tags": ["a"], "priority": 2}]
    said = await shell.run("submit", "demo.steps", "--json")
    assert json.loads(said.out)["status"] == "queued"


async def test_submit_and_watch_shows_the_job_to_its_end(double: Double, shell: Shell) -> None:
    """Progress, output and result, and nothing that drives the terminal."""
    command = asyncio.create_task(shell.run("submit", "demo.steps", "--input", '{"steps": 1}', "--watch"))
    await double.subscribed.get()
    play(double, next(iter(double.jobs.values())))
    said = await command
    assert (said.status, said.err) == (0, "")
    for part in ("completed", "100%", "info: a line n=1", "token\nnext", '"pages": 3'):
        assert part in said.out
    assert "\x1b" not in said.out


async def test_a_terminal_gets_a_bar_that_moves(double: Double, shell: Shell) -> None:
    """Redrawn as the job goes on."""
    job = double.add()
    main_end, terminal = pty.openpty()
    process = await shell.start("watch", job.id, out=terminal)
    os.close(terminal)
    await double.subscribed.get()
    text = b""
    read = asyncio.get_running_loop().run_in_executor
    double.append(job, "progress", {"percent": 37.0, "message": "half [bold]\x1b[2J"})
    async with asyncio.timeout(scaled(10)):
        while b"37%" not in text:
            text += await read(None, os.read, main_end, 4096)
    assert b"half [bold]\xef\xbf\xbd[2J" in text
    assert "━".encode() in text
    play(double, job)
    try:
        while chunk := await read(None, os.read, main_end, 4096):
            text += chunk
    except OSError:
        pass  # how Linux says that the other end of a terminal is gone
    os.close(main_end)
    assert (await finish(process)).status == 0
    assert b"100%" in text


@pytest.mark.parametrize(("end", "status"), [("completed", 0), ("failed", 1), ("cancelled", 1)])
async def test_the_exit_status_says_how_the_job_ended(
    double: Double, shell: Shell, end: str, status: int
) -> None:
    """While it runs and afterwards, with and without --json."""
    job = double.add()
    command = asyncio.create_task(shell.run("watch", job.id))
    await double.subscribed.get()
    play(double, job, end)
    live = await command
    assert live.status == status
    later = await shell.run("watch", job.id, "--json")
    assert later.status == status
    assert (await shell.run("watch", job.id, "--after", job.position)).status == status
    if end == "failed":
        assert "failed: boom: it broke" in live.out


async def test_watch_as_json_is_one_envelope_a_line(double: Double, shell: Shell) -> None:
    """As on the wire."""
    job = double.add()
    double.progress(job, 2, folded=1)
    play(double, job)
    said = await shell.run("watch", job.id, "--json")
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["seq"] for line in lines] == [event["seq"] for event in job.log]
    assert [line.get("prev") for line in lines] == [event.get("prev") for event in job.log]
    assert lines[-1]["data"] == {"result": {"pages": 3}}
    assert list(lines[1])[:5] == ["job_id", "epoch", "seq", "prev", "kind"]
    reset = await shell.run("watch", job.id, "--json", "--after", "e0:1")
    assert json.loads(reset.out.splitlines()[0])["reset"] is True


async def test_status_jobs_cancel_and_retry(double: Double, shell: Shell) -> None:
    """Each for people and for programs."""
    job = double.add()
    assert (await shell.run("status", job.id)).out == f"{job.id} demo.steps queued\n"
    assert json.loads((await shell.run("status", job.id, "--json")).out)["position"] == "e1:1"
    assert (await shell.run("cancel", job.id)).out == f"{job.id} cancelled\n"
    refused = await shell.run("cancel", job.id)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == "error: the double says illegal_state (illegal_state)\n"
    again = await shell.run("retry", job.id, "--json")
    assert json.loads(again.out)["retry_of"] == job.id
    listed = await shell.run("jobs")
    assert all(job_id in listed.out for job_id in double.jobs)
    lines = (await shell.run("jobs", "--json", "--status", "cancelled")).out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [job.id]
    assert (await shell.run("jobs", "--status", "running")).out == "no jobs\n"


async def test_a_cancelled_job_tells_why(double: Double, shell: Shell) -> None:
    """The reason stands behind a colon."""
    job = double.add()
    assert (await shell.run("cancel", job.id, "--reason", "too slow")).status == 0
    assert "cancelled by alice: too slow\n" in (await shell.run("watch", job.id)).out


async def test_times_in_json_are_those_of_the_server(double: Double, shell: Shell) -> None:
    """Milliseconds and a Z."""
    job = double.add()
    play(double, job)
    (line, *_) = (await shell.run("watch", job.id, "--json")).out.splitlines()
    assert re.search(r'"at":"[0-9T:-]+\.\d{3}Z"', line)
    assert re.search(r'"created_at":"[0-9T:-]+\.\d{3}Z"', (await shell.run("jobs", "--json")).out)


async def test_a_watch_from_now_shows_the_job_and_what_is_new(double: Double, shell: Shell) -> None:
    """Not the log before it."""
    job = double.add()
    double.append(job, "log", {"level": "info", "message": "old"})
    command = asyncio.create_task(shell.run("watch", job.id, "--after", "now", "--json"))
    await double.subscribed.get()
    double.append(job, "completed", {"result": 1})
    lines = [json.loads(line) for line in (await command).out.splitlines()]
    assert (lines[0]["reset"], lines[0]["job"]["id"]) == (False, job.id)
    assert [line["kind"] for line in lines[1:]] == ["completed"]


async def test_a_result_is_printed_written_or_downloaded(
    double: Double, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file under its own name, but never outside of this directory or over another file."""
    monkeypatch.chdir(tmp_path)
    job = double.add()
    early = await shell.run("result", job.id)
    assert (early.status, early.out) == (1, "")
    assert f"the job is queued; `tidings watch {job.id}`" in early.err
    made = {"file": {"id": "F1", "name": "../report.pdf"}, "pages": 3}
    double.append(job, "completed", {"result": made})
    assert json.loads((await shell.run("result", job.id)).out) == made
    assert await shell.run("result", job.id, "--download") == Outcome(0, "report.pdf\n", "")
    assert (tmp_path / "report.pdf").read_bytes() == b"F1" * 1000
    again = await shell.run("result", job.id, "--download")
    assert (again.status, again.out) == (2, "")
    assert "report.pdf exists; give another name with --output" in again.err
    assert (await shell.run("result", job.id, "--output", "x.pdf")).out == "x.pdf\n"
    assert (tmp_path / "x.pdf").read_bytes() == b"F1" * 1000

    plain = double.add()
    double.append(plain, "completed", {"result": [1, 2]})
    assert (await shell.run("result", plain.id, "--output", "x.json")).status == 0
    assert json.loads((tmp_path / "x.json").read_text()) == [1, 2]
    assert "names no file" in (await shell.run("result", plain.id, "--download")).err
    failed = double.add()
    double.append(failed, "failed", {"error": {"code": "boom", "type": "Boom", "message": "it broke"}})
    said = await shell.run("result", failed.id)
    assert (said.status, said.err) == (1, f"error: job {failed.id} failed: boom: it broke (job_failed)\n")


async def test_delete_and_types(double: Double, shell: Shell) -> None:
    """For people, and types for programs too."""
    job = double.add()
    assert "(illegal_state)" in (await shell.run("delete", job.id)).err
    play(double, job)
    assert await shell.run("delete", job.id) == Outcome(0, f"{job.id} deleted\n", "")
    assert job.id not in double.jobs
    kind = {
        "type": "demo.steps", "description": "Counts.", "queue": "default", "timeout_s": 60,
        "retry": {"max_attempts": 3, "backoff_s": [1, 2]}, "input_schema": {"type": "object"},
    }  # fmt: skip
    for _ in range(2):
        double.faults.append(web.json_response({"job_types": [kind]}))
    assert "demo.steps  default  60 s     Counts." in (await shell.run("types")).out
    assert json.loads((await shell.run("types", "--json")).out) == kind


async def test_what_the_server_or_the_way_to_it_refuses_is_one_line_and_status_1(
    double: Double, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, whatever happens."""
    stranger = ScriptedJob().id
    said = await shell.run("watch", stranger)
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert "(job_not_found)" in said.err
    said = await shell.run("submit", "demo.invalid")
    assert (said.status, said.err) == (1, "error: input.steps: Field required (invalid_input)\n")
    monkeypatch.setenv("TIDINGS_TOKEN", "other")
    said = await shell.run("jobs")
    assert said.status == 1
    assert "set TIDINGS_TOKEN to a valid token" in said.err
    await double.stop()
    said = await shell.run("watch", stranger)
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert f"can't reach {double.url}" in said.err
    assert "is the server running" in said.err


async def test_a_watch_can_be_interrupted(double: Double, shell: Shell) -> None:
    """Without a traceback; the job goes on."""
    job = double.add()
    process = await shell.start("watch", job.id, "--json")
    await double.subscribed.get()
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said = await finish(process)
    assert said.status == 130
    assert said.err == ""
    assert not job.done


async def test_a_reader_that_goes_away_ends_the_command_quietly(double: Double, shell: Shell) -> None:
    """As `head` does."""
    for _ in range(300):
        double.add()
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m tidings jobs --json --limit 300 | head -n 1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said = await finish(process)
    assert said.out.count("\n") == 1
    assert said.err == ""
