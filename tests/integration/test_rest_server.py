"""The server around the calls: health, metrics, pages, CORS, request ids, limits, trouble, and a graceful end."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.rest import REGISTRY, Rest, bearer, make_settings, make_token, serve
from tests.support.sse import stream
from tests.support.timing import eventually, scaled
from tidings.protocol.errors import Problem
from tidings_server.app import run_server
from tidings_server.context import GATEWAY, RELAY, STREAMS
from tidings_server.pages import PAGE_POLICY
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import StoreMismatch


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_well_server_says_so(rest: Rest, prefix: str) -> None:
    """Alive at once, ready as soon as it hears its own canary."""
    assert (await rest.call("GET", f"{prefix}/health/live", token=None))[0].status == 200
    await eventually(lambda: rest.app[RELAY].is_hearing)
    for path in ("/health", "/health/ready"):
        answer, body = await rest.call("GET", prefix + path, token=None)
        assert (answer.status, body) == (200, {"status": "ok", "reasons": []})
        assert answer.headers["Cache-Control"] == "no-store"
    answer, body = await rest.call("GET", f"{prefix}/health/detailed", token=None)
    assert answer.status == 200
    assert body["store"]["mode"] == "standalone"
    assert body["store"]["latency_ms"] < 1000
    assert body["uptime_s"] > 0
    assert body["version"] == "0.1.0"


async def test_health_tells_no_secret(rest: Rest) -> None:
    """Neither the key nor the store's address."""
    _, body = await rest.call("GET", "/health/detailed", token=None)
    text = str(body)
    assert "secret" not in text
    assert "unix:" not in text
    assert "redis:" not in text


async def test_a_store_that_is_gone_is_told_and_comes_back(
    private_valkey: EmbeddedValkey, key_prefix: str, tmp_path: Path
) -> None:
    """503 with ``Retry-After`` meanwhile, not ready, alive; well again when the store is."""
    settings = make_settings(tmp_path / "data", key_prefix, store_timeout_s=1)
    async with serve(settings, private_valkey.url) as rest:
        await rest.submit()
        await asyncio.to_thread(private_valkey.kill)
        answer, problem = await rest.call("GET", "/api/jobs")
        assert (answer.status, problem["code"]) == (503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert private_valkey.url not in str(problem)
        answer, problem = await rest.call(
            "POST", "/api/jobs", json={"type": "test.rows", "input": {"rows": 1}}
        )
        assert (answer.status, problem["code"]) == (503, "store_unavailable")
        answer, body = await rest.call("GET", "/health/ready", token=None)
        assert (answer.status, "store_unavailable" in body["reasons"]) == (503, True)
        assert (await rest.call("GET", "/health/live", token=None))[0].status == 200
        private_valkey.start()

        async def ready() -> bool:
            return (await rest.call("GET", "/health/ready", token=None))[0].status == 200

        await eventually(ready, timeout_s=20)
        await rest.submit()


@pytest.mark.parametrize(
    ("offered", "kept"),
    [
        ("abcdefgh", True),
        ("A-b_c.1" * 9, True),
        ("short", False),
        ("x" * 65, False),
        ("has space", False),
        ("quote\"'<>", False),
    ],
)
async def test_a_well_formed_request_id_is_kept(rest: Rest, offered: str, kept: bool) -> None:
    """In the answer, whatever it is; otherwise a new one is made."""
    for path in ("/api/jobs", "/api/nothing", "/health", "/", "/static/none"):
        answer, _ = await rest.call("GET", path, headers={"X-Request-ID": offered})
        assert (answer.headers["X-Request-ID"] == offered) is kept
        assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", answer.headers["X-Request-ID"])
        assert answer.headers["Server"] == "tidings"


async def test_a_mistake_of_the_server_is_logged_and_told_to_nobody(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 without a word of what happened; the log has it, under the same id."""

    async def broken(command: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(rest.store, "run", broken)
    answer, problem = await rest.call("GET", "/api/jobs", headers={"X-Request-ID": "request-0001"})
    assert (answer.status, problem["code"], problem["request_id"]) == (500, "internal_error", "request-0001")
    assert "hunter2" not in str(problem)
    assert any(record.exc_info and "hunter2" in str(record.exc_info[1]) for record in caplog.records)


async def test_no_token_and_no_query_is_logged(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    """One line a request, with the path alone."""
    token = make_token()
    with caplog.at_level(logging.DEBUG):
        await rest.call("GET", f"/api/jobs?cursor={token}", token=token)
        await rest.call("GET", "/api/jobs", token=token[:-2])
    assert any("GET /api/jobs 4" in record.getMessage() for record in caplog.records)
    for record in caplog.records:
        assert token[:-2] not in record.getMessage() + str(vars(record))


async def test_probes_do_not_fill_the_log(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    """What asks every few seconds is logged when it is refused, or for debugging."""
    with caplog.at_level(logging.INFO):
        for path in ("/health/live", "/metrics", "/api/health/live"):
            await rest.call("GET", path, token=None)
        await rest.call("GET", "/metrics", token=None, headers={"Via": "x"})
    logged = [record.getMessage() for record in caplog.records if record.name == "tidings_server.monitoring"]
    assert logged == ["GET /metrics 403"]


async def test_metrics_are_for_this_machine_and_for_admins(rest: Rest) -> None:
    """A proxy's address is local, but whoever it speaks for is not."""
    await rest.submit()
    answer, text = await rest.call("GET", "/metrics", token=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'tidings_http_requests_total{method="POST",route="/api/jobs",status="202"} 1.0' in text
    assert b'tidings_submissions_total{outcome="created"} 1.0' in text
    assert b"tidings_relay_hearing" in text
    assert b"process_resident_memory_bytes" in text
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        answer, problem = await rest.call("GET", "/metrics", token=None, headers={name: "1.2.3.4"})
        assert (answer.status, problem["code"]) == (403, "forbidden")
    proxied = {"X-Forwarded-For": "1.2.3.4"}
    assert (await rest.call("GET", "/metrics", headers=proxied))[0].status == 403
    assert (await rest.call("GET", "/metrics", token="x.y.z", headers=proxied))[0].status == 401
    assert (await rest.call("GET", "/metrics", token=make_token(scope="admin"), headers=proxied))[
        0
    ].status == 200


async def test_metrics_are_public_where_the_settings_say_so(
    valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """For scrapers elsewhere, behind a network that is closed."""
    async with serve(make_settings(tmp_path, key_prefix, metrics_public=True), valkey_url) as rest:
        answer, _ = await rest.call("GET", "/metrics", token=None, headers={"X-Forwarded-For": "1.2.3.4"})
        assert answer.status == 200


async def test_labels_do_not_grow_with_what_callers_send(rest: Rest) -> None:
    """Unknown paths, ids and methods fall together."""
    for number in range(5):
        await rest.call("GET", f"/api/jobs/x{number}")
        await rest.call("GET", f"/nothing/{number}")
    for method in ("PROPFIND", "LOCK", "MKCOL"):
        await rest.call(method, "/api/jobs")
    _, text = await rest.call("GET", "/metrics", token=None)
    lines = [line for line in text.decode().splitlines() if line.startswith("tidings_http_requests_total")]
    assert {line.partition("{")[2].rpartition("}")[0] for line in lines} == {
        'method="GET",route="/api/jobs/{id}",status="404"',
        'method="GET",route="unmatched",status="404"',
        'method="other",route="unmatched",status="405"',
    }


async def test_submissions_are_limited_by_caller(valkey_url: str, key_prefix: str, tmp_path: Path) -> None:
    """A bucket of so many; then 429 with when to come back; others are not touched, and reading is free."""
    async with serve(make_settings(tmp_path, key_prefix, submissions_per_minute=3), valkey_url) as rest:
        body = {"type": "test.rows", "input": {"rows": 1}}
        left = []
        for _ in range(3):
            answer, made = await rest.call("POST", "/api/jobs", json=body)
            assert (answer.status, answer.headers["RateLimit-Limit"]) == (202, "3")
            left.append(answer.headers["RateLimit-Remaining"])
        assert left == ["2", "1", "0"]
        answer, problem = await rest.call("POST", "/api/jobs", json=body)
        assert (answer.status, problem["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["Retry-After"]) <= 20
        for method, path in (("POST", f"/api/jobs/{made['id']}/retry"), ("POST", "/api/files")):
            assert (await rest.call(method, path))[0].status == 429
        _, limit = await rest.call("GET", "/api/rate-limit")
        assert (limit["limit"], limit["remaining"]) == (3, 0)
        assert 0 < limit["reset_s"] <= 60
        assert (await rest.call("GET", "/api/jobs"))[0].status == 200
        assert (await rest.call("POST", "/api/jobs", json=body, token=make_token("bob")))[0].status == 202


ORIGIN = "https://app.example.com"


@pytest.fixture
async def open_to_one(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A server that one other site may call."""
    async with serve(make_settings(tmp_path, key_prefix, cors_origins=[ORIGIN]), valkey_url) as served:
        yield served


async def test_an_allowed_origin_may_ask_and_read(open_to_one: Rest) -> None:
    """Preflight and answer, also an error's."""
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    answer, _ = await open_to_one.call("OPTIONS", "/api/jobs/x", token=None, headers=asked)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    for name in ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID"):
        assert name in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for path, status in (("/api/jobs", 200), ("/api/nothing", 404), ("/health/live", 200)):
        answer, _ = await open_to_one.call("GET", path, headers={"Origin": ORIGIN})
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, ORIGIN)
        for name in ("ETag", "Location", "Retry-After", "X-Request-ID", "Idempotent-Replayed"):
            assert name in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
    made = await open_to_one.submit()
    status_answer, _ = await open_to_one.call(
        "GET", f"/api/jobs/{made['id']}/status", headers={"Origin": ORIGIN}
    )
    assert status_answer.headers["Vary"] == "Authorization, Accept, Origin"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", ORIGIN + ".evil.example", "http://app.example.com", ORIGIN.upper()],
)
async def test_another_origin_may_not(open_to_one: Rest, origin: str) -> None:
    """No header allows its pages to read anything."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for method, path, headers in (("OPTIONS", "/api/jobs", asked), ("GET", "/api/jobs", {"Origin": origin})):
        answer, _ = await open_to_one.call(method, path, headers=headers)
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]
        assert answer.headers["Vary"].endswith("Origin")


async def test_no_origin_is_allowed_unless_configured(rest: Rest) -> None:
    """The default lets no other site in."""
    answer, _ = await rest.call("GET", "/api/jobs", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


async def test_an_event_stream_can_be_read_by_an_allowed_origin(open_to_one: Rest) -> None:
    """The headers are there before the first event."""
    made = await open_to_one.submit()
    async with stream(open_to_one, f"/api/jobs/{made['id']}/events", Origin=ORIGIN) as sse:
        assert sse.response.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.fixture
async def site(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A server with pages of the test's own."""
    pages = tmp_path / "pages"
    (pages / "app").mkdir(parents=True)
    (pages / "index.html").write_text("<!doctype html>hello")
    (pages / "api-docs.html").write_text("<!doctype html>docs")
    (pages / "app" / "main.js").write_text("export {}")
    (pages / "odd.exe").write_text("no")
    (tmp_path / "secret.txt").write_text("secret")
    (pages / "link.txt").symlink_to(tmp_path / "secret.txt")
    async with serve(make_settings(tmp_path, key_prefix, static_dir=pages), valkey_url) as served:
        yield served


@pytest.mark.parametrize(
    ("path", "media_type", "text"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html>hello"),
        ("/api/docs", "text/html; charset=utf-8", b"<!doctype html>docs"),
        ("/static/app/main.js", "text/javascript; charset=utf-8", b"export {}"),
    ],
)
async def test_pages_are_served_and_let_nothing_else_run(
    site: Rest, path: str, media_type: str, text: bytes
) -> None:
    """With their type, the policy, and an ETag to ask again with."""
    answer, content = await site.call("GET", path, token=None)
    assert (answer.status, content) == (200, text)
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    same, _ = await site.call("GET", path, token=None, headers={"If-None-Match": answer.headers["ETag"]})
    assert same.status == 304
    head, _ = await site.call("HEAD", path, token=None)
    assert head.status == 200


@pytest.mark.parametrize(
    "path",
    ["/static/odd.exe", "/static/link.txt", "/static/app", "/static/", "/static/../secret.txt", "/static/..%2Fsecret.txt",
     "/static/%2e%2e/secret.txt", "/static//etc/passwd", "/static/%00", "/static/app%5C..%5C..%5Csecret.txt", "/static/" + "x" * 4000],
)  # fmt: skip
async def test_nothing_outside_the_pages_is_served(site: Rest, path: str) -> None:
    """No folder, no unknown type, no way out."""
    raw = await ask_raw(site.url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 404")
    assert b"secret" not in raw.partition(b"\r\n\r\n")[2]


async def ask_raw(url: str, request: bytes) -> bytes:
    """Send bytes that no client library would send, and read until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(scaled(10)):
            writer.write(request)
            await writer.drain()
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("line", "header", "status"),
    [
        ("GET /api/jobs?%ED%A0%80=1", b"", 422),
        ("GET /api/jobs?status=%FF%FE", b"", 422),
        ("GET /api/jobs?cursor=%ED%A0%80", b"", 422),
        ("GET /api/jobs/%ED%A0%80", b"", 404),
        ("GET /api/files/%FF", b"", 404),
        ("GET /static/%FF.js", b"", 404),
        ("GET /%FF", b"", 404),
        ("GET /api/jobs", b"X-Request-ID: \xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\r\n", 200),
        ("GET /api/jobs", b"Origin: https://\xff\r\n", 200),
        ("POST /api/jobs", b"Content-Type: \xff\r\nContent-Length: 0\r\n", 415),
        ("POST /api/jobs", b"Content-Type: application/json; charset=\xff\r\nContent-Length: 0\r\n", 415),
        ("POST /api/jobs", b"Idempotency-Key: \xff\r\nContent-Type: application/json\r\nContent-Length: 2\r\n", 422),
        ("GET /api/jobs/01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0/events", b"Accept: text/event-stream\r\nLast-Event-ID: \xff\r\n", 422),
        ("GET /api/jobs/01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0/status", b"If-None-Match: \xff\r\n", 404),
    ],
)  # fmt: skip
async def test_bytes_that_are_no_text_break_nothing(
    rest: Rest, line: str, header: bytes, status: int
) -> None:
    """Whatever stands in a path, a query or a header, the answer is a proper one."""
    head = (
        f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {bearer()['Authorization']}\r\n"
    )
    raw = await ask_raw(
        rest.url, head.encode() + header + b"\r\n" + (b"{}" if b"Length: 2" in header else b"")
    )
    answer, _, text = raw.partition(b"\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {status}".encode()), raw
    orjson.loads(text)


async def test_no_token_of_any_bytes_is_a_mistake_of_the_server(rest: Rest) -> None:
    """401 for each."""
    for token in (b"\xff", b"\xff.\xfe.\xfd", b"a.b.c\xff", b".." * 100):
        raw = await ask_raw(
            rest.url,
            b"GET /api/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
            + token
            + b"\r\n\r\n",
        )
        assert raw.startswith(b"HTTP/1.1 401"), raw


async def test_an_unreadable_request_is_not_quoted_in_the_log(
    rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    """It may hold a token."""
    with caplog.at_level(logging.DEBUG):
        await ask_raw(
            rest.url, b"GET / HTTP/1.1\r\nAuthorization: Bearer " + b"hunter2." * 3000 + b"\r\n\r\n"
        )
        await ask_raw(rest.url, b"GET / HTTP/1.1\r\nAuthorization Bearer hunter2\r\n\r\n")
    assert any("could not be read" in record.getMessage() for record in caplog.records)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"rubbish\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/jobs HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"GET /api/jobs HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"POST /api/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=range(7),
)
async def test_what_is_no_http_gets_a_problem_and_is_closed(rest: Rest, request_bytes: bytes) -> None:
    """Even there: 400 as JSON, with an id."""
    raw = await ask_raw(rest.url, request_bytes)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), head
    assert b"application/problem+json" in head
    assert b"X-Request-ID: " in head
    assert Problem.model_validate_json(body).code == "bad_request"


async def test_who_connects_and_says_nothing_is_sent_away(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is one who never ends the head of the first request; who has asked may idle longer."""
    monkeypatch.setattr("tidings_server.connection._FIRST_REQUEST_S", 0.2)
    for start in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        assert await ask_raw(rest.url, start) == b""
    host, port = rest.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(2):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(scaled(5)):
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.3)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", ["/health", "/api/jobs", "/api/openapi.json", "/"])
async def test_head_is_answered_where_get_is(rest: Rest, path: str) -> None:
    """With the headers and no body."""
    got, _ = await rest.call("GET", path)
    head, body = await rest.call("HEAD", path)
    assert (head.status, body) == (got.status, b"")


async def test_a_body_that_breaks_off_creates_nothing(rest: Rest) -> None:
    """Not even when what has arrived is good JSON already."""
    body = b'{"type": "test.rows", "input": {"rows": 1}}'
    head = (
        f"POST /api/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer()['Authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body) + 10}\r\n\r\n"
    )
    host, port = rest.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await rest.call("GET", "/health/live", token=None)
    assert (await rest.call("GET", "/api/jobs/stats"))[1]["total"] == 0


async def test_socket_io_is_served_beside_rest(rest: Rest) -> None:
    """The handshake answers on the same port, and its answers carry a request id too."""
    answer, body = await rest.call("GET", "/socket.io/?EIO=4&transport=polling", token=None)
    assert answer.status == 200
    assert body.startswith(b"0{")
    assert "X-Request-ID" in answer.headers


async def test_a_server_ends_gracefully(valkey_url: str, key_prefix: str, tmp_path: Path) -> None:
    """Open streams end, long-polls answer with what they have, and the port is free again."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = make_settings(tmp_path, key_prefix, port=port)
    stop, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        run_server(
            settings, store_url=valkey_url, registry=REGISTRY, stop=stop,
            ready=lambda host, port: bound.set_result((host, port)),
        )
    )  # fmt: skip
    assert await bound == ("127.0.0.1", port)
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession(headers=bearer()) as session:
        async with session.post(
            f"{url}/api/jobs", json={"type": "test.rows", "input": {"rows": 1}}
        ) as answer:
            made = await answer.json()
        events = f"{url}/api/jobs/{made['id']}/events"
        following = await session.get(events, headers={"Accept": "text/event-stream"})
        assert b"retry" in await following.content.readline()
        polling = asyncio.create_task(session.get(f"{events}?after={made['position']}&wait=50"))
        waiting = asyncio.create_task(session.get(f"{url}/api/jobs/{made['id']}/status?wait=50"))

        async def all_open() -> bool:
            async with session.get(f"{url}/health/detailed") as answer:
                return bool((await answer.json())["open_streams"] == 3)

        await eventually(all_open)
        began_at = time.monotonic()
        stop.set()
        text = await following.content.read()
        assert text.endswith(b"\n\n")
        assert orjson.loads(await (await polling).read())["events"] == []
        assert orjson.loads(await (await waiting).read())["status"] == "queued"
        await server
        assert time.monotonic() - began_at < scaled(5)
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_draining_server_is_not_ready_and_takes_no_streams(
    rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    """It still answers, and sends new streams elsewhere; a probe that hears so is no news for the log."""
    made = await rest.submit()
    await eventually(lambda: rest.app[RELAY].is_hearing)
    await rest.app.shutdown()
    with caplog.at_level(logging.INFO):
        answer, body = await rest.call("GET", "/health/ready", token=None)
    assert (answer.status, body["reasons"]) == (503, ["draining"])
    assert "/health/ready" not in caplog.text
    answer, problem = await rest.call("GET", f"/api/jobs/{made['id']}/status?wait=5")
    assert (answer.status, problem["code"]) == (503, "server_draining")
    assert (await rest.call("GET", f"/api/jobs/{made['id']}/status"))[0].status == 200
    assert len(rest.app[STREAMS]) == 0
    assert rest.app[GATEWAY].connections == 0


async def test_a_store_of_another_installation_is_refused_at_the_start(
    valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """The number of shards is fixed; nothing is served with another one."""
    async with serve(make_settings(tmp_path, key_prefix, shards=2), valkey_url) as rest:
        await rest.submit()
    settings = make_settings(tmp_path, key_prefix, shards=3, port=0)
    with pytest.raises(StoreMismatch):
        await run_server(settings, store_url=valkey_url, registry=REGISTRY, stop=asyncio.Event())


async def test_a_server_starts_without_its_store(key_prefix: str, tmp_path: Path) -> None:
    """It is alive and not ready, and waits for the store to come."""
    async with serve(
        make_settings(tmp_path, key_prefix, store_timeout_s=1), f"unix://{tmp_path}/none"
    ) as rest:
        assert (await rest.call("GET", "/health/live", token=None))[0].status == 200
        answer, body = await rest.call("GET", "/health", token=None)
        assert (answer.status, body["reasons"]) == (503, ["store_unavailable", "relay_deaf"])


async def test_an_address_in_use_is_an_error(valkey_url: str, key_prefix: str, tmp_path: Path) -> None:
    """And nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = make_settings(tmp_path, key_prefix, port=taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"):
            await run_server(settings, store_url=valkey_url, registry=REGISTRY, stop=asyncio.Event())
