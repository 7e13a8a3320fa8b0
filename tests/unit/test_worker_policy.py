"""How an attempt ends: backoff, verdicts, and Dramatiq's options read as ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.protocol import new_job_id, shard_of
from tidings.protocol.errors import IdempotencyConflict, InvalidInput, QueueFull, UnknownJobType
from tidings_tasks import Fail, JobCancelled, JobContext, Retry, job
from tidings_tasks.attempt import Attempt, StopReason
from tidings_tasks.outbox import Bounds, Outbox
from tidings_tasks.queue.actor_options import ActorDefaults, read_policy
from tidings_tasks.queue.policy import (
    Verdict,
    backoff_ms,
    describe,
    judge_error,
    judge_refusal,
    judge_result,
    judge_timeout,
)
from tidings_tasks.queue.queues import BUILT_IN_POLICIES, QueuePolicy
from tidings_tasks.registry import Registry
from tidings_tasks.settings import Settings
from tidings_tasks.store import Claim, Enqueued, Keyspace, Outcome, Spec, Submission, Tenant, Verb
from tidings_tasks.submission import check_enqueued, fingerprint_of, prepare


def make_attempt(*, tries: int = 0, max_attempts: int = 3) -> Attempt:
    spec = Spec("x", "alice", None, {}, 2.5, max_attempts, (1.0, 5.0))
    outbox = Outbox(lambda: None, Bounds(), max_event_bytes=1024)
    return Attempt(
        Claim(new_job_id(0), tries + 1, "default", tries, spec),
        outbox,
        files=None,
        is_shutting_down=lambda: False,
    )


def code_of(verdict: Verdict) -> str:
    return str(orjson.loads(verdict.data)["code"])


def is_dead(verdict: Verdict) -> bool:
    return bool(orjson.loads(verdict.extra)["dead"])


def delay_ms_of(verdict: Verdict) -> int:
    return int(orjson.loads(verdict.extra)["delay_ms"])


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=5), st.integers(1, 20), st.floats(0, 1))
def test_backoff_is_the_listed_delay_and_at_most_a_quarter_more(
    delays: list[float], failures: int, jitter: float
) -> None:
    """The last delay repeats."""
    listed = delays[min(failures, len(delays)) - 1] * 1000
    assert math.floor(listed) <= backoff_ms(delays, failures, jitter=jitter) <= math.ceil(listed * 1.25)
    assert math.floor(listed) <= backoff_ms(delays, failures) <= math.ceil(listed * 1.25)


def test_failure_is_tried_again_until_no_try_is_left() -> None:
    """The tries before this one count, not the attempt's number."""
    error = RuntimeError("no")
    assert judge_error(make_attempt(tries=0), error).verb is Verb.RETRY
    assert judge_error(make_attempt(tries=1), error).verb is Verb.RETRY
    last = judge_error(make_attempt(tries=2), error)
    assert (last.verb, is_dead(last)) == (Verb.FAIL, True)
    assert judge_error(make_attempt(max_attempts=1), error).verb is Verb.FAIL
    delay = delay_ms_of(judge_error(make_attempt(tries=1), error))
    assert 5000 <= delay <= 6250


def test_authors_steer_the_outcome() -> None:
    """``Retry`` with and without a delay, ``Fail``, and a cancellation of the function's own."""
    assert judge_error(make_attempt(), Retry(delay_s=0)) == Verdict(
        Verb.RETRY, describe("retry", "Retry", "the job asked to be tried again"), '{"delay_ms":0}'
    )
    assert 1000 <= delay_ms_of(judge_error(make_attempt(), Retry())) <= 1250
    exhausted = judge_error(make_attempt(tries=2), Retry(delay_s=1))
    assert (exhausted.verb, code_of(exhausted), is_dead(exhausted)) == (Verb.FAIL, "retry", True)
    failed = judge_error(make_attempt(), Fail("no_money", "none left"))
    assert (failed.verb, code_of(failed), is_dead(failed)) == (Verb.FAIL, "no_money", False)
    assert judge_error(make_attempt(), JobCancelled()).verb is Verb.CANCEL
    for bad in (-1, float("inf"), 10**9):
        with pytest.raises(ValueError):
            Retry(delay_s=bad)
    with pytest.raises(ValueError):
        Fail("Not a code")


@pytest.mark.parametrize(
    ("reason", "verb"),
    [
        (StopReason.CANCELLED, Verb.CANCEL),
        (StopReason.TIMED_OUT, Verb.RETRY),
        (StopReason.HANDED_BACK, Verb.RELEASE),
    ],
)
def test_what_a_function_was_stopped_for_goes_before_what_it_raised(reason: StopReason, verb: Verb) -> None:
    """An error in the clean-up does not turn a cancelled job into a failed one."""
    attempt = make_attempt()
    attempt.ask_to_stop(reason)
    assert judge_error(attempt, RuntimeError("clean-up failed")).verb is verb


def test_timeout_and_refusal_have_their_codes() -> None:
    """A time-out counts as a try; an unknown type is tried again; an invalid input is not."""
    assert code_of(judge_timeout(make_attempt())) == "timeout"
    assert judge_timeout(make_attempt(tries=2)).verb is Verb.FAIL
    unknown = judge_refusal(make_attempt(), UnknownJobType("what?"))
    assert (unknown.verb, code_of(unknown)) == (Verb.RETRY, "unknown_job_type")
    invalid = judge_refusal(make_attempt(), InvalidInput("input.x: no"))
    assert (invalid.verb, code_of(invalid), is_dead(invalid)) == (Verb.FAIL, "invalid_input", True)


def test_error_messages_are_bounded_and_always_there() -> None:
    """2 KiB of UTF-8, whatever ``str(error)`` does."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    long = orjson.loads(describe("x", "T", "ä" * 5000))["message"]
    assert len(long.encode()) <= 2048
    assert long.endswith("…")
    assert orjson.loads(describe("x", "T", "\ud800"))["message"] == "?"
    assert "cannot be had" in orjson.loads(judge_error(make_attempt(), Broken()).data)["message"]


def test_result_over_the_bound_is_a_dead_letter() -> None:
    """Trying again would make the same result."""
    assert judge_result(b"1234", 4).verb is Verb.COMPLETE
    verdict = judge_result(b"12345", 4)
    assert (verdict.verb, code_of(verdict), is_dead(verdict)) == (Verb.FAIL, "result_too_large", True)


def test_actor_options_become_a_policy() -> None:
    """The message goes before the actor, the actor before the defaults; delays double up to their bound."""
    defaults = ActorDefaults()
    policy = read_policy({}, {}, defaults)
    assert (policy.max_attempts, policy.timeout_s) == (21, 600)
    assert policy.backoff_s[:3] == (15, 30, 60)
    assert policy.backoff_s[-1] == 7 * 86_400
    assert len(policy.backoff_s) <= 20
    policy = read_policy(
        {"max_retries": 2}, {"max_retries": 5, "min_backoff": 100, "time_limit": 50}, defaults
    )
    assert (policy.max_attempts, policy.backoff_s, policy.timeout_s) == (3, (0.1, 0.2), 0.05)
    assert read_policy({"max_retries": 0}, {}, defaults).max_attempts == 1
    assert read_policy({"max_retries": None}, {}, defaults).max_attempts > 10**5
    assert read_policy({"min_backoff": 0}, {}, defaults).backoff_s == (0,)
    assert math.isfinite(read_policy({}, {"time_limit": math.inf}, defaults).timeout_s)


@pytest.fixture
def job_type() -> Any:
    @job("x", queue="reports", timeout_s=5, max_attempts=2, backoff_s=(1,), registry=Registry())
    async def x(ctx: JobContext) -> None: ...

    return x


def test_submission_is_the_request_and_the_types_policy(job_type: Any) -> None:
    """Priority by queue, shard by tenant, times as the store takes them."""
    keyspace = Keyspace("t", shards=8)
    tenant = Tenant("alice", "acme")
    shard, made = prepare(
        job_type, tenant, keyspace, input=None, tags=["a"], metadata={"k": 1}, queue="critical"
    )
    assert shard == keyspace.shard_of_tenant(tenant) == shard_of(made.id)
    assert (made.queue, made.priority, made.due) == ("critical", 1, "")
    assert made.spec == Spec("x", "alice", "acme", {}, 5, 2, (1,), tags=("a",), metadata={"k": 1})
    assert prepare(job_type, tenant, keyspace, input={}, delay_s=1.5)[1].due == "+1500"
    at = datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert prepare(job_type, tenant, keyspace, input={}, run_at=at)[1].due == str(
        round(at.timestamp() * 1000)
    )
    assert prepare(job_type, tenant, keyspace, input={}, priority=9)[1].priority == 9


def test_submission_is_timed_by_the_queue_it_goes_into() -> None:
    """By the policies that were passed; a queue may be known from them alone."""

    @job("y", registry=Registry())
    async def y(ctx: JobContext) -> None: ...

    def spec_in(
        queue: str | None, policies: Mapping[str, QueuePolicy]
    ) -> tuple[int, float, int, tuple[float, ...]]:
        _, made = prepare(
            y, Tenant("a"), Keyspace(), input={}, queue=queue, registry=Registry(), policies=policies
        )
        return made.priority, made.spec.timeout_s, made.spec.max_attempts, made.spec.backoff_s

    assert spec_in(None, BUILT_IN_POLICIES) == (3, 300, 4, (10, 20, 40))
    assert spec_in("ai", BUILT_IN_POLICIES) == (2, 120, 4, (30, 60, 120))
    assert spec_in("films", Settings(queues={"films": {"priority": 1}}).queues) == (1, 300, 4, (10, 20, 40))


def test_submission_has_the_keys_of_the_request_and_the_rest_of_the_type() -> None:
    """A type's expiry counts from the due time; a queue's unusual retention goes with the job."""

    @job("z", queue="ai", concurrency_limit=4, dependency="openai", expires_s=60, registry=Registry())
    async def z(ctx: JobContext) -> None: ...

    policies = Settings(queues={"ai": {"completed_kept_s": 3600}}).queues

    def make(**options: Any) -> Submission:
        return prepare(z, Tenant("a"), Keyspace(), input={}, policies=policies, **options)[1]

    made = make(concurrency_key="c", dedup_key="d", dedup_ttl_s=1.5, debounce=True, delay_s=2)
    assert (made.concurrency_key, made.concurrency_limit, made.dependency) == ("c", 4, "openai")
    assert (made.dedup_key, made.dedup_ttl_ms, made.debounce) == ("d", 1500, True)
    assert (made.completed_kept_ms, made.failed_kept_ms) == (3_600_000, None)
    assert (made.due, made.expires) == ("+2000", "+62000")
    assert make().expires == "+60000"
    at = datetime(2030, 1, 1, tzinfo=UTC)
    at_ms = round(at.timestamp() * 1000)
    assert make(run_at=at).expires == str(at_ms + 60_000)
    assert make(expires_in_s=5).expires == "+5000"
    assert make(delay_s=5, expires_at=at).expires == str(at_ms)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"queue": "reprots"}, "queue"), ({"priority": 0}, "priority"), ({"delay_s": -1}, "delay_s"),
        ({"run_at": datetime(2030, 1, 1)}, "run_at"),  # noqa: DTZ001  # that is what is tested
        ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "delay_s": 1}, "run_at"), ({"metadata": {"x": object()}}, "input"),
        ({"concurrency_key": "x" * 200}, "concurrency_key"), ({"dedup_key": "\n"}, "dedup_key"),
        ({"dedup_ttl_s": 5}, "dedup_key"), ({"dedup_key": "k", "dedup_ttl_s": 0}, "dedup_ttl_s"),
        ({"dedup_key": "k", "debounce": True}, "debounce"), ({"debounce": True, "delay_s": 1}, "dedup_key"),
        ({"expires_in_s": 1, "expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, "expires_at"),
        ({"expires_in_s": 5, "delay_s": 5}, "expires_in_s"),
        ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "expires_at": datetime(2029, 1, 1, tzinfo=UTC)}, "expires_at"),
    ],
)  # fmt: skip
def test_bad_request_names_its_field(job_type: Any, options: dict[str, Any], field: str) -> None:
    """Before a job exists."""
    with pytest.raises(InvalidInput) as caught:
        prepare(job_type, Tenant("a"), Keyspace(), input={}, **options)
    assert caught.value.errors[0].field == field


def test_answers_of_the_store_become_ids_or_errors() -> None:
    """A replay is the first job; a conflict and a full queue are errors."""
    created, replayed = Enqueued(Outcome.CREATED, "a", "e:1"), Enqueued(Outcome.REPLAYED, "b", "e:4")
    assert check_enqueued([created, replayed]) == ["a", "b"]
    with pytest.raises(IdempotencyConflict, match="belongs to job c"):
        check_enqueued([Enqueued(Outcome.REFUSED, "a", ":0"), Enqueued(Outcome.CONFLICT, "c", "e:1")])
    with pytest.raises(QueueFull):
        check_enqueued([Enqueued(Outcome.FULL, "d", ":0")])


def test_fingerprint_tells_contents_apart() -> None:
    """Not by the order of keys; it holds no spaces."""
    assert fingerprint_of("x", {"a": 1, "b": 2}) == fingerprint_of("x", {"b": 2, "a": 1})
    assert fingerprint_of("x", {"a": 1}) != fingerprint_of("x", {"a": 2})
    assert " " not in fingerprint_of("x")
