"""The operator's and the bulk commands against a real server: what is printed, what is done, and the exit status."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tests.support.timing import scaled
from tidings import CancelJobs, Client, SyncClient, errors
from tidings.cli import main
from tidings.protocol.admin import DeadFilter
from tidings_tasks.store import Verb
from tidings_tasks.store.worker_commands import RunningJob, WorkerInfo, beat

ADMIN = make_token("root", scope="admin")


@pytest.fixture
async def rest(
    valkey_url: str, key_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rest]:
    """A served application of this test's own, which the environment names, with an operator's token."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        monkeypatch.setenv("TIDINGS_URL", served.url)
        monkeypatch.setenv("TIDINGS_TOKEN", ADMIN)
        yield served


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Give a function that runs a command in a thread and returns its status, output and errors."""

    async def run_command(*arguments: str) -> tuple[int, str, str]:
        async with asyncio.timeout(scaled(20)):
            status = await asyncio.to_thread(main, arguments)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run_command


async def bury(rest: Rest, message: str = "it broke \x1b[2J") -> dict[str, Any]:
    """Let a job of alice's fail for good."""
    made = await rest.submit()
    error = {"code": "exception", "type": "ValueError", "message": message}
    extra = orjson.dumps({"dead": True, "stack": "Traceback\nValueError: it broke"}).decode()
    await rest.write(await rest.claim(), (Verb.FAIL, error), extra=extra)
    return made


async def state_of(rest: Rest, job: dict[str, Any]) -> str:
    """The job's state."""
    return str((await rest.call("GET", f"/api/jobs/{job['id']}", token=ADMIN))[1]["status"])


async def test_queues_are_listed_and_steered(rest: Rest, run: Any) -> None:
    """For people and for programs."""
    await rest.submit()
    status, out, err = await run("queues")
    assert (status, err) == (0, "")
    assert out.splitlines()[0].split() == ["queue", "state", "queued", "parked", "running", "limits"]
    (line,) = [line for line in out.splitlines() if line.startswith("reports")]
    assert line.split()[:5] == ["reports", "active", "1", "0", "0"]
    assert await run("queues", "pause", "reports") == (0, "reports paused, 1 queued, 0 running\n", "")
    _, out, _ = await run("queues", "--json")
    assert {json.loads(line)["name"]: json.loads(line)["state"] for line in out.splitlines()}[
        "reports"
    ] == "paused"
    assert (await run("queues", "drain", "reports"))[1].startswith("reports draining")
    status, out, _ = await run("queues", "resume", "reports", "--json")
    assert json.loads(out)["state"] == "active"
    status, out, err = await run("queues", "pause", "report")
    assert (status, out) == (1, "")
    assert "did you mean reports" in err


async def test_a_purge_counts_and_needs_a_yes(rest: Rest, run: Any) -> None:
    """Nothing is cancelled without it."""
    job = await rest.submit()
    assert await run("queues", "purge", "reports") == (0, "1 job to cancel in reports; --yes does it\n", "")
    assert await state_of(rest, job) == "queued"
    assert await run("queues", "purge", "reports", "--yes") == (0, "1 job cancelled in reports\n", "")
    assert await state_of(rest, job) == "cancelled"
    _, out, _ = await run("queues", "purge", "reports", "--yes", "--json")
    assert json.loads(out) == {"matched": 0, "purged": 0, "next_cursor": None}


async def test_dead_letters_are_shown(rest: Rest, run: Any) -> None:
    """Listed, grouped, whole; what is in them drives no terminal."""
    assert (await run("dead"))[:2] == (0, "no dead letters\n")
    job = await bury(rest)
    for command in (
        ("dead",),
        ("dead", "list", "--queue", "reports"),
        ("dead", "list", "--type", "test.rows"),
    ):
        status, out, _ = await run(*command)
        assert (status, job["id"] in out, "\x1b" in out) == (0, True, False)
        assert "exception: ValueError: it broke" in out
    assert (await run("dead", "list", "--queue", "critical"))[1] == "no dead letters\n"
    assert json.loads((await run("dead", "--json"))[1])["stack"].startswith("Traceback")
    (group,) = (json.loads(line) for line in (await run("dead", "groups", "--json"))[1].splitlines())
    assert group["count"] == 1
    assert group["fingerprint"] in (await run("dead", "groups"))[1]
    status, out, _ = await run("dead", "show", job["id"])
    assert status == 0
    assert "Traceback\nValueError: it broke" in out
    assert "failed" in out
    assert (await run("dead", "show", (await rest.submit())["id"]))[0] == 1


async def test_dead_letters_are_retried_one_or_many(rest: Rest, run: Any) -> None:
    """Many only after a count."""
    one = await bury(rest)
    status, out, _ = await run("dead", "retry", one["id"], "--json")
    assert json.loads(out)["retry_of"] == one["id"]
    await rest.claim()
    await bury(rest)
    await bury(rest)
    assert await run("dead", "retry", "--queue", "reports") == (
        0, "2 dead letters to submit again; --yes does it\n", "",
    )  # fmt: skip
    assert await run("dead", "retry", "--queue", "reports", "--yes") == (
        0, "2 dead letters submitted again\n", "",
    )  # fmt: skip
    assert await run("dead", "retry", "--all", "--yes") == (0, "0 dead letters to submit again\n", "")
    await rest.claim()
    await rest.claim()
    await bury(rest)
    await run("queues", "drain", "reports")
    status, out, _ = await run("dead", "retry", "--all", "--yes")
    assert (status, out) == (1, "0 dead letters submitted again, 1 refused: their queue takes none now\n")


async def test_dead_letters_are_purged_after_a_count(rest: Rest, run: Any) -> None:
    """And are gone."""
    job = await bury(rest)
    assert (await run("dead", "purge", "--all"))[:2] == (0, "1 dead letter to delete; --yes does it\n")
    assert await state_of(rest, job) == "failed"
    assert (await run("dead", "purge", "--all", "--yes"))[:2] == (0, "1 dead letter deleted\n")
    assert (await rest.call("GET", f"/api/jobs/{job['id']}", token=ADMIN))[0].status == 404


async def test_top_shows_workers_and_queues(rest: Rest, run: Any) -> None:
    """Once, when the output is no terminal, and as one object."""
    now_ms = int(time.time() * 1000)
    info = WorkerInfo(
        id="w1", host="web-1", pid=4711, profile="primary", queues=("reports",), concurrency=10,
        running=(RunningJob("01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0", "test.rows", now_ms),), running_count=5,
        rss_bytes=50 * 2**20, version="9.9", runtime="tidings", started_ms=now_ms, done=7, failed=1, is_stopping=True,
    )  # fmt: skip
    await rest.store.run(beat("w1", info.to_json(), 60_000, {}, run="r", number=1))
    await rest.submit()
    for command in (("top", "--once"), ("top",)):
        status, out, err = await run(*command)
        assert (status, err) == (0, "")
        for part in ("1 worker, 10 slots", "1 queued", "w1 (stopping)", "web-1", "4711", "5/10", "50 MiB", "9.9",
                     "test.rows", "4 more", "reports  "):  # fmt: skip
            assert part in out, out
    status, out, _ = await run("top", "--json")
    told = json.loads(out)
    assert (status, told["workers"][0]["id"]) == (0, "w1")
    assert {"reports", "critical"} <= {queue["name"] for queue in told["queues"]}
    assert told["dependencies"] == []


async def test_top_redraws_on_a_terminal_until_it_is_interrupted(rest: Rest) -> None:
    """What changes is seen; Ctrl-C is its proper end."""
    main_end, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "tidings", "top", "--interval", "0.2",
        stdin=asyncio.subprocess.DEVNULL, stdout=terminal, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(terminal)
    text = b""
    read = asyncio.get_running_loop().run_in_executor
    async with asyncio.timeout(scaled(20)):
        while b"0 queued" not in text:
            text += await read(None, os.read, main_end, 4096)
        await rest.submit()
        while b"1 queued" not in text:
            text += await read(None, os.read, main_end, 4096)
        process.send_signal(signal.SIGINT)
        while process.returncode is None:
            try:
                await read(None, os.read, main_end, 4096)
            except OSError:
                break  # how Linux says that the other end of a terminal is gone
        _, err = await process.communicate()
    os.close(main_end)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize(
    "command",
    [("queues",), ("queues", "pause", "reports"), ("queues", "purge", "reports", "--yes"), ("dead",), ("dead", "groups"),
     ("dead", "purge", "--all", "--yes"), ("dead", "retry", "--all", "--yes"), ("top", "--once"), ("top", "--json")],
)  # fmt: skip
async def test_without_the_scope_all_of_it_is_refused(
    rest: Rest, run: Any, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Status 1 and one line that names the scope."""
    monkeypatch.setenv("TIDINGS_TOKEN", make_token())
    status, out, err = await run(*command)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "scope" in err
    assert "(forbidden)" in err


async def test_a_file_of_inputs_is_a_batch(
    rest: Rest, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One job a line, all or none."""
    monkeypatch.setenv("TIDINGS_TOKEN", make_token())
    file = tmp_path / "in.jsonl"
    file.write_text('{"rows": 1}\n\n{"rows": 2}\n')
    status, out, _ = await run("submit", "test.rows", "--batch", f"@{file}", "--tag", "t", "--json")
    assert status == 0
    assert [json.loads(line)["input"] for line in out.splitlines()] == [{"rows": 1}, {"rows": 2}]
    file.write_text('{"rows": 1}\n{"rows": 0}\n')
    status, out, err = await run("submit", "test.rows", "--batch", f"@{file}")
    assert (status, out) == (1, "")
    assert "jobs.1.input.rows" in err
    assert (await rest.call("GET", "/api/jobs/stats"))[1]["total"] == 2


async def test_ones_own_jobs_are_cancelled_by_filter(
    rest: Rest, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted first."""
    monkeypatch.setenv("TIDINGS_TOKEN", make_token())
    job, other = await rest.submit(tags=["a"]), await rest.submit()
    assert await run("cancel", "--tag", "a") == (0, "1 job to cancel; --yes does it\n", "")
    assert await state_of(rest, job) == "queued"
    assert await run("cancel", "--tag", "a", "--yes") == (0, "1 job cancelled, 0 cancelling\n", "")
    assert (await state_of(rest, job), await state_of(rest, other)) == ("cancelled", "queued")
    _, out, _ = await run("cancel", "--all", "--yes", "--json")
    assert json.loads(out) == {"matched": 1, "cancelled": 1, "cancelling": 0, "next_cursor": None}


async def test_options_and_changes_reach_the_server(
    rest: Rest, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expiry, keys, priority and due time."""
    monkeypatch.setenv("TIDINGS_TOKEN", make_token())
    command = [
        "submit",
        "test.rows",
        "-i",
        '{"rows": 1}',
        "--concurrency-key",
        "k",
        "--expires-in",
        "600",
        "--json",
    ]
    _, out, _ = await run(*command, "--dedup-key", "d", "--delay", "100", "--debounce")
    job = json.loads(out)
    assert (job["concurrency_key"], job["status"]) == ("k", "scheduled")
    assert job["expires_at"] is not None
    _, out, _ = await run("submit", "test.rows", "-i", '{"rows": 2}', "--dedup-key", "d")
    assert out == f"{job['id']} scheduled\n"
    assert await run("change", job["id"], "--priority", "1", "--delay", "0") == (
        0,
        f"{job['id']} queued\n",
        "",
    )
    await rest.call("POST", "/api/admin/queues/reports/pause", token=ADMIN)
    assert (await run("status", job["id"]))[1].endswith("(waits: the queue is paused)\n")


async def test_the_sdk_has_the_same_calls(rest: Rest) -> None:
    """Asynchronous and synchronous."""
    async with Client(rest.url, make_token()) as client:
        made = await client.submit_many([{"type": "test.rows", "input": {"rows": n + 1}} for n in range(3)])
        assert [job.input["rows"] for job in made] == [1, 2, 3]
        with pytest.raises(errors.InvalidInput, match=r"jobs\.1\.priority"):
            await client.submit_many([{"type": "x"}, {"type": "x", "priority": 77}])
        with pytest.raises(errors.InvalidInput, match=r"dedup\.key"):
            await client.submit("test.rows", {"rows": 1}, debounce=True)
        assert (await client.change(made[0].id, priority=1)).priority == 1
        assert (await client.cancel_jobs(CancelJobs(all=True))).cancelled == 3
        with pytest.raises(errors.Forbidden):
            await client.admin.queues()
    job = await bury(rest)

    def use() -> None:
        with SyncClient(rest.url, ADMIN) as client:
            assert [letter.id for letter in client.admin.dead().jobs] == [job["id"]]
            assert client.admin.dead_groups()[0].count == 1
            assert client.admin.dead_letter(job["id"]).job.stack
            assert client.admin.purge_dead_letters(DeadFilter(all=True)).matched == 1
            assert client.admin.retry_dead_letters(DeadFilter(all=True)).matched == 1
            assert client.admin.retry_dead(job["id"]).retry_of == job["id"]
            assert client.admin.steer_queue("reports", "pause").state == "paused"
            assert client.admin.purge_queue("reports", dry_run=False).purged == 1
            assert client.admin.workers() == client.admin.dependencies() == []
            assert client.cancel_jobs(CancelJobs(all=True)).matched == 0
            (again,) = client.submit_many([{"type": "test.rows", "input": {"rows": 1}}])
            assert client.change(again.id, delay_s=60).status == "scheduled"

    await asyncio.to_thread(use)
