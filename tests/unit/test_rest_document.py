"""``docs/protocol.md`` says what the code does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidings.protocol import EDGES, LIFECYCLE, Event, EventKind
from tidings.protocol.errors import Problem, TidingsError
from tidings_server.api import events, listing, sse
from tidings_server.api.positions import MAX_WAIT_S
from tidings_server.api.routes import ROUTES
from tidings_server.auth.tokens import MAX_NAME_CHARS, MAX_TOKEN_BYTES
from tidings_server.gateway import ACK_MAX_BYTES, ACK_MAX_EVENTS
from tidings_tasks.flows.form import FlowInput
from tidings_tasks.settings import Settings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")


def table(name: str) -> list[list[str]]:
    """The cells of a marked table, without its head."""
    match = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", DOCUMENT, re.DOTALL)
    assert match, name
    rows = match[1].strip().splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))] for row in rows]


def words(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def wire_errors(root: type[TidingsError] = TidingsError) -> Iterator[type[TidingsError]]:
    """All errors of the protocol that have a status."""
    for kind in root.__subclasses__():
        if kind.status and kind.__module__ == "tidings.protocol.errors":
            yield kind
        yield from wire_errors(kind)


def test_all_error_codes_are_listed_with_their_status() -> None:
    """And whether the same request may succeed later."""
    listed = {
        words(code)[0]: (int(status), temporary == "yes") for code, status, temporary, _ in table("errors")
    }
    assert listed == {kind.code: (kind.status, kind.temporary) for kind in wire_errors()}


def test_all_states_and_edges_are_listed() -> None:
    """As the store's scripts enforce them."""
    listed = {(words(state) or [None])[0]: sorted(words(after)) for state, after in table("states")}
    assert listed == {None if state is None else state.value: sorted(edges) for state, edges in EDGES.items()}


def test_all_kinds_are_listed_with_their_place_in_feeds() -> None:
    """Lifecycle events are numbered in feeds, progress passes through, the rest stays out."""
    listed = {words(kind)[0]: place for kind, _, place in table("kinds")}
    expected = {kind.value: "yes" if kind in LIFECYCLE else "no" for kind in EventKind}
    assert listed == expected | {"progress": "the latest, unnumbered"}


def test_all_calls_are_listed() -> None:
    """And their first success is the status that is told."""
    listed = {words(call)[0]: answer for call, answer in table("calls")}
    assert set(listed) == {f"{route.method} {route.path}" for route in ROUTES}
    for route in ROUTES:
        told = listed[f"{route.method} {route.path}"]
        if not told.startswith("As "):
            assert told.startswith(str(route.answers[0].status)), route.path


def test_examples_are_what_they_show() -> None:
    """An event and a problem, as the models read them."""
    event, flow, problem = (
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    )
    assert Event.model_validate(event).is_terminal is False
    assert list(event) == ["job_id", "epoch", "seq", "prev", "kind", "at", "attempt", "data"]
    assert FlowInput.model_validate(flow).draw()
    assert Problem.model_validate(problem).errors


@pytest.mark.parametrize(
    "told",
    [
        f"`wait` (0–{MAX_WAIT_S} s)",
        f"`limit` (1–{events.MAX_EVENTS:,})",
        f"A comment every {sse.HEARTBEAT_S:.0f} s",
        f"retry: {sse.RECONNECT_MS}",
        f"at most {MAX_TOKEN_BYTES:,} characters",
        f"1–{MAX_NAME_CHARS} characters, no control characters",
        f"`TIDINGS_MAX_BODY_BYTES` ({Settings().max_body_bytes:,})",
        f"{listing.MAX_PAGE_BYTES // 2**20} MiB or after {listing.READ_AT_ONCE * listing.MAX_READS:,} jobs",
        f"{ACK_MAX_EVENTS:,} events or {ACK_MAX_BYTES // 1000} kB",
    ],
)
def test_bounds_are_the_codes_own(told: str) -> None:
    """Numbers that clients plan with."""
    assert told in " ".join(DOCUMENT.split("\n"))
