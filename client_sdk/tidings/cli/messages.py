"""What the command line says: one line an error, and no control characters of others' making."""

from __future__ import annotations

import re

from ..protocol.errors import (
    ConnectionLost,
    Forbidden,
    InvalidInput,
    JobNotFound,
    RateLimited,
    TidingsError,
    TokenExpired,
    Unauthenticated,
)

__all__ = ["TOKEN_SOURCE", "WAITS", "count_of", "counted", "describe", "one_line", "printable"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# The command is named with its place: where the client alone is installed, it cannot run.
TOKEN_SOURCE = (
    "`tidings dev` prints one, and `tidings token --sub YOU` makes one where the server is installed"  # noqa: S105 - a hint
)
WAITS = {
    "paused": "the queue is paused",
    "rate_limit": "its rate limit is used up for now",
    "concurrency": "its key or its queue has as many running as may be",
    "circuit_open": "a service that it needs has failed too often",
}
"""What keeps a queued job back, in words."""

_HINTS: tuple[tuple[type[TidingsError], str], ...] = (
    (ConnectionLost, "is the server running, and is TIDINGS_URL right?"),
    (TokenExpired, "set TIDINGS_TOKEN to a fresh one"),
    (Unauthenticated, f"set TIDINGS_TOKEN to a valid token: {TOKEN_SOURCE}"),
    (Forbidden, "`tidings token --sub YOU --scope SCOPE` makes one where the server is installed"),
    (JobNotFound, "check the id; other people's jobs look like none"),
)


def describe(error: TidingsError) -> str:
    """Say in one line what went wrong, in which field, and what to do about it."""
    if isinstance(error, InvalidInput) and error.errors:
        text = "; ".join(f"{fault.field}: {fault.message}" for fault in error.errors)
    else:
        text = error.detail
    if isinstance(error, RateLimited) and error.retry_after_s:
        text = f"{text}; try again in {error.retry_after_s:.0f} s"
    hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), None)
    request = f" [request {error.request_id}]" if error.request_id and error.status >= 500 else ""
    return one_line(f"{text}{f' — {hint}' if hint else ''} ({error.code}){request}")


def count_of(number: int, thing: str) -> str:
    """Return such as `1 job` or `3 jobs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def counted(number: int, thing: str, deed: str) -> str:
    """Say what a command would do to how many, and how to let it."""
    return f"{count_of(number, thing)} to {deed}{'; --yes does it' if number else ''}"


def one_line(text: str) -> str:
    """Fold all white space into single spaces and take out control characters."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Take out what could drive a terminal: jobs' messages are anybody's text."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
