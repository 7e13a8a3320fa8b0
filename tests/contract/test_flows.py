"""Flows: the store makes a job of each step when its time has come, once, and ends the flow behind its last step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

import tidings_tasks.demo  # noqa: F401 - registers demo.steps
from tidings.protocol import JobState
from tidings_tasks.flows.planning import FLOW
from tidings_tasks.store import Claim, Outcome, QueueLimits, QueueState, Submission, Verb, commands
from tidings_tasks.store.flow_plan import step_id
from tidings_tasks.submission import prepare

from .bench import ALICE, LEASE_MS, Bench

DIAMOND: dict[str, Sequence[str]] = {
    "fetch": (),
    "left": ("fetch",),
    "right": ("fetch",),
    "sum": ("left", "right"),
}
BOOM = {"code": "exception", "type": "RuntimeError", "message": "boom"}


def flow_of(
    bench: Bench, steps: Mapping[str, Sequence[str]], *, run: dict[str, Any] | None = None, **input: Any
) -> Submission:
    """Make a flow of demo steps, given by what each waits for."""
    body = [
        {"name": n, "type": "demo.steps", "input": {"steps": 1}, "after": list(a)} for n, a in steps.items()
    ]
    made = prepare(FLOW, ALICE, bench.keyspace, input={"steps": body, **input}, **(run or {}))[1]
    return replace(made, id=bench.new_id())


def add_flow(bench: Bench, steps: Mapping[str, Sequence[str]], **input: Any) -> str:
    """Store a flow of demo steps."""
    submission = flow_of(bench, steps, **input)
    assert bench.enqueue(submission)[0].outcome is Outcome.CREATED
    return submission.id


def claims(bench: Bench, many: int = 100, queue: str = "default") -> dict[str | None, Claim]:
    """Claim what there is, by the name of the step."""
    return {claim.spec.step: claim for claim in bench.step(wants=[(queue, many)]).claims}


def steps_of(bench: Bench, flow_id: str) -> dict[str, Any]:
    """Read what an ended flow says of its steps."""
    result = bench.record(flow_id).result
    assert result is not None
    steps: dict[str, Any] = orjson.loads(result)["steps"]
    return steps


def statuses(bench: Bench, flow_id: str) -> dict[str, str]:
    """Read how the steps of an ended flow ended."""
    return {name: step["status"] for name, step in steps_of(bench, flow_id).items()}


def test_a_flow_runs_at_once_without_a_worker(bench: Bench) -> None:
    """It is running as soon as it is stored, and its first steps wait in their queue."""
    flow = add_flow(bench, DIAMOND)
    assert bench.kinds(flow) == ["queued", "started", "progress"]
    assert bench.record(flow).worker == "flow"
    [first] = bench.step(wants=[("default", 9), ("flows", 9)]).claims
    assert first.id == step_id(flow, 1)
    record = bench.record(first.id)
    assert (record.parent, record.spec.step, record.spec.owner) == (flow, "fetch", "alice")


def test_steps_begin_when_all_they_wait_for_have_completed(bench: Bench) -> None:
    """A chain, a fan-out, a fan-in; the flow completes behind its last step, with what became of each."""
    flow = add_flow(bench, DIAMOND)
    first = claims(bench)
    assert set(first) == {"fetch"}
    bench.complete(first["fetch"], {"n": 1})
    sides = claims(bench)
    assert set(sides) == {"left", "right"}
    bench.complete(sides["right"], [2])
    assert not claims(bench)
    bench.complete(sides["left"])
    last = claims(bench)["sum"]
    bench.complete(last, "all")
    assert bench.state(flow) is JobState.COMPLETED
    assert steps_of(bench, flow) == {
        "fetch": {"job_id": step_id(flow, 1), "status": "completed", "result": {"n": 1}},
        "left": {"job_id": step_id(flow, 2), "status": "completed", "result": None},
        "right": {"job_id": step_id(flow, 3), "status": "completed", "result": [2]},
        "sum": {"job_id": step_id(flow, 4), "status": "completed", "result": "all"},
    }
    assert bench.last_event(flow)["data"]["result"]["steps"]["sum"]["result"] == "all"
    assert bench.kinds(flow) == ["queued", "started", "progress", "completed"]


def test_a_repeated_submission_makes_no_other_steps(bench: Bench) -> None:
    """The steps' ids follow from the flow's; and a key holds for the whole flow."""
    submission = flow_of(bench, DIAMOND, run={"idempotency_key": "k", "fingerprint": "f"})
    bench.enqueue(submission)
    again = flow_of(bench, DIAMOND, run={"idempotency_key": "k", "fingerprint": "f"})
    assert [e.outcome for e in bench.enqueue(again)] == [Outcome.REPLAYED]
    assert bench.counts() == {JobState.RUNNING: 1, JobState.QUEUED: 1}


def test_progress_is_that_of_the_whole(bench: Bench) -> None:
    """The mean of all steps, at most twice a second, but told whenever a step ends."""
    flow = add_flow(bench, {"a": (), "b": (), "c": ("a",), "d": ("a",)})
    found = claims(bench)
    assert bench.last_event(flow)["data"] == {
        "percent": 0, "message": "0 of 4 steps done", "current": 0, "total": 4, "step": None, "eta_s": None, "meta": None,
    }  # fmt: skip
    seq = bench.record(flow).head
    bench.progress(found["a"], 40)
    assert bench.record(flow).head == seq, "told too soon after the one before"
    bench.advance(500)
    bench.progress(found["b"], 20)
    assert bench.last_event(flow)["data"]["percent"] == 15
    assert bench.last_event(flow)["data"]["step"] == "b"
    bench.progress(found["a"], 90)
    bench.complete(found["a"])
    data = bench.last_event(flow)["data"]
    assert (data["percent"], data["current"], data["message"], data["step"]) == (
        30,
        1,
        "1 of 4 steps done",
        "a",
    )
    bench.advance(1_000)
    bench.write(found["b"], Verb.PROGRESS, {"percent": None, "meta": {"percent": 90}})
    assert bench.last_event(flow)["data"]["percent"] == 30


def test_a_failed_step_stops_the_flow(bench: Bench) -> None:
    """What waits is cancelled, what runs is asked to stop, nothing more begins, and the flow fails behind them all."""
    flow = add_flow(bench, {"a": (), "b": (), "c": (), "d": ("a",), "e": ("d",)})
    found = claims(bench, 2)
    bench.write(found["a"], Verb.FAIL, BOOM)
    waiting = step_id(flow, 3)
    assert bench.last_event(waiting)["data"] == {"by": "flow", "reason": "step a did not succeed"}
    assert bench.kinds(found["b"].id)[-1] == "cancelling"
    assert bench.state(flow) is JobState.RUNNING
    bench.write(found["b"], Verb.CANCEL)
    record = bench.record(flow)
    assert record.state is JobState.FAILED
    assert orjson.loads(record.error or b"") == {
        "code": "child_failed",
        "type": "ChildFailed",
        "message": "step a failed: boom",
    }
    assert statuses(bench, flow) == {
        "a": "failed",
        "b": "cancelled",
        "c": "cancelled",
        "d": "skipped",
        "e": "skipped",
    }
    assert steps_of(bench, flow)["a"]["error"] == BOOM
    assert steps_of(bench, flow)["d"]["job_id"] is None
    assert bench.last_event(flow)["data"]["dead"] is False


def test_a_step_that_is_tried_again_holds_the_flow(bench: Bench) -> None:
    """A step has the tries of its type; only their end counts."""
    flow = add_flow(bench, {"a": (), "b": ("a",)})
    bench.write(claims(bench)["a"], Verb.RETRY, BOOM, {"delay_ms": 5})
    assert bench.state(flow) is JobState.RUNNING
    bench.advance(5)
    bench.complete(claims(bench)["a"])
    bench.complete(claims(bench)["b"])
    assert bench.state(flow) is JobState.COMPLETED


def test_a_flow_that_continues_leaves_out_what_waits_for_a_failed_step(bench: Bench) -> None:
    """Other branches go on to their end; the flow then fails and names all that failed."""
    steps = {"a": (), "b": (), "c": ("a",), "d": ("c", "b"), "e": ("b",), "f": ()}
    flow = add_flow(bench, steps, on_failure="continue")
    found = claims(bench)
    bench.write(found["a"], Verb.FAIL, BOOM)
    bench.complete(found["b"])
    bench.complete(claims(bench)["e"])
    assert bench.state(flow) is JobState.RUNNING
    bench.write(found["f"], Verb.FAIL, BOOM)
    record = bench.record(flow)
    assert record.state is JobState.FAILED
    assert orjson.loads(record.error or b"")["message"] == "step a failed: boom; failed too: f"
    assert statuses(bench, flow) == {
        "a": "failed", "b": "completed", "c": "skipped", "d": "skipped", "e": "completed", "f": "failed",
    }  # fmt: skip


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_cancelling_a_flow_cancels_its_steps(bench: Bench, on_failure: str) -> None:
    """Waiting ones at once; the flow is cancelled when those that run have ended."""
    flow = add_flow(bench, {"a": (), "b": (), "c": ("a",)}, on_failure=on_failure)
    found = claims(bench, 1)
    assert bench.cancel(flow, reason="no need") == ("cancelling", JobState.RUNNING)
    assert bench.last_event(step_id(flow, 2))["data"] == {"by": "alice", "reason": "no need"}
    bench.write(found["a"], Verb.CANCEL)
    assert bench.last_event(flow)["data"] == {"by": "alice", "reason": "no need"}
    assert statuses(bench, flow) == {"a": "cancelled", "b": "cancelled", "c": "skipped"}


def test_a_flow_of_which_nothing_runs_is_cancelled_at_once(bench: Bench) -> None:
    """There is nobody to wait for."""
    flow = add_flow(bench, DIAMOND)
    assert bench.cancel(flow) == ("cancelled", JobState.CANCELLED)
    assert bench.kinds(flow)[-3:] == ["cancelling", "progress", "cancelled"]


def test_a_flow_whose_last_step_completes_against_the_cancellation_is_complete(bench: Bench) -> None:
    """As a job that does not heed one."""
    flow = add_flow(bench, {"a": ()})
    found = claims(bench)
    bench.cancel(flow)
    bench.complete(found["a"])
    assert bench.state(flow) is JobState.COMPLETED


def test_a_cancelled_step_is_a_failed_one(bench: Bench) -> None:
    """Whoever cancels it."""
    flow = add_flow(bench, {"a": (), "b": ("a",)})
    bench.cancel(step_id(flow, 1))
    assert orjson.loads(bench.record(flow).error or b"")["message"] == "step a was cancelled"


def test_a_lost_worker_is_no_end(bench: Bench) -> None:
    """Its step runs again; the flow knows nothing of it, until the step has no try left."""
    flow = add_flow(bench, {"a": (), "b": ("a",)})
    claims(bench)
    bench.lose_worker()
    bench.complete(claims(bench)["a"])
    for _ in range(3):
        claims(bench)
        bench.lose_worker()
    assert orjson.loads(bench.record(flow).error or b"")["code"] == "child_failed"


def test_a_flow_waits_for_its_time(bench: Bench) -> None:
    """It is scheduled like a job, and the upkeep of any worker begins it."""
    submission = flow_of(bench, DIAMOND, run={"delay_s": 60})
    bench.enqueue(submission)
    assert bench.state(submission.id) is JobState.SCHEDULED
    bench.advance(60_000)
    assert bench.step().claims == []
    assert bench.kinds(submission.id) == ["scheduled", "queued", "started", "progress"]
    assert set(claims(bench)) == {"fetch"}


def test_a_flow_that_waits_is_cancelled_or_begun_by_a_change(bench: Bench) -> None:
    """Nothing of it is left, or it begins now."""
    gone, changed = (flow_of(bench, DIAMOND, run={"delay_s": 60}) for _ in range(2))
    bench.enqueue(gone, changed)
    assert bench.cancel(gone.id) == ("cancelled", JobState.CANCELLED)
    bench.run(commands.change(changed.id, due_ms=bench.now_ms))
    assert set(claims(bench)) == {"fetch"}


def test_a_flow_ends_when_its_time_is_over(bench: Bench) -> None:
    """Its steps are stopped, and it ends with the last of them."""
    flow = add_flow(bench, {"a": (), "b": (), "c": ("a",)}, timeout_s=5)
    found = claims(bench, 1)
    bench.advance(5_000)
    bench.step()
    assert bench.state(flow) is JobState.RUNNING
    assert bench.kinds(found["a"].id)[-1] == "cancelling"
    bench.advance(LEASE_MS)
    bench.step()
    record = bench.record(flow)
    assert orjson.loads(record.error or b"") == {
        "code": "timeout", "type": "JobTimedOut", "message": "the flow ran longer than 5 s",
    }  # fmt: skip
    assert statuses(bench, flow) == {"a": "cancelled", "b": "cancelled", "c": "skipped"}


def test_a_debounced_flow_is_replaced_whole(bench: Bench) -> None:
    """Its steps are those of the last one; nothing but a flow takes its place, and it takes that of nothing else."""
    run = {"delay_s": 60, "dedup_key": "k", "debounce": True}
    first, second = flow_of(bench, DIAMOND, run=run), flow_of(bench, {"only": ()}, run=run)
    bench.enqueue(first)
    [entry] = bench.enqueue(second)
    assert (entry.outcome, entry.id) == (Outcome.DUPLICATE, first.id)
    bench.advance(1)
    bench.enqueue(bench.submission(due="+90000", dedup_key="k", debounce=True))
    bench.advance(59_999)
    bench.step()
    found = claims(bench)
    assert set(found) == {"only"}
    assert bench.record(first.id).step_ids == [found["only"].id]
    bench.complete(found["only"])
    assert bench.state(first.id) is JobState.COMPLETED
    job_id = bench.add(due="+60000", dedup_key="j", debounce=True)
    bench.enqueue(flow_of(bench, DIAMOND, run=run | {"dedup_key": "j"}))
    assert bench.record(job_id).step_ids == []


def test_a_step_may_wait_longer(bench: Bench) -> None:
    """Its delay counts from when its turn has come."""
    body = {
        "chain": [
            {"type": "demo.steps", "input": {"steps": 1}},
            {"type": "demo.steps", "input": {"steps": 1}, "delay_s": 9},
        ]
    }
    submission = prepare(FLOW, ALICE, bench.keyspace, input=body)[1]
    bench.enqueue(submission)
    bench.complete(claims(bench)["step-1"])
    assert bench.state(step_id(submission.id, 2)) is JobState.SCHEDULED
    bench.advance(9_000)
    bench.complete(claims(bench)["step-2"])
    assert bench.state(submission.id) is JobState.COMPLETED


def test_inputs_take_results(bench: Bench) -> None:
    """The claim carries the input with the results in their places, also when it is repeated and when the job is retried."""
    body = {"steps": [
        {"name": "a", "type": "demo.steps", "input": {"steps": 1}},
        {"name": "b", "type": "demo.steps", "input": {"steps": {"$result": "a.found.1"}}},
    ]}  # fmt: skip
    submission = prepare(FLOW, ALICE, bench.keyspace, input=body)[1]
    bench.enqueue(submission)
    bench.complete(claims(bench)["a"], {"found": [7, 8]})
    claim = claims(bench)["b"]
    assert (claim.spec.input, claim.problem) == ({"steps": 8}, None)
    assert bench.record(claim.id).spec.input == {"steps": {"$result": "a.found.1"}}
    bench.write(claim, Verb.FAIL, BOOM)
    again = Submission(bench.new_id(), bench.record(claim.id).spec, "default", 3)
    bench.enqueue(again)
    assert bench.claim().spec.input == {"steps": 8}


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"other": 1}, "input.steps: the result of step 'a' has no n"),
        ({"n": "x" * 5_000_000}, "5000008 bytes"),
    ],
)
def test_a_result_that_does_not_do_is_told(bench: Bench, result: Any, problem: str) -> None:
    """What is not there, or is more than a claim carries."""
    body = {"steps": [
        {"name": "a", "type": "demo.steps", "input": {"steps": 1}},
        {"name": "b", "type": "demo.steps", "input": {"steps": {"$result": "a.n"}}},
    ]}  # fmt: skip
    bench.enqueue(prepare(FLOW, ALICE, bench.keyspace, input=body)[1])
    bench.checks = False
    bench.complete(claims(bench)["a"], result)
    assert problem in (claims(bench)["b"].problem or "")


def test_flows_lie_within_flows(bench: Bench) -> None:
    """A flow is a step like any other: it has its place, its progress counts, and its end is the step's."""
    inner = {"chain": [{"type": "demo.steps", "input": {"steps": 1}}] * 2}
    body = {"steps": [
        {"name": "in", "type": "flow", "input": inner},
        {"name": "out", "type": "demo.steps", "input": {"steps": 1}, "after": ["in"]},
    ]}  # fmt: skip
    submission = prepare(FLOW, ALICE, bench.keyspace, input=body)[1]
    bench.enqueue(submission)
    within = step_id(submission.id, 1)
    assert bench.record(within).parent == submission.id
    bench.advance(500)
    bench.complete(claims(bench)["step-1"])
    assert bench.last_event(within)["data"]["percent"] == 50
    assert bench.last_event(submission.id)["data"]["percent"] == 25
    bench.complete(claims(bench)["step-2"])
    assert bench.state(within) is JobState.COMPLETED
    bench.complete(claims(bench)["out"])
    assert bench.state(submission.id) is JobState.COMPLETED


def test_the_end_of_a_flow_within_reaches_both_ways(bench: Bench) -> None:
    """Its failure stops the outer one; the outer one's cancellation stops it."""
    inner = {"chain": [{"type": "demo.steps", "input": {"steps": 1}}] * 2}
    body = {
        "group": [
            {"name": "in", "type": "flow", "input": inner},
            {"name": "side", "type": "demo.steps", "input": {"steps": 1}},
        ]
    }
    failing, cancelled = (prepare(FLOW, ALICE, bench.keyspace, input=body)[1] for _ in range(2))
    bench.enqueue(failing)
    bench.write(claims(bench, 1)["step-1"], Verb.FAIL, BOOM)
    assert statuses(bench, failing.id) == {"in": "failed", "side": "cancelled"}
    assert (
        orjson.loads(bench.record(failing.id).error or b"")["message"]
        == "step in failed: step step-1 failed: boom"
    )
    bench.enqueue(cancelled)
    assert bench.cancel(cancelled.id)[0] == "cancelled"
    assert bench.state(step_id(cancelled.id, 1)) is JobState.CANCELLED


def test_flows_of_one_concurrency_key_follow_each_other(bench: Bench) -> None:
    """The next one begins with the end of the one before; one that waits is cancelled like any job."""
    first, second, third, last = (flow_of(bench, {"a": ()}, run={"concurrency_key": "k"}) for _ in range(4))
    bench.enqueue(first, second, third)
    bench.enqueue(last)
    assert bench.record(second.id).waiting_for == "concurrency"
    found = claims(bench)
    assert len(found) == 1
    bench.cancel(third.id)
    bench.complete(found["a"])
    assert [bench.state(each.id) for each in (first, second, third, last)] == [
        JobState.COMPLETED, JobState.RUNNING, JobState.CANCELLED, JobState.QUEUED,
    ]  # fmt: skip
    bench.cancel(second.id)
    assert bench.kinds(last.id) == ["queued", "started", "progress"]
    bench.complete(claims(bench)["a"])
    assert bench.state(last.id) is JobState.COMPLETED


def test_a_purged_queue_takes_its_flows_along(bench: Bench) -> None:
    """A waiting step that an operator removes is a step that did not succeed."""
    flow = add_flow(bench, {"a": (), "b": (), "c": ("a",)})
    bench.run(commands.purge_queue(0, "default", by=b'"root"', dry_run=False))
    assert bench.state(flow) is JobState.FAILED


def test_a_flow_needs_room_for_the_steps_that_it_begins_with(bench: Bench) -> None:
    """As its jobs would, one by one; what comes later belongs to what was taken in."""
    bench.run(commands.configure(0, queues={"default": QueueLimits(max_length=2)}))
    assert [e.outcome for e in bench.enqueue(flow_of(bench, {"a": (), "b": (), "c": ()}))] == [Outcome.FULL]
    flow = add_flow(bench, {"a": (), "b": ("a",), "c": ("a",), "d": ("a",)})
    bench.run(commands.set_queue_state(0, "default", QueueState.DRAINING))
    assert [e.outcome for e in bench.enqueue(flow_of(bench, {"a": ()}))] == [Outcome.DRAINING]
    bench.complete(claims(bench)["a"])
    assert len(claims(bench)) == 3
    assert bench.state(flow) is JobState.RUNNING


def test_results_are_kept_until_the_flow_has_ended(bench: Bench) -> None:
    """A queue may keep results for a shorter time than a flow takes."""
    submission = flow_of(bench, {"a": (), "b": ("a",)})
    bench.enqueue(submission)
    found = claims(bench)
    bench.complete(found["a"])
    bench.run(commands.renew(0, [(submission.id, 1)], lease_ms=30 * 86_400_000))
    bench.advance(8 * 86_400_000)
    bench.step()
    assert bench.state(found["a"].id) is JobState.COMPLETED
    bench.complete(claims(bench)["b"])
    bench.advance(31 * 86_400_000)
    bench.step()
    assert not [key for key in bench.snapshot() if submission.id[:20] in key or ":j:" in key]


def test_a_flow_is_deleted_when_it_has_ended(bench: Bench) -> None:
    """Its steps stay, as jobs of their own."""
    flow = add_flow(bench, {"a": ()})
    assert bench.run(commands.delete(flow)) == "open"
    found = claims(bench)["a"]
    bench.complete(found)
    assert bench.run(commands.delete(flow)) == "deleted"
    assert bench.record(found.id).parent == flow


def test_the_largest_flow_fans_out_and_in(bench: Bench) -> None:
    """A thousand steps; what is too much for the result is referred to."""
    bench.checks = False
    parts = [f"p{i}" for i in range(998)]
    flow = add_flow(bench, {"first": (), **dict.fromkeys(parts, ("first",)), "last": parts})
    bench.complete(claims(bench)["first"], "x" * 5_000)
    found = claims(bench, 1_000)
    assert len(found) == 998
    bench.step([bench.make_write(claim, Verb.COMPLETE, "y" * 500) for claim in found.values()])
    bench.complete(claims(bench)["last"])
    steps = steps_of(bench, flow)
    assert steps["first"]["result_ref"] == f"/api/jobs/{step_id(flow, 1)}/result"
    assert steps["p0"]["result"] == "y" * 500
    assert "result_ref" in steps["p997"]
    assert bench.last_event(flow)["data"]["result_ref"] == f"/api/jobs/{flow}/result"
