"""Problem documents: status, headers and words for each error."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tidings.protocol.errors import (
    FieldError,
    Forbidden,
    InvalidInput,
    Problem,
    RateLimited,
    StoreUnavailable,
    TidingsError,
    TokenExpired,
    error_from_problem,
)
from tidings_server.auth import TokenMissing
from tidings_server.problems import problem_response
from tidings_server.request_ids import choose_request_id


def wire_errors(root: type[TidingsError] = TidingsError) -> Iterator[type[TidingsError]]:
    """All errors that have a status."""
    for kind in root.__subclasses__():
        if 400 <= kind.status < 600 and kind.__module__ == "tidings.protocol.errors":
            yield kind
        yield from wire_errors(kind)


@pytest.mark.parametrize("kind", sorted(set(wire_errors()), key=lambda kind: kind.code))
def test_every_error_makes_a_problem_that_a_client_reads_back(kind: type[TidingsError]) -> None:
    """Type, title, status, detail and code are there, and lead to the same error again."""
    response = problem_response(kind("what happened"), "request-1")
    assert response.status == kind.status
    assert response.content_type == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert isinstance(response.body, bytes)
    problem = Problem.model_validate_json(response.body)
    assert (problem.type, problem.request_id, problem.detail) == (
        f"/problems/{kind.code}",
        "request-1",
        "what happened",
    )
    found = error_from_problem(orjson.loads(response.body), status=kind.status)
    assert isinstance(found, kind)
    assert found.code == kind.code


def test_a_temporary_error_says_when_to_come_back() -> None:
    """In whole seconds, at least one, rounded up."""
    for given, told in ((None, "1"), (0.0, "1"), (0.2, "1"), (2.1, "3"), (60, "60")):
        assert problem_response(StoreUnavailable(retry_after_s=given), "r").headers["Retry-After"] == told
    assert "Retry-After" in problem_response(RateLimited(), "r").headers
    assert "Retry-After" not in problem_response(InvalidInput(), "r").headers


def test_401_and_403_tell_clients_what_to_do() -> None:
    """In the words of RFC 6750, which allows no quotes in a description."""
    header = problem_response(TokenExpired('the "token" \\ of Zoë\r\nhas expired'), "r").headers[
        "WWW-Authenticate"
    ]
    assert header.startswith('Bearer realm="tidings", error="invalid_token", error_description="')
    assert header.count('"') == 6
    assert header.isascii()
    assert "\n" not in header
    assert problem_response(TokenMissing(), "r").headers["WWW-Authenticate"] == 'Bearer realm="tidings"'
    assert "insufficient_scope" in problem_response(Forbidden(), "r").headers["WWW-Authenticate"]


def test_field_errors_are_listed() -> None:
    """One entry each; without any, the member is left out."""
    entry = FieldError(field="input.rows", code="missing", message="This field is required")
    body = problem_response(InvalidInput(errors=[entry]), "r").body
    assert isinstance(body, bytes)
    assert orjson.loads(body)["errors"] == [entry.model_dump()]
    body = problem_response(InvalidInput(), "r").body
    assert isinstance(body, bytes)
    assert "errors" not in orjson.loads(body)


@pytest.mark.parametrize("offered", ["abcdefgh", "0" * 64, "A.b_c-9."])
def test_a_well_formed_request_id_is_taken(offered: str) -> None:
    """8 to 64 harmless characters."""
    assert choose_request_id(offered) == offered


@pytest.mark.parametrize("offered", [None, "", "short", "x" * 65, "a b c d e", "abcdefgh\n", "äbcdefgh"])
def test_any_other_is_replaced(offered: str | None) -> None:
    """By a random one, new each time."""
    made = {choose_request_id(offered) for _ in range(3)}
    assert offered not in made
    assert len(made) == 3
