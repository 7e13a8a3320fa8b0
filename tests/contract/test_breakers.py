"""Circuit breakers: jobs that need what is down are put off, one goes first to see, and no try is burnt."""

from __future__ import annotations

from tidings.protocol import JobState
from tidings_tasks.store import Breaker, BreakerState, Claim, Verb, commands

from .bench import Bench
from .test_gates import ERROR, take


def breaker(bench: Bench, failures: int = 2) -> None:
    """Set the numbers of a dependency."""
    bench.run(commands.configure(0, dependencies={"api": Breaker(failures, within_s=60, open_s=10)}))


def fail(bench: Bench, claim: Claim) -> None:
    """End an attempt as one that failed and will be tried again much later."""
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 3_600_000})


def circuit(bench: Bench) -> BreakerState:
    """Read the state of the one breaker."""
    found = bench.run(commands.read_breakers(0))
    return found[0].state if found else BreakerState.CLOSED


def trip(bench: Bench) -> None:
    """Open the circuit of `api`, which opens at two failures."""
    breaker(bench)
    for _ in range(2):
        fail(bench, bench.start(dependency="api"))
    assert circuit(bench) is BreakerState.OPEN


def test_an_open_circuit_puts_jobs_off_and_burns_no_try(bench: Bench) -> None:
    """Only those that need the dependency."""
    trip(bench)
    held = bench.add(dependency="api")
    free = bench.add()
    assert [claim.id for claim in take(bench)] == [free]
    record = bench.record(held)
    assert (record.state, record.tries, record.waiting_for) == (JobState.QUEUED, 0, "circuit_open")


def test_a_trial_that_succeeds_closes_the_circuit(bench: Bench) -> None:
    """One job goes first; when it is through, all do."""
    trip(bench)
    ids = [bench.add(dependency="api") for _ in range(4)]
    assert take(bench) == []
    bench.advance(10_000)
    [trial] = take(bench)
    assert trial.id == ids[0]
    assert circuit(bench) is BreakerState.HALF_OPEN
    assert take(bench) == []
    bench.complete(trial)
    assert circuit(bench) is BreakerState.CLOSED
    assert [claim.id for claim in take(bench)] == ids[1:]


def test_a_trial_that_fails_opens_the_circuit_for_twice_as_long(bench: Bench) -> None:
    """Up to ten times."""
    trip(bench)
    for _ in range(3):
        bench.add(dependency="api")
    assert take(bench) == []
    for factor in (2, 4, 8, 10):
        [state] = bench.run(commands.read_breakers(0))
        assert state.open_until_ms is not None
        bench.set_clock(state.open_until_ms)
        bench.add(dependency="api")
        [trial] = take(bench, 1)
        fail(bench, trial)
        [state] = bench.run(commands.read_breakers(0))
        assert (state.state, state.open_until_ms) == (BreakerState.OPEN, bench.now_ms + factor * 10_000)


def test_a_trial_whose_worker_is_lost_is_followed_by_another(bench: Bench) -> None:
    """It said nothing about the dependency."""
    trip(bench)
    bench.add(dependency="api")
    take(bench)
    bench.advance(10_000)
    [trial] = take(bench)
    bench.lose_worker()
    assert [claim.id for claim in take(bench)] == [trial.id]


def test_failures_far_apart_open_nothing(bench: Bench) -> None:
    """They are counted within a window, and a success begins it anew."""
    breaker(bench)
    fail(bench, bench.start(dependency="api"))
    bench.advance(60_000)
    fail(bench, bench.start(dependency="api"))
    assert circuit(bench) is BreakerState.CLOSED
    bench.complete(bench.start(dependency="api"))
    fail(bench, bench.start(dependency="api"))
    assert circuit(bench) is BreakerState.CLOSED


def test_a_failure_that_its_author_chose_says_nothing_of_the_dependency(bench: Bench) -> None:
    """`Fail` is about the job."""
    breaker(bench, failures=1)
    bench.write(bench.start(dependency="api"), Verb.FAIL, ERROR, {"dead": False})
    assert circuit(bench) is BreakerState.CLOSED
    bench.write(bench.start(dependency="api"), Verb.FAIL, ERROR, {"dead": True})
    assert circuit(bench) is BreakerState.OPEN
