"""Tests of the job, without a store or a worker. In this directory: ``python -m pytest``."""

from myapp.jobs import rows

from tidings_tasks.testing import InMemoryJobs, run_job


def test_each_row_is_put_out() -> None:
    """As its watchers see it."""
    run = run_job(rows, {"rows": 3}, owner="alice")
    assert run.state == "completed", run
    assert run.result == {"rows": 3}
    assert run.text() == "row 1\nrow 2\nrow 3\n"
    assert run.progress is not None
    assert (run.progress["percent"], run.progress["message"]) == (100, "rendering")


def test_it_is_cancelled_between_two_rows() -> None:
    """What was put out by then is kept."""
    run = run_job(rows, {"rows": 3}, cancel_at=lambda event: event["data"].get("chunk") == "row 2\n")
    assert run.state == "cancelled"
    assert run.outputs == ["row 1\n", "row 2\n"]


def test_what_the_application_submits_waits_for_the_test(tidings_jobs: InMemoryJobs) -> None:
    """The fixture catches it; the delay takes no time."""
    rows.submit({"rows": 1}, owner="alice", delay_s=3600)
    (run,) = tidings_jobs.submitted
    assert run.state == "scheduled"
    tidings_jobs.drain()
    assert run.result == {"rows": 1}
