"""A process that stood still says so, and what to do about it where it runs."""

from __future__ import annotations

import logging

import pytest

from tidings_tasks.checking import check_all
from tidings_tasks.settings import Settings
from tidings_tasks.stalls import CloudRun, StallWatch, find_cloud_run


class Clock:
    def __init__(self) -> None:
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def watch(clock: Clock, seen: list[float], cloud_run: CloudRun | None = None) -> StallWatch:
    return StallWatch(6, seen.append, cloud_run=cloud_run, now=clock)


@pytest.mark.parametrize(("slept_s", "stalls"), [(2, []), (0.1, []), (4.9, []), (5.1, [3.1]), (30, [28])])
def test_more_than_half_a_lease_too_late_is_a_stall(slept_s: float, stalls: list[float]) -> None:
    """A thread that is woken early, or a little late, is nothing to speak of."""
    clock, seen = Clock(), []
    watched = watch(clock, seen)
    watched.sleeps(2)
    clock.at_s += slept_s
    watched.woke()
    assert seen == pytest.approx(stalls)


@pytest.mark.parametrize(
    ("cloud_run", "advice"),
    [(CloudRun.SERVICE, "worker pool"), (CloudRun.JOB, "more room"), (None, "more room")],
)
def test_the_log_says_what_to_do(
    cloud_run: CloudRun | None, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On a Cloud Run service the cause is known; elsewhere the machine has too much to do, or was suspended."""
    clock = Clock()
    watched = watch(clock, [], cloud_run)
    watched.sleeps(2)
    clock.at_s += 10
    with caplog.at_level(logging.WARNING):
        watched.woke()
    assert "stood still for 8.0 s" in caplog.text
    assert advice in caplog.text


def test_a_worker_warns_at_its_start_on_a_service_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Before anything has happened; elsewhere there is nothing to warn of."""
    with caplog.at_level(logging.WARNING):
        for cloud_run in (None, CloudRun.JOB, CloudRun.WORKER_POOL):
            watch(Clock(), [], cloud_run).tell_risk()
        assert not caplog.records
        watch(Clock(), [], CloudRun.SERVICE).tell_risk()
    assert "always allocated" in caplog.text


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"K_SERVICE": ""}, None),
        ({"K_SERVICE": "web", "PORT": "8080"}, CloudRun.SERVICE),
        ({"CLOUD_RUN_JOB": "nightly"}, CloudRun.JOB),
        ({"CLOUD_RUN_WORKER_POOL": "workers"}, CloudRun.WORKER_POOL),
    ],
)
def test_the_environment_tells_what_runs_on_cloud_run(
    environ: dict[str, str], found: CloudRun | None
) -> None:
    """By the variables of its container contract."""
    assert find_cloud_run(environ) is found


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({}, None),
        ({"K_SERVICE": "web"}, "warning"),
        ({"CLOUD_RUN_WORKER_POOL": "w"}, "ok"),
        ({"CLOUD_RUN_JOB": "j"}, "ok"),
    ],
)
async def test_check_warns_of_a_service(environ: dict[str, str], status: str | None) -> None:
    """Whether its CPU is always allocated cannot be seen from inside; so it says what it depends on."""
    findings = await check_all(Settings(env="test"), environ)
    told = [finding for finding in findings if finding.subject == "Cloud Run"]
    assert [finding.status for finding in told] == ([] if status is None else [status])
    if status == "warning":
        assert "--no-cpu-throttling" in told[0].fix
