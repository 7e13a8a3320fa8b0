"""What a worker counts between two beats."""

from __future__ import annotations

import pytest

from tests.unit.test_worker_policy import make_attempt
from tidings_tasks import heartbeat
from tidings_tasks.heartbeat import Tally
from tidings_tasks.store import Verb


def test_completed_attempts_tell_their_duration_and_failed_ones_do_not() -> None:
    """Retries and failures count as failed, cancellations and hand-backs as neither."""
    tally = Tally()
    for verb in (Verb.COMPLETE, Verb.COMPLETE, Verb.RETRY, Verb.FAIL, Verb.CANCEL, Verb.RELEASE):
        tally.count(make_attempt(), verb)
    assert (tally.done, tally.failed) == (2, 2)
    [(kind, buckets)] = tally.take_durations().items()
    assert kind == make_attempt().spec.type
    assert sum(buckets.values()) == 2
    assert tally.take_durations() == {}


def test_types_between_two_beats_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More are counted, and their durations left out."""
    monkeypatch.setattr(heartbeat, "_MAX_TYPES", 0)
    tally = Tally()
    tally.count(make_attempt(), Verb.COMPLETE)
    assert tally.done == 1
    assert tally.take_durations() == {}
