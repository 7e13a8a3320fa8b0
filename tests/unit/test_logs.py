"""Log lines: machine-readable, in UTC, with their request and job, and without secrets."""

from __future__ import annotations

import io
import json
import logging
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from tests.unit.recorded_context import RecordedContext
from tidings_tasks.context import CURRENT
from tidings_tasks.logs import REDACTED, configure_logging, current_request_id

SECRET = "correct-horse-battery-staple-0123456789"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


@contextmanager
def captured(format: Literal["json", "text"] = "json", level: str = "info") -> Iterator[io.StringIO]:
    """Configure logging into a buffer, and put the root logger back as it was."""
    root = logging.getLogger()
    handlers, old_level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure_logging(level, format, secrets=[SECRET], stream=stream)
        yield stream
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(old_level)


def log_json(message: str, *args: Any, **options: Any) -> dict[str, Any]:
    """Log one record and return its line."""
    with captured() as stream:
        logging.getLogger("tidings.test").warning(message, *args, **options)
    (line,) = stream.getvalue().splitlines()
    return dict(json.loads(line))


def test_a_json_line_has_time_level_logger_and_message() -> None:
    """The time is UTC with milliseconds; what was passed in extra are fields of their own."""
    line = log_json("took %d ms", 7, extra={"queue": "reports", "count": 3})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("at"))
    assert line == {
        "level": "warning",
        "logger": "tidings.test",
        "message": "took 7 ms",
        "queue": "reports",
        "count": 3,
    }


def test_the_time_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's time zone does not show."""
    monkeypatch.setattr("logging.LogRecord.__init__", _record_at(1_795_428_000.123456))
    assert log_json("x")["at"] == "2026-11-23T10:00:00.123Z"


def _record_at(created_s: float) -> Any:
    original = logging.LogRecord.__init__

    def init(self: logging.LogRecord, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.created = created_s

    return init


def test_the_request_and_job_at_hand_are_named() -> None:
    """Both ids are taken from the context of the running task."""
    context = RecordedContext()
    request, job = current_request_id.set("req-12345678"), CURRENT.set(context.as_context())
    try:
        line = log_json("x")
    finally:
        current_request_id.reset(request)
        CURRENT.reset(job)
    assert (line["request_id"], line["job_id"]) == ("req-12345678", context.job_id)
    assert "request_id" not in log_json("x")


@pytest.mark.parametrize(
    "message",
    [
        f"the key is {SECRET}",
        f"got {TOKEN} from a browser",
        "Authorization: Bearer abcdefghijkl",
        "connecting to rediss://user:hunter2hunter2@store:6379/0",
        "connecting to redis://:hunter2hunter2@store:6379/0",
        "GET /x?token=hunter2hunter2&a=1",
        "settings: {'jwt_secret': 'hunter2hunter2'}",
        'body {"password": "hunter2hunter2"}',
        "OPENAI_API_KEY=hunter2hunter2",
    ],
)
@pytest.mark.parametrize("format", ["json", "text"])
def test_no_secret_reaches_a_line(message: str, format: Literal["json", "text"]) -> None:
    """Neither in the message nor in its arguments, the extra fields or a traceback."""
    with captured(format) as stream:
        log = logging.getLogger("tidings.test")
        log.error(message)
        log.error("%s", message)
        log.error("x", extra={"detail": message, "nested": {"deep": [message]}})
        try:
            raise ValueError(message)
        except ValueError:
            log.exception("failed")
    text = stream.getvalue()
    assert text.count(REDACTED) >= 5
    for secret in (SECRET, TOKEN, TOKEN.split(".")[1], "hunter2", "abcdefghijkl"):
        assert secret not in text


def test_a_field_that_is_named_like_a_secret_is_replaced_whole() -> None:
    """Whatever it holds, and at any depth."""
    line = log_json("x", extra={"api_key": "k", "headers": {"Cookie": "a=b"}, "tokens_used": 12})
    assert (line["api_key"], line["headers"], line["tokens_used"]) == (REDACTED, {"Cookie": REDACTED}, 12)


def test_harmless_text_is_left_alone() -> None:
    """Redaction does not eat what people need to read."""
    message = "job 01JX: token expired, see https://example.com:8000/docs?page=2 and user@example.com"
    assert log_json(message)["message"] == message


def test_extra_cannot_replace_the_standard_fields() -> None:
    """A field called `level` or `at` does not overwrite the record's own."""
    line = log_json("x", extra={"level": "fake", "at": "fake"})
    assert line["level"] == "warning"
    assert line["at"] != "fake"


def test_a_value_that_json_does_not_know_is_logged_as_text() -> None:
    """A record is never lost because of what it carries."""
    line = log_json("x \udcff", extra={"error": ValueError("no"), "rate": math.nan})
    assert (line["error"], line["rate"], line["message"]) == ("no", "nan", "x \udcff")


def test_a_message_cannot_pose_as_a_second_line() -> None:
    """Line breaks and escape sequences that a client sent are escaped."""
    with captured("text") as stream:
        logging.getLogger("t").warning("a\n2026-11-23T10:00:00.000Z info t: forged\x1b[2J")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\\n2026" in stream.getvalue()


def test_the_level_bounds_what_is_logged() -> None:
    """Below the level nothing is written; and a second call does not double the lines."""
    with captured(level="error") as stream:
        logging.getLogger("t").warning("quiet")
        logging.getLogger("t").error("loud")
    assert stream.getvalue().count("\n") == 1
    with captured("json"), captured("json") as second:
        logging.getLogger("t").error("once")
    assert second.getvalue().count("\n") == 1


def test_a_traceback_is_one_field_of_the_line() -> None:
    """A record with an exception is still one JSON object on one line."""
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        line = log_json("failed", exc_info=sys.exc_info())
    assert line["traceback"].startswith("Traceback")
    assert line["traceback"].endswith("RuntimeError: broken")
