"""The operator's commands about schedules, and the SDK's calls, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tests.support.timing import scaled
from tidings import SyncClient, errors
from tidings.cli import main

ADMIN = make_token("root", scope="admin")
BODY = {
    "name": "nightly",
    "type": "test.rows",
    "input": {"rows": 3},
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
}


@pytest.fixture
async def rest(
    valkey_url: str, key_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rest]:
    """A served application of this test's own with a schedule, which the environment names, with an operator's token."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        monkeypatch.setenv("TIDINGS_URL", served.url)
        monkeypatch.setenv("TIDINGS_TOKEN", ADMIN)
        answer, body = await served.call("POST", "/api/admin/schedules", token=ADMIN, json=BODY)
        assert answer.status == 201, body
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


@pytest.mark.parametrize("command", [["schedules"], ["schedules", "list"]])
async def test_schedules_are_listed(rest: Rest, run: Any, command: list[str]) -> None:
    """For people and for programs."""
    status, out, err = await run(*command)
    assert (status, err) == (0, "")
    head, line = out.splitlines()
    assert head.split() == ["schedule", "type", "when", "state", "last", "run", "runs", "skipped", "missed"]
    assert line.startswith("nightly")
    assert "30 2 * * * Europe/Berlin" in line
    assert "due " in line
    _, out, _ = await run(*command, "--json")
    assert json.loads(out)["name"] == "nightly"


async def test_the_due_times_to_come_are_shown_in_the_schedules_own_time(rest: Rest, run: Any) -> None:
    """One a line."""
    status, out, _ = await run("schedules", "next", "nightly", "--count", "3")
    assert status == 0
    assert len(out.splitlines()) == 3
    for line in out.splitlines():
        assert line.endswith(" Europe/Berlin")
        assert line[11:19] in ("02:30:00", "03:00:00")
    _, out, _ = await run("schedules", "next", "nightly", "--json")
    found = json.loads(out)
    assert (found["time_zone"], len(found["runs"])) == ("Europe/Berlin", 10)
    assert found["runs"][0]["local"].endswith(("+01:00", "+02:00"))
    assert found["runs"][0]["at"].endswith("Z")


async def test_a_schedule_is_paused_resumed_and_run(rest: Rest, run: Any) -> None:
    """Each says what came of it."""
    assert await run("schedules", "pause", "nightly") == (0, "nightly paused\n", "")
    assert "paused" in (await run("schedules"))[1]
    assert (await run("schedules", "resume", "nightly"))[1].startswith("nightly due ")
    status, out, _ = await run("schedules", "run", "nightly")
    job_id, state = out.split()
    assert (status, state) == (0, "queued")
    _, view = await rest.call("GET", f"/api/jobs/{job_id}", token=ADMIN)
    assert view["metadata"]["schedule"] == "nightly"


async def test_a_schedule_that_is_not_there_is_told(rest: Rest, run: Any) -> None:
    """With status 1."""
    for command in ("next", "pause", "resume", "run"):
        status, out, err = await run("schedules", command, "weekly")
        assert (status, out) == (1, "")
        assert "there is no schedule 'weekly'" in err


async def test_without_schedules_that_is_said(rest: Rest, run: Any) -> None:
    """Rather than an empty table."""
    await rest.call("DELETE", "/api/admin/schedules/nightly", token=ADMIN)
    assert await run("schedules") == (0, "no schedules\n", "")


async def test_the_sdk_steers_schedules_too(rest: Rest) -> None:
    """With typed answers and errors."""

    def work() -> None:
        with SyncClient(rest.url, ADMIN) as client:
            [schedule] = client.admin.schedules()
            assert (schedule.name, schedule.origin, schedule.paused) == ("nightly", "api", False)
            assert client.admin.steer_schedule("nightly", "pause").paused
            assert client.admin.run_schedule("nightly").metadata["schedule"] == "nightly"
            assert len(client.admin.schedule_runs("nightly", 4).runs) == 4
            with pytest.raises(errors.ScheduleMissing):
                client.admin.run_schedule("weekly")

    await asyncio.to_thread(work)
