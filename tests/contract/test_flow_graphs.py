"""Any flow against a small model: a step begins after all it waits for, exactly once, and the flow ends behind its last step."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.bench import ALICE, LEASE_MS, Bench, spec_of
from tidings.protocol import JobState
from tidings_tasks.store import Claim, Submission, Verb, commands
from tidings_tasks.store.flow_plan import FlowPlan, PlannedStep, step_id

ENDED = ("completed", "failed", "cancelled", "skipped")
ACTIONS = st.sampled_from(
    [
        "claim",
        "complete",
        "fail",
        "retry",
        "progress",
        "lose",
        "cancel step",
        "cancel flow",
        "obey",
        "wait",
        "time out",
    ]
)


@dataclass
class Model:
    """What a flow should look like: each step's state, None until it is a job."""

    waits_for: list[set[int]]
    policy: str
    states: dict[int, str | None] = field(default_factory=dict)
    is_stopping: bool = False
    is_cancelled: bool = False
    is_late: bool = False

    def __post_init__(self) -> None:
        self.states = dict.fromkeys(range(len(self.waits_for)))
        self.move_on()

    def move_on(self) -> None:
        """Begin what may begin, and skip what never will."""
        for at, places in enumerate(self.waits_for):
            if self.states[at] is None:
                before = [self.states[place] for place in places]
                if self.is_stopping or any(state in ("failed", "cancelled", "skipped") for state in before):
                    self.states[at] = "skipped"
                elif all(state == "completed" for state in before):
                    self.states[at] = "waiting"

    def stop(self) -> None:
        """Nothing begins any more; what waits is cancelled, what runs goes on until it obeys."""
        self.is_stopping = True
        for at, state in self.states.items():
            if state == "waiting":
                self.states[at] = "cancelled"
        self.move_on()

    def end(self, at: int, state: str) -> None:
        """End a step."""
        self.states[at] = state
        if state != "completed" and self.policy == "stop" and not self.is_stopping:
            self.stop()
        for _ in self.states:  # what is skipped has others skipped, in whatever order they stand
            self.move_on()

    @property
    def state(self) -> JobState:
        """The flow's state."""
        if not all(state in ENDED for state in self.states.values()):
            return JobState.RUNNING
        if all(state == "completed" for state in self.states.values()):
            return JobState.COMPLETED
        return JobState.CANCELLED if self.is_cancelled else JobState.FAILED


@st.composite
def graphs(draw: st.DrawFn) -> list[set[int]]:
    """Draw up to eight steps, each of which waits for some of the others, without a circle."""
    count = draw(st.integers(1, 8))
    order = draw(st.permutations(range(count)))
    waits_for: list[set[int]] = [set() for _ in range(count)]
    for place, at in enumerate(order[1:], 1):
        waits_for[at] = draw(st.sets(st.sampled_from(order[:place]), max_size=3))
    return waits_for


class Run:
    """A flow on the bench beside its model."""

    def __init__(self, bench: Bench, waits_for: list[set[int]], policy: str) -> None:
        self.bench, self.model = bench, Model(waits_for, policy)
        steps = tuple(
            PlannedStep(f"s{at}", Submission("", spec_of(), "default", 3), tuple(sorted(places)))
            for at, places in enumerate(waits_for)
        )
        self.flow = bench.new_id()
        bench.enqueue(Submission(self.flow, spec_of(), "flows", 3, flow=FlowPlan(steps, policy, 3_600)))
        self.ids = [step_id(self.flow, at + 1) for at in range(len(steps))]
        self.held: dict[int, Claim] = {}

    def do(self, action: str, pick: int) -> None:
        """Do something to the store and to the model, where it can be done."""
        bench, model = self.bench, self.model
        running = sorted(self.held)
        at = running[pick % len(running)] if running else None
        if action == "claim":
            for claim in bench.step(wants=[("default", 1 + pick % 3)]).claims:
                place = self.ids.index(claim.id)
                assert model.states[place] == "waiting", "a step began that was not to"
                model.states[place] = "running"
                self.held[place] = claim
        elif action == "wait":
            bench.advance(1)
        elif action == "cancel flow":
            if model.state is JobState.RUNNING:
                bench.cancel(self.flow)
                model.is_cancelled = True
                model.stop()
        elif action == "time out" and not model.is_late:
            bench.run(commands.renew(0, [(self.flow, 1)], lease_ms=0))
            bench.step()
            if model.state is JobState.RUNNING:
                model.is_late = True
                model.stop()
        elif action == "cancel step":
            place = pick % len(self.ids)
            if model.states[place] == "waiting":
                bench.cancel(self.ids[place])
                model.end(place, "cancelled")
        elif at is not None:
            self._end(action, at, self.held[at])

    def _end(self, action: str, at: int, claim: Claim) -> None:
        bench, model = self.bench, self.model
        if action == "complete":
            bench.complete(claim)
            model.end(at, "completed")
        elif action == "fail":
            bench.write(claim, Verb.FAIL, {"code": "c", "type": "T", "message": "m"})
            model.end(at, "failed")
        elif action == "retry":
            # One that was asked to stop is not tried again.
            bench.write(claim, Verb.RETRY, {}, {"delay_ms": 0})
            last = claim.tries + 1 >= 3
            if model.is_stopping:
                model.end(at, "cancelled")
            elif last:
                model.end(at, "failed")
            else:
                model.states[at] = "waiting"
        elif action == "obey" and model.is_stopping:
            bench.write(claim, Verb.CANCEL)
            model.end(at, "cancelled")
        elif action == "progress":
            bench.progress(claim, 50)
            return
        elif action == "lose":
            bench.run(commands.renew(0, [(claim.id, claim.attempt)], lease_ms=0))
            bench.step()
            if model.is_stopping:
                model.end(at, "cancelled")
            elif claim.tries + 1 >= 3:
                model.end(at, "failed")
            else:
                model.states[at] = "waiting"
        else:
            return
        del self.held[at]

    def check(self) -> None:
        """Compare all that can be seen."""
        assert self.bench.state(self.flow) is self.model.state
        found = {i: r for i, r in zip(self.ids, self._records(), strict=True) if r is not None}
        for at, state in self.model.states.items():
            record = found.get(self.ids[at])
            if state in (None, "skipped"):
                assert record is None
            else:
                assert record is not None
                expected = (
                    {JobState.QUEUED, JobState.RETRYING} if state == "waiting" else {JobState(state or "")}
                )
                assert record.state in expected
        if self.model.state is not JobState.RUNNING:
            result = self.bench.record(self.flow).result
            assert result is not None
            told = {name: step["status"] for name, step in orjson.loads(result)["steps"].items()}
            assert told == {f"s{at}": state for at, state in self.model.states.items()}
            ends = [self.bench.last_event(i)["at"] for i in found]
            assert self.bench.last_event(self.flow)["at"] >= max(ends)

    def _records(self) -> list[object]:
        return [self.bench.store.run(commands.read_job(job_id)) for job_id in self.ids]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    waits_for=graphs(),
    policy=st.sampled_from(["stop", "continue"]),
    actions=st.lists(st.tuples(ACTIONS, st.integers(0, 7)), max_size=30),
)
def test_any_flow_runs_as_its_model_says(
    bench: Bench, waits_for: list[set[int]], policy: str, actions: list[tuple[str, int]]
) -> None:
    """Whatever happens to its steps, and then all that is left completes."""
    bench.begin_anew()
    bench.advance(LEASE_MS)  # no lease is reaped before
    run = Run(bench, waits_for, policy)
    run.check()
    for action, pick in actions:
        run.do(action, pick)
        run.check()
    for _ in range(2 * len(waits_for)):
        bench.advance(LEASE_MS // 10)
        run.do("claim", 2)
        while run.held:
            run.do("complete", 0)
            run.check()
    assert run.model.state is not JobState.RUNNING
    assert bench.counts(ALICE)[run.model.state] >= 1
