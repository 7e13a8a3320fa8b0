"""Wrong input: every refusal is a problem document that names the field and the fix, and nothing is created."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yarl

from tests.support.rest import Rest, bearer, make_settings, serve
from tidings.protocol.errors import Problem

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served
        _, stats = await served.call("GET", "/api/jobs/stats")
        assert stats["total"] == 0, "a refused request created a job"


def check_problem(answer: Any, problem: Any, status: int, code: str, field: str | None = None) -> None:
    """Check the document's form, and that it names the field and says something about it."""
    assert answer.status == status, problem
    assert answer.content_type == "application/problem+json"
    assert answer.headers["X-Request-ID"] == problem["request_id"]
    parsed = Problem.model_validate(problem)
    assert (parsed.status, parsed.code, parsed.type) == (status, code, f"/problems/{code}")
    if field is not None:
        assert field in [entry.field for entry in parsed.errors or ()], problem
        assert all(entry.message and entry.code for entry in parsed.errors or ())


def body(**fields: Any) -> dict[str, Any]:
    """A good body, changed."""
    return {"type": "test.rows", "input": {"rows": 1}} | fields


@pytest.mark.parametrize(
    ("sent", "code", "field"),
    [
        ({}, "invalid_input", "type"),
        ([], "invalid_input", "body"),
        ("text", "invalid_input", "body"),
        (None, "invalid_input", "body"),
        (body(type=5), "invalid_input", "type"),
        (body(type=""), "invalid_input", "type"),
        (body(type="a b"), "invalid_input", "type"),
        (body(type="x" * 129), "invalid_input", "type"),
        (body(type="test.row"), "unknown_job_type", "type"),
        (body(type="../../etc/passwd"), "invalid_input", "type"),
        (body(input=5), "invalid_input", "input"),
        (body(input=[]), "invalid_input", "input"),
        (body(input={}), "invalid_input", "input.rows"),
        (body(input={"rows": "many"}), "invalid_input", "input.rows"),
        (body(input={"rows": 0}), "invalid_input", "input.rows"),
        (body(input={"rows": 1001}), "invalid_input", "input.rows"),
        (body(input={"rows": 1, "colour": "red"}), "invalid_input", "input.colour"),
        (body(queue="nowhere"), "invalid_input", "queue"),
        (body(queue="a:{s1}"), "invalid_input", "queue"),
        (body(queue=5), "invalid_input", "queue"),
        (body(priority="3"), "invalid_input", "priority"),
        (body(priority=0), "invalid_input", "priority"),
        (body(priority=10), "invalid_input", "priority"),
        (body(priority=2.5), "invalid_input", "priority"),
        (body(priority=True), "invalid_input", "priority"),
        (body(delay_s=-1), "invalid_input", "delay_s"),
        (body(delay_s=1e12), "invalid_input", "delay_s"),
        (body(delay_s="5"), "invalid_input", "delay_s"),
        (body(run_at="tomorrow"), "invalid_input", "run_at"),
        (body(run_at="2026-01-01T00:00:00"), "invalid_input", "run_at"),
        (body(run_at=1_800_000_000), "invalid_input", "run_at"),
        (body(run_at="9999-12-31T23:59:59-14:00"), "invalid_input", "run_at"),
        (body(run_at=(datetime.now(UTC) + timedelta(days=400)).isoformat()), "invalid_input", "run_at"),
        (body(run_at="2027-01-01T00:00:00Z", delay_s=1), "invalid_input", "body"),
        (body(tags="x"), "invalid_input", "tags"),
        (body(tags=[""]), "invalid_input", "tags.0"),
        (body(tags=["ok", 5]), "invalid_input", "tags.1"),
        (body(tags=["x" * 65]), "invalid_input", "tags.0"),
        (body(tags=["a\nb"]), "invalid_input", "tags.0"),
        (body(tags=["x"] * 17), "invalid_input", "tags"),
        (body(metadata=[]), "invalid_input", "metadata"),
        (body(owner="bob"), "invalid_input", "owner"),
        (body(org="acme"), "invalid_input", "org"),
        (body(id="x"), "invalid_input", "id"),
        (body(colour="red"), "invalid_input", "colour"),
    ],
)
async def test_a_wrong_body_is_refused_by_field(rest: Rest, sent: Any, code: str, field: str) -> None:
    """422 with the field's path."""
    answer, problem = await rest.call("POST", "/api/jobs", data=orjson.dumps(sent), headers=JSON)
    check_problem(answer, problem, 422, code, field)


async def test_all_wrong_fields_are_told_at_once(rest: Rest) -> None:
    """One entry each, so that a form can mark them all."""
    _, problem = await rest.call("POST", "/api/jobs", json=body(priority="x", tags=5, colour=1))
    assert [entry["field"] for entry in problem["errors"]] == ["priority", "tags", "colour"]


async def test_a_near_miss_is_told_the_right_name(rest: Rest) -> None:
    """A typing error in a field or a type is answered with what was meant."""
    _, problem = await rest.call("POST", "/api/jobs", json=body(prioritty=1))
    assert "did you mean priority?" in problem["errors"][0]["message"]
    _, problem = await rest.call("POST", "/api/jobs", json=body(type="test.row"))
    assert "test.rows" in problem["detail"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"type": "test.rows",}',
        b"{'type': 'test.rows'}",
        b'{"type": "test.rows", "input": {"rows": NaN}}',
        b'{"type": "test.rows", "input": {"rows": Infinity}}',
        b'{"type": "test.rows", "metadata": {"x": 1e999}}',
        b'{"type": "test.rows", "metadata": {"x": "\\ud800"}}',
        b'{"type": "test.rows", "metadata": {"x": "\xff"}}',
        b'\xef\xbb\xbf{"type": "test.rows"}',
        '{"type": "test.rows"}'.encode("utf-16"),
        b'{"type": "test.rows", "input": {"rows": 123456789012345678901234567890}}',
        b'{"type": "test.rows", "input": {"rows": 1}, "metadata": {"x": 18446744073709551616}}',
        b'{"type": "test.rows", "input": {"rows": 1}, "metadata": {"x": [-9223372036854775809]}}',
        b'{"type": "test.rows", "input": {"rows": 1}, "metadata": {"x": 1' + b"0" * 5000 + b"}}",
        b"[" * 100_000,
        b'{"type": "test.rows", "metadata": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b'{"type": "test.rows", "input": {"rows": 1}, "metadata": {"x":' + b"[" * 500 + b"]" * 500 + b"}}",
    ],
    ids=range(20),
)
async def test_what_is_no_json_is_a_bad_request(rest: Rest, text: bytes) -> None:
    """400 that says where, for rubbish, bombs and numbers that would be bent."""
    answer, problem = await rest.call("POST", "/api/jobs", data=text, headers=JSON)
    check_problem(answer, problem, 400, "bad_request", "body")


async def test_numbers_of_64_bits_arrive_unbent(rest: Rest, key_prefix: str) -> None:
    """The largest integers that JSON parsers agree on are kept exactly; long digits in texts are nobody's business."""
    numbers = [2**64 - 1, -(2**63), 0.1, 1e300]
    sent = body(metadata={"n": numbers, "t": "9" * 40})
    answer, made = await rest.call("POST", "/api/jobs", data=orjson.dumps(sent), headers=JSON)
    assert answer.status == 202
    assert made["metadata"] == {"n": numbers, "t": "9" * 40}
    await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    await rest.call("DELETE", f"/api/jobs/{made['id']}")


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
        "application/json; charset=utf-16",
        "multipart/form-data",
    ],
)
async def test_json_must_be_declared(rest: Rest, media_type: str) -> None:
    """415 for anything else: a form of another site cannot post here."""
    answer, problem = await rest.call(
        "POST", "/api/jobs", data=orjson.dumps(body()), headers={"Content-Type": media_type}
    )
    check_problem(answer, problem, 415, "unsupported_media_type")


async def test_a_compressed_body_is_not_unpacked(rest: Rest) -> None:
    """No bomb can be sent."""
    answer, problem = await rest.call(
        "POST", "/api/jobs", data=b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"}
    )
    check_problem(answer, problem, 415, "unsupported_media_type")


async def test_a_body_over_the_bound_is_refused_with_the_bound(rest: Rest) -> None:
    """413, whether its length is declared or not."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield b" " * 65_536

    for data in (io.BytesIO(b" " * 2_000_000), chunks()):
        answer, problem = await rest.call("POST", "/api/jobs", data=data, headers=JSON)
        check_problem(answer, problem, 413, "payload_too_large")
        assert "1,048,576" in problem["detail"]


async def test_a_body_within_the_bound_is_taken(rest: Rest) -> None:
    """Just under the bound is fine."""
    answer, made = await rest.call("POST", "/api/jobs", json=body(metadata={"x": "y" * 1_000_000}))
    assert answer.status == 202
    await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    await rest.call("DELETE", f"/api/jobs/{made['id']}")


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "schlüssel"])
async def test_a_malformed_idempotency_key_is_refused(rest: Rest, key: str) -> None:
    """1 to 255 printable ASCII characters."""
    answer, problem = await rest.call("POST", "/api/jobs", json=body(), headers={"Idempotency-Key": key})
    check_problem(answer, problem, 422, "invalid_input", "Idempotency-Key")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/jobs?limit=0", "limit"),
        ("/api/jobs?limit=201", "limit"),
        ("/api/jobs?limit=ten", "limit"),
        ("/api/jobs?limit=1&limit=2", "limit"),
        ("/api/jobs?status=done", "status"),
        ("/api/jobs?status=queued,done", "status"),
        ("/api/jobs?stauts=queued", "stauts"),
        ("/api/jobs?cursor=x", "cursor"),
        ("/api/jobs?cursor=%00", "cursor"),
        ("/api/jobs?cursor=" + "A" * 200, "cursor"),
        ("/api/jobs?created_after=yesterday", "created_after"),
        ("/api/jobs?created_after=2026-01-01T00:00:00", "created_after"),
        ("/api/jobs?type=" + "x" * 129, "type"),
        ("/api/jobs/stats?x=1", "x"),
        ("/api/events?feed=theirs", "feed"),
        ("/api/events?after=bad", "after"),
        ("/api/events?wait=-1", "wait"),
        ("/api/events?limit=1001", "limit"),
    ],
)
async def test_a_wrong_query_is_refused_by_parameter(rest: Rest, path: str, field: str) -> None:
    """A misspelt filter must not list everything."""
    answer, problem = await rest.call("GET", path)
    check_problem(answer, problem, 422, "invalid_input", field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=", "after"),
        ("after=x", "after"),
        ("after=x:y", "after"),
        ("after=x:-1", "after"),
        ("after=x:1:2", "after"),
        ("after=x:01", "after"),
        ("after=x:99999999999999999", "after"),
        ("after=" + "x" * 40 + ":1", "after"),
        ("after=%00:1", "after"),
        ("after=1", "after"),
        ("wait=56", "wait"),
        ("wait=nan", "wait"),
        ("wait=inf", "wait"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("before=x:1", "before"),
    ],
)
async def test_a_bad_position_or_wait_is_refused(rest: Rest, query: str, field: str) -> None:
    """Before the job is looked at, so it says nothing about the job."""
    answer, problem = await rest.call("GET", f"/api/jobs/01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0/events?{query}")
    check_problem(answer, problem, 422, "invalid_input", field)


@pytest.mark.parametrize(
    "job_id",
    ["x", "01JD8Z5T6N8Q4W3E2R1T0Y9V8K", "01jd8z5t6n8q4w3e2r1t0y9v8ks0", "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks", "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks00",
     "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks-1", "%00", "..%2f..%2fetc", "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0%0A", "%F0%9F%92%A9", "x" * 3000],
)  # fmt: skip
async def test_a_malformed_id_is_not_found_and_said_to_be_malformed(rest: Rest, job_id: str) -> None:
    """404, since nothing can be there, with what an id looks like."""
    for method, suffix in (("GET", ""), ("GET", "/status"), ("POST", "/cancel"), ("DELETE", "")):
        url = yarl.URL(f"{rest.url}/api/jobs/{job_id}{suffix}", encoded=True)
        async with rest.session.request(method, url, headers=bearer()) as answer:
            problem = orjson.loads(await answer.read())
        check_problem(answer, problem, 404, "job_not_found", "id")


@pytest.mark.parametrize("sent", [{"reason": 5}, {"reason": "x" * 501}, {"why": "x"}, []])
async def test_a_wrong_cancellation_is_refused(rest: Rest, sent: Any) -> None:
    """The optional body is checked like any other."""
    made = await rest.submit()
    answer, problem = await rest.call("POST", f"/api/jobs/{made['id']}/cancel", json=sent)
    check_problem(answer, problem, 422, "invalid_input")
    await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    await rest.call("DELETE", f"/api/jobs/{made['id']}")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/nothing"), ("GET", "/nothing"), ("POST", "/api"), ("GET", "/static/none.js")],
)
async def test_an_unknown_path_is_a_problem_too(rest: Rest, method: str, path: str) -> None:
    """404, as JSON."""
    answer, problem = await rest.call(method, path)
    check_problem(answer, problem, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/api/jobs"), ("PATCH", "/api/jobs"), ("DELETE", "/health")]
)
async def test_a_wrong_method_names_the_right_ones(rest: Rest, method: str, path: str) -> None:
    """405 with ``Allow``."""
    answer, problem = await rest.call(method, path)
    check_problem(answer, problem, 405, "method_not_allowed")
    assert answer.headers["Allow"]
