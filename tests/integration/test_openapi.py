"""The OpenAPI document: valid, complete, and true of the running server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.rest import Rest, make_settings, make_token, serve
from tests.support.timing import eventually
from tidings.protocol import errors
from tidings_server.api.routes import ROUTES, describe
from tidings_server.context import RELAY
from tidings_tasks.store import Verb

DOCUMENT = describe()
# Pages and the socket are no REST.
UNDOCUMENTED = {
    ("GET", "/"),
    ("GET", "/api/docs"),
    ("GET", "/static/{path}"),
    *((method, "/socket.io/") for method in ("GET", "POST", "OPTIONS")),
}


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """All operations of the document."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def check_schema(schema: Any, value: Any) -> None:
    """Check a value against a schema of the document."""
    validator_of(schema).validate(value)


def validator_of(schema: Any) -> Draft202012Validator:
    """A validator that finds the components that the schema refers to."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_the_document_is_valid() -> None:
    """By the validator that follows the specification."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()


async def test_every_route_is_documented_and_nothing_else_is(rest: Rest) -> None:
    """The router and the document name the same calls."""
    served = set()
    for route in rest.app.router.routes():
        assert route.resource is not None
        if route.method != "HEAD":
            served.add((route.method, re.sub(r":[^}]+", "", route.resource.canonical)))
    documented = {(method, path) for method, path, _ in operations()}
    assert served - documented == UNDOCUMENTED
    assert documented - served == set()


async def test_the_served_document_is_this_one(rest: Rest) -> None:
    """Without a token."""
    answer, body = await rest.call("GET", "/api/openapi.json", token=None)
    assert answer.status == 200
    assert body == DOCUMENT


def test_operation_ids_are_unique_and_every_call_is_explained() -> None:
    """A generated client needs the ids, a reader the words."""
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for method, path, operation in operations():
        assert operation["summary"], (method, path)
        assert set(operation["tags"]) <= tags


def test_every_guarded_call_tells_of_401_and_every_call_of_trouble() -> None:
    """With the problem's schema, its media type, and an example for each code."""
    for method, path, operation in operations():
        responses = operation["responses"]
        assert ("401" in responses) is (operation.get("security") != []), (method, path)
        assert {"400", "500", "503"} <= set(responses)
        for status, response in responses.items():
            if int(status) < 400 or "application/problem+json" not in response.get("content", {}):
                continue
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in content["examples"].items():
                check_schema(content["schema"], example["value"])
                assert (example["value"]["code"], example["value"]["status"]) == (code, int(status))


def test_every_code_that_an_error_has_is_documented_somewhere() -> None:
    """All wire errors of the contract's tree can be looked up; 405 and 415 alike."""
    documented = {
        code
        for _, _, operation in operations()
        for response in operation["responses"].values()
        for content in response.get("content", {}).values()
        for code in content.get("examples", {})
    }
    raised = {error.code for route in ROUTES for error in route.errors}
    assert raised <= documented
    assert {
        "unauthenticated",
        "token_expired",
        "job_not_found",
        "unknown_job_type",
        "invalid_input",
    } <= documented
    assert errors.TidingsError.code not in documented


def test_examples_of_bodies_and_answers_hold_to_their_schemas() -> None:
    """What is shown would be taken."""
    shown = 0
    for _, _, operation in operations():
        for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in holder.get("content", {}).values():
                if "example" in content:
                    check_schema(content["schema"], content["example"])
                    shown += 1
    assert shown >= 8


def answer_schema(method: str, path: str, status: int, media_type: str) -> Any:
    """The schema that the document promises for an answer."""
    response = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]
    return response["content"][media_type]["schema"]


async def test_real_answers_hold_to_the_document(rest: Rest) -> None:
    """Each call of a job's life answers what the document says."""
    await eventually(lambda: rest.app[RELAY].is_hearing)
    made = await rest.submit(tags=["t"], metadata={"m": 1})
    failing = await rest.submit(queue="critical")
    claim = await rest.claim("critical")
    await rest.write(
        claim, (Verb.PROGRESS, {"percent": 5.0}), (Verb.FAIL, {"code": "c", "type": "T", "message": "m"})
    )
    running = await rest.claim()
    await rest.write(running, (Verb.PROGRESS, {"percent": 10.0, "message": None}))
    job = f"/api/jobs/{made['id']}"
    calls = [
        ("GET", "/api/jobs", 200), ("GET", "/api/jobs/stats", 200), ("GET", "/api/job-types", 200),
        ("GET", "/api/rate-limit", 200), ("GET", job, 200), ("GET", f"{job}/status", 200),
        ("GET", f"{job}/events", 200), ("GET", f"{job}/events?after=zz:1", 200), ("GET", f"{job}/result", 409),
        ("GET", "/api/events", 200), ("GET", "/api/events?feed=org", 403), ("DELETE", job, 409),
        ("POST", f"{job}/retry", 409), ("POST", f"{job}/cancel", 202),
        ("POST", f"/api/jobs/{failing['id']}/retry", 202), ("GET", f"/api/jobs/{failing['id']}", 200),
        ("GET", "/health", 200), ("GET", "/health/live", 200), ("GET", "/health/ready", 200),
        ("GET", "/api/health/detailed", 200), ("GET", "/api/jobs?limit=0", 422), ("POST", "/api/jobs", 415),
    ]  # fmt: skip
    for method, place, status in calls:
        answer, body = await rest.call(method, place)
        assert answer.status == status, (method, place, body)
        path = re.sub(r"/jobs/[0-9A-Z]{26}s0", "/jobs/{id}", place.partition("?")[0])
        check_schema(answer_schema(method, path, status, answer.content_type), body)
    await rest.write(running, (Verb.COMPLETE, {"a": 1}), first=2)
    _, after = await rest.call(
        "GET", "/api/events?after=" + (await rest.call("GET", "/api/events"))[1]["position"]
    )
    check_schema(answer_schema("GET", "/api/events", 200, "application/json"), after)


async def test_what_the_document_allows_in_a_body_is_what_the_server_takes(rest: Rest) -> None:
    """The body's schema refuses what the server refuses, and takes what it takes."""
    schema = DOCUMENT["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = validator_of(schema)
    base = {"type": "test.rows", "input": {"rows": 1}}
    for change, is_good in (
        ({}, True), ({"priority": 9}, True), ({"priority": 10}, False), ({"priority": "1"}, False),
        ({"tags": ["a"] * 16}, True), ({"tags": ["a"] * 17}, False), ({"queue": "a b"}, False),
        ({"delay_s": 0}, True), ({"delay_s": -1}, False), ({"colour": 1}, False), ({"input": []}, False),
    ):  # fmt: skip
        assert validator.is_valid(base | change) is is_good, change
        answer, _ = await rest.call("POST", "/api/jobs", json=base | change, token=make_token("schema"))
        assert (answer.status == 202) is is_good, change
