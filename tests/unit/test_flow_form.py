"""The form of a flow: what is refused before it exists, and where the errors say that it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, field_validator

from tidings.protocol import is_job_id
from tidings.protocol.errors import InvalidInput
from tidings.protocol.ids import time_ms_of
from tidings_tasks import JobContext, job
from tidings_tasks.flows import Flow, Step, chain, group
from tidings_tasks.flows.planning import FLOW
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace, Submission, Tenant
from tidings_tasks.store.flow_plan import FlowPlan, step_id
from tidings_tasks.store.references import fill, find_references
from tidings_tasks.submission import prepare

TYPES = Registry()


class Rows(BaseModel):
    """An input with a number and a list."""

    rows: int = Field(default=1, ge=1)
    parts: list[str] = Field(default_factory=list)


@job("t.rows", queue="reports", registry=TYPES)
async def rows(ctx: JobContext, input: Rows) -> dict[str, int]:
    """Count."""
    return {"rows": input.rows}


class Odd(BaseModel):
    """An input whose validator cannot bear what it does not expect."""

    text: Any

    @field_validator("text")
    @classmethod
    def _is_short(cls, value: Any) -> Any:
        return value[:10]


@job("t.odd", registry=TYPES)
async def odd(ctx: JobContext, input: Odd) -> None:
    """Do nothing."""


def submission_of(input: dict[str, Any], **options: Any) -> Submission:
    """Prepare a flow."""
    return prepare(FLOW, Tenant("alice"), Keyspace(), input=input, registry=TYPES, **options)[1]


def plan_of(input: dict[str, Any], **options: Any) -> FlowPlan:
    """Plan a flow."""
    plan = submission_of(input, **options).flow
    assert plan is not None
    return plan


def step(name: str | None = None, *after: str, type: str = "t.rows", **input: Any) -> dict[str, Any]:
    """Write a step."""
    body: dict[str, Any] = {"type": type, "input": input}
    if name:
        body["name"] = name
    if after:
        body["after"] = list(after)
    return body


def edges(plan: FlowPlan) -> dict[str, list[str]]:
    """Read which step waits for which."""
    return {one.name: [plan.steps[at].name for at in one.after] for one in plan.steps}


def test_a_chain_and_a_group_are_spelt_out() -> None:
    """What is stored names all steps and all they wait for, however it was written."""
    assert edges(plan_of({"chain": [step(), step("mid"), step()]})) == {
        "step-1": [], "mid": ["step-1"], "step-3": ["mid"],
    }  # fmt: skip
    group_plan = plan_of({"group": [step("a"), step("b")], "then": step("sum"), "on_failure": "continue"})
    assert edges(group_plan) == {"a": [], "b": [], "sum": ["a", "b"]}
    again = plan_of(group_plan.input)
    assert (edges(again), again.on_failure, again.input) == (edges(group_plan), "continue", group_plan.input)


def test_a_reference_is_a_dependency() -> None:
    """Nobody has to say twice that a step waits for what it takes."""
    plan = plan_of({"steps": [step("b", rows={"$result": "a.n"}), step("a")]})
    assert edges(plan) == {"b": ["a"], "a": []}
    assert plan.steps[0].needs == {"a": 1}
    assert plan.input["steps"][0]["after"] == ["a"]


def test_the_steps_jobs_are_prepared_like_others() -> None:
    """Each has its type's queue, its own options, and else the flow's priority."""
    body = {
        "steps": [step("a"), step("b") | {"priority": 1, "queue": "critical", "delay_s": 5, "tags": ["x"]}]
    }
    submission = submission_of(body, priority=7)
    assert submission.flow is not None
    first, second = (one.job for one in submission.flow.steps)
    assert (first.queue, first.priority, first.spec.timeout_s) == ("reports", 7, 300)
    assert (second.queue, second.priority, second.due, second.spec.tags) == ("critical", 1, "+5000", ("x",))
    assert (submission.queue, submission.spec.timeout_s, submission.spec.max_attempts) == (
        "flows",
        604_800,
        1,
    )


def test_the_steps_ids_follow_from_the_flows() -> None:
    """A repeat of the call makes no other jobs, and steps sort behind their flow in their order."""
    flow_id = submission_of({"group": [step(), step()]}).id
    ids = [step_id(flow_id, number) for number in range(1, 1_001)]
    assert all(is_job_id(each) for each in ids)
    assert [flow_id, *ids] == sorted([flow_id, *ids])
    assert time_ms_of(ids[0]) == time_ms_of(flow_id) + 1
    assert ids[0] == step_id(flow_id, 1)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "input", "give one of steps, chain and group"),
        ({"steps": [step()], "chain": [step()]}, "input", "give one of"),
        ({"chain": [step()], "then": step()}, "input", "then goes with group"),
        ({"chain": [step("a"), step("b", "a")]}, "input", "after goes with steps"),
        ({"steps": [step("a"), step("a")]}, "input", "two steps have the name a"),
        ({"steps": []}, "input.steps", "at least 1"),
        ({"steps": [step("a.b")]}, "input.steps.0.name", "pattern"),
        ({"steps": [step("a", "x")]}, "input.steps.0.after.0", "there is no step 'x'"),
        ({"steps": [step("a", parts=[{"$result": "x.y"}])]}, "input.steps.0.input.parts.0", "no step 'x'"),
        ({"steps": [step("a", type="t.rosw")]}, "input.steps.0.type", "did you mean t.rows"),
        ({"chain": [step(), step(rows=0)]}, "input.chain.1.input.rows", "greater than or equal to 1"),
        ({"group": [step()], "then": step(rows="x")}, "input.then.input.rows", "integer"),
        ({"steps": [step("a", other=1)]}, "input.steps.0.input.other", "Extra inputs"),
        ({"steps": [step("a") | {"queue": "nowhere"}]}, "input.steps.0.queue", "there is no queue"),
        ({"steps": [step("a", "c"), step("b", "a"), step("c", "b")]}, "input.steps.0.after", "a waits for c, which waits for b"),
        ({"steps": [step("a", "a")]}, "input.steps.0.after", "a waits for a"),
        ({"steps": [step("a")], "timeout_s": 9e9}, "input.timeout_s", "less than or equal"),
        ({"steps": [step("f", type="flow", chain=[step(rows=0)])]}, "input.steps.0.input.chain.0.input.rows", "greater"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused(body: dict[str, Any], field: str, message: str) -> None:
    """Before anything is stored, with the place in what was sent."""
    with pytest.raises(InvalidInput) as refused:
        plan_of(body)
    assert refused.value.errors[0].field == field
    assert message in refused.value.errors[0].message
    assert "Value error" not in refused.value.errors[0].message


def test_all_wrong_steps_are_told_at_once() -> None:
    """Up to fifty."""
    with pytest.raises(InvalidInput) as refused:
        plan_of({"group": [step(rows=0), step(), step(type="x"), *[step(rows=0)] * 100]})
    fields = [entry.field for entry in refused.value.errors]
    assert fields[:2] == ["input.group.0.input.rows", "input.group.2.type"]
    assert len(fields) == 50


@pytest.mark.parametrize(
    "input",
    [
        {"rows": {"$result": "a.n"}},
        {"rows": 2, "parts": {"$result": "a"}},
        {"parts": [{"$result": "a.x"}, "y"]},
    ],
)
def test_an_input_with_missing_results_is_checked_as_far_as_it_is_known(input: dict[str, Any]) -> None:
    """What a result may mend is no error; all else is."""
    assert plan_of({"steps": [step("a"), step("b") | {"input": input}]}).steps[1].job.spec.input == input
    with pytest.raises(InvalidInput) as refused:
        plan_of({"steps": [step("a"), step("b") | {"input": {**input, "other": 1}}]})
    assert [entry.field for entry in refused.value.errors] == ["input.steps.1.input.other"]


def test_a_validator_that_breaks_on_a_reference_is_no_error() -> None:
    """It sees the result at last."""
    assert len(plan_of({"steps": [step("a"), step("b", type="t.odd", text={"$result": "a"})]}).steps) == 2


def test_flows_within_flows_have_bounds() -> None:
    """Three deep, and a thousand steps in all."""
    inner = {"chain": [step()]}
    for _ in range(2):
        inner = {"chain": [step(type="flow") | {"input": inner}]}
    assert plan_of(inner).size == 3
    with pytest.raises(InvalidInput, match="at most 3 deep"):
        plan_of({"chain": [step(type="flow") | {"input": inner}]})
    half = {"group": [step()] * 500}
    with pytest.raises(InvalidInput, match="at most 1,000 steps"):
        plan_of({"group": [step(type="flow") | {"input": half}] * 2})


def test_a_flow_has_no_queue() -> None:
    """It takes no worker's place; its steps do."""
    with pytest.raises(InvalidInput, match="queue: a flow has no queue"):
        submission_of({"chain": [step()]}, queue="reports")
    assert "flows" not in Registry().queues


def test_references_are_found_and_filled() -> None:
    """A path goes through members and places; an object with more than the mark is no reference."""
    value = {
        "a": {"$result": "x.list.1.n"},
        "b": [{"$result": "y"}],
        "c": {"$result": "x", "d": 1},
        "e": {"$result": 1},
    }
    assert list(find_references(value)) == [(("a",), "x.list.1.n"), (("b", 0), "y")]
    filled = fill(value, {"x": b'{"list":[1,{"n":2}]}', "y": b"null"})
    assert filled == {"a": 2, "b": [None], "c": {"$result": "x", "d": 1}, "e": {"$result": 1}}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"x": None}, "input.a: the result of step 'x' is not kept any more"),
        ({}, "input.a: the result of step 'x' is not kept any more"),
        ({"x": b"[]"}, "input.a: the result of step 'x' has no 0.n"),
        ({"x": b'[{"m":1}]'}, "input.a: the result of step 'x' has no 0.n"),
        ({"x": b"7"}, "input.a: the result of step 'x' has no 0.n"),
    ],
)
def test_what_a_result_does_not_have_is_named(results: dict[str, bytes | None], message: str) -> None:
    """With the place of the reference."""
    with pytest.raises(ValueError, match=message):
        fill({"a": {"$result": "x.0.n"}}, results)


def test_python_builds_flows() -> None:
    """Chains and groups take each other; results make references; names come from the types."""
    fetch, left, right = (
        rows.step({"rows": 2}),
        rows.step(),
        rows.step(Rows(rows=3), name="right", priority=2),
    )
    total = rows.step({"rows": fetch.result["n"], "parts": [left.result["a"][0], right.result]}, delay_s=None)
    flow = chain(fetch, group(left, right), total, on_failure="continue", timeout_s=60)
    assert len(flow) == 4
    assert flow.to_input() == {
        "steps": [
            {"name": "rows", "type": "t.rows", "input": {"rows": 2}},
            {"name": "rows-2", "type": "t.rows", "input": {}, "after": ["rows"]},
            {"name": "right", "type": "t.rows", "input": {"rows": 3, "parts": []}, "priority": 2, "after": ["rows"]},
            {
                "name": "rows-3", "type": "t.rows", "after": ["rows-2", "right"],
                "input": {"rows": {"$result": "rows.n"}, "parts": [{"$result": "rows-2.a.0"}, {"$result": "right"}]},
            },
        ],
        "on_failure": "continue", "timeout_s": 60,
    }  # fmt: skip
    assert len(plan_of(flow.to_input()).steps) == 4


def test_python_builds_any_order() -> None:
    """By what each step is to come after."""
    first = Step("t.rows", name="first")
    second = Step("t.rows", name="second", after=[first])
    assert Flow(first, second).to_input()["steps"][1]["after"] == ["first"]
    assert Flow(chain(first, second), Step("t.rows")).to_input()["steps"][2] == {
        "name": "rows",
        "type": "t.rows",
        "input": {},
    }


def test_python_refuses_what_it_can_tell() -> None:
    """A step used twice, one that is not there, and results that are used before they are known."""
    one, other = rows.step(), rows.step()
    with pytest.raises(ValueError, match="in the flow twice"):
        chain(one, one)
    with pytest.raises(ValueError, match="not in the flow"):
        chain(one, rows.step({"rows": other.result})).to_input()
    with pytest.raises(TypeError, match="not known before"):
        list(one.result)
    with pytest.raises(TypeError, match="key without a dot"):
        one.result["a.b"]


def test_a_flow_does_not_keep_its_own_steps_waiting() -> None:
    """A key that the flow holds until its last step has ended is none that one of its steps may wait for."""
    step = {"name": "last", "type": "t.rows", "concurrency_key": "k"}
    within = {"name": "within", "type": "flow", "input": {"steps": [step]}}
    for steps, name in (([step], "last"), ([within], "within.last")):
        with pytest.raises(InvalidInput) as refused:
            submission_of({"steps": steps}, concurrency_key="k")
        [error] = refused.value.errors
        assert (error.field, error.code) == ("concurrency_key", "own_key")
        assert f"step {name} " in error.message
        assert submission_of({"steps": steps}, concurrency_key="other").flow is not None
    with pytest.raises(InvalidInput, match=r"input\.steps\.0\.concurrency_key"):
        submission_of({"steps": [within | {"concurrency_key": "k"}]})
