"""The data of events, progress that is carried forward, and when a loop reports."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.protocol import Progress
from tidings.protocol.errors import InvalidInput
from tidings_tasks.event_data import (
    KEEP,
    InvalidEvent,
    ProgressState,
    encode_log,
    encode_output,
    truncated_log,
)
from tidings_tasks.tracking import Tracker

NOTHING: dict[str, Any] = dict.fromkeys(
    ("percent", "message", "current", "total", "step", "eta_s", "meta"), KEEP
)


def send(state: ProgressState, **fields: Any) -> dict[str, Any]:
    data: dict[str, Any] = orjson.loads(state.encode(1024, **(NOTHING | fields)))
    return data


def test_omitted_fields_keep_their_value_and_none_clears_one() -> None:
    """Each event carries the full state (contract §3)."""
    state = ProgressState()
    assert send(state, percent=10, message="a", step="one") == {
        "percent": 10, "message": "a", "current": None, "total": None, "step": "one", "eta_s": None, "meta": None,
    }  # fmt: skip
    second = send(state, message=None, meta={"x": 1})
    assert (second["percent"], second["message"], second["step"], second["meta"]) == (
        10,
        None,
        "one",
        {"x": 1},
    )
    assert send(state) == second


def test_percent_follows_from_current_and_total_until_it_is_given() -> None:
    """Who says a percentage himself is not overruled."""
    state = ProgressState()
    assert send(state, current=1, total=3)["percent"] == 33.333
    assert send(state, current=2)["percent"] == 66.667
    assert send(state, percent=10)["percent"] == 10
    assert send(state, current=3)["percent"] == 10


def test_refused_progress_leaves_the_state_alone() -> None:
    """The next call carries forward what was last sent, not what was refused."""
    state = ProgressState()
    send(state, percent=10, message="good")
    for bad in (
        {"percent": -1},
        {"eta_s": math.inf},
        {"message": 5},
        {"meta": {"x": object()}},
        {"message": "x" * 2000},
    ):
        with pytest.raises(InvalidEvent):
            send(state, **bad)
    assert (send(state)["percent"], send(state)["message"]) == (10, "good")


@settings(deadline=None)  # a busy machine is no fault
@given(
    percent=st.floats(0, 100) | st.none(),
    current=st.integers(-(10**9), 10**9) | st.none(),
    total=st.integers(0, 10**9) | st.none(),
    message=st.text(st.characters(codec="utf-8"), max_size=20) | st.none(),
)
def test_every_accepted_progress_is_valid_for_its_receivers(
    percent: float | None, current: int | None, total: int | None, message: str | None
) -> None:
    """The SDK's model reads whatever a call may send."""
    fields = {"current": current, "total": total, "message": message}
    if percent is not None:
        fields["percent"] = percent
    Progress.model_validate(send(ProgressState(), **fields))


def test_output_and_log_are_checked() -> None:
    """Errors are ``ValueError`` and name the field."""
    assert orjson.loads(encode_output(100, {"a": [1]}, "x")) == {"chunk": {"a": [1]}, "stream": "x"}
    assert orjson.loads(encode_log(200, "info", "m", {"a": 1})) == {
        "level": "info", "message": "m", "fields": {"a": 1},
    }  # fmt: skip
    for call, field in (
        (lambda: encode_output(100, "x" * 100, "x"), "output"),
        (lambda: encode_output(100, {1: 2}, "x"), "output"),
        (lambda: encode_output(100, "\ud800", "x"), "output"),
        (lambda: encode_output(100, "x", ""), "output.stream"),
        (lambda: encode_log(100, "notice", "m", {}), "log.level"),
        (lambda: encode_log(100, "info", None, {"a": {1, 2}}), "log"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert isinstance(caught.value, InvalidInput)
        assert caught.value.errors[0].field == field


@settings(deadline=None)  # a busy machine is no fault
@given(
    message=st.text(max_size=3000),
    fields=st.dictionaries(
        st.text(max_size=80),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.just(object()),
        max_size=5,
    ),
)
def test_log_records_always_fit(message: str, fields: dict[str, Any]) -> None:
    """Whatever a program logs becomes an event within the bound; even text that is no UTF-8."""
    text = truncated_log(1024, "info", message, fields)
    assert len(text) <= 1024
    assert orjson.loads(text)["level"] == "info"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def reports(tracker: Tracker, clock: Clock, items: int, item_s: float) -> list[dict[str, Any]]:
    found = []
    for _ in range(items):
        found.append(tracker.due())
        tracker.count()
        clock.now += item_s
    found += [tracker.due(), tracker.end()]
    return [event for event in found if event is not None]


def test_short_loop_reports_every_item() -> None:
    """And says how long the rest will take."""
    clock = Clock()
    events = reports(Tracker(range(4), None, {}, clock), clock, 4, 2.0)
    assert [e["current"] for e in events] == [0, 1, 2, 3, 4]
    assert [e["percent"] for e in events] == [0, 25, 50, 75, 100]
    assert [e["eta_s"] for e in events] == [None, 6, 4, 2, 0]


def test_long_loop_reports_whole_percents_and_each_second() -> None:
    """A million fast items send about a hundred events, slow ones one a second."""
    clock = Clock()
    fast = reports(Tracker(None, 1_000_000, {}, clock), clock, 1_000_000, 0.0)
    assert len(fast) == 101
    slow = reports(Tracker(None, 100_000, {}, clock), clock, 300, 0.5)
    assert 150 <= len(slow) <= 160


def test_loop_of_unknown_length_reports_ten_times_a_second() -> None:
    """At its end it knows the total."""
    clock = Clock()
    events = reports(Tracker(iter(()), None, {"message": "m"}, clock), clock, 1000, 0.01)
    assert 80 <= len(events) <= 110
    assert events[0]["total"] is None
    assert (events[-1]["current"], events[-1]["total"], events[-1]["percent"]) == (1000, 1000, 100)
    assert events[-1]["message"] == "m"


def test_empty_loop_is_done() -> None:
    """Nothing to do is a hundred percent."""
    clock = Clock()
    assert [e["percent"] for e in reports(Tracker([], None, {}, clock), clock, 0, 0)] == [100]
