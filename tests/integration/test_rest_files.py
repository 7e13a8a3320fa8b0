"""Files over HTTP: taken in whole or not at all, given out as attachments."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings.protocol import FileInfo
from tidings_server.context import FILES

BOUND = 200_000


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own, with small files."""
    async with serve(make_settings(tmp_path, key_prefix, max_file_bytes=BOUND), valkey_url) as served:
        yield served


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """Counts what is kept on disk, finished or not."""
    return lambda: [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


async def upload(
    rest: Rest, content: bytes, name: str = "a.txt", media_type: str = "text/plain", part: str = "file"
) -> Any:
    """Send a file as browsers do."""
    form = aiohttp.FormData(quote_fields=False)
    form.add_field(part, content, filename=name, content_type=media_type)
    return await rest.call("POST", "/api/files", data=form)


async def test_an_uploaded_file_comes_back_as_it_went(rest: Rest) -> None:
    """Bytes, name, type, size and digest."""
    content = bytes(range(256)) * 500
    answer, body = await upload(rest, content, "Grüße.bin", "application/x-thing")
    assert answer.status == 201
    info = FileInfo.model_validate(body)
    assert (info.name, info.media_type, info.size_bytes) == ("Grüße.bin", "application/x-thing", len(content))
    assert info.sha256 == hashlib.sha256(content).hexdigest()
    assert answer.headers["Location"] == info.url
    got, downloaded = await rest.call("GET", info.url)
    assert (got.status, downloaded) == (200, content)
    assert got.headers["Content-Type"] == "application/x-thing"
    assert got.headers["Content-Disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe.bin" in got.headers["Content-Disposition"]
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Content-Security-Policy"].startswith("sandbox")
    assert got.headers["Cache-Control"] == "private, no-cache"


async def test_a_part_of_a_file_can_be_asked_for(rest: Rest) -> None:
    """Ranges, as a download that goes on needs them."""
    _, info = await upload(rest, b"0123456789")
    answer, content = await rest.call("GET", info["url"], headers={"Range": "bytes=2-5"})
    assert (answer.status, content, answer.headers["Content-Range"]) == (206, b"2345", "bytes 2-5/10")
    answer, _ = await rest.call("GET", info["url"], headers={"Range": "bytes=50-"})
    assert answer.status == 416


async def test_a_file_that_is_known_is_not_sent_again(rest: Rest) -> None:
    """Its ETag answers 304."""
    _, info = await upload(rest, b"x")
    first, _ = await rest.call("GET", info["url"])
    answer, content = await rest.call("GET", info["url"], headers={"If-None-Match": first.headers["ETag"]})
    assert (answer.status, content) == (304, b"")


async def test_html_cannot_run_here(rest: Rest) -> None:
    """An attachment, sandboxed, whatever it says it is."""
    _, info = await upload(rest, b"<script>alert(1)</script>", "x.html", "text/html")
    answer, _ = await rest.call("GET", info["url"])
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["Content-Security-Policy"]


async def test_a_hostile_name_is_cleaned(rest: Rest) -> None:
    """No folders, no header breaks."""
    _, info = await upload(rest, b"x", "../../etc/passwd%0D%0AX-Evil: 1\u202egnp.exe")
    answer, _ = await rest.call("GET", info["url"])
    assert "X-Evil" not in answer.headers
    assert "/" not in info["name"]


async def test_a_file_over_the_bound_is_refused_and_nothing_stays(rest: Rest, kept: Any) -> None:
    """413 that names the bound, with a declared length and without."""

    async def endless() -> AsyncIterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(10):
            yield b"x" * 65_536
        yield b"\r\n--B--\r\n"

    answer, problem = await upload(rest, b"x" * (BOUND + 1))
    assert (answer.status, problem["code"]) == (413, "payload_too_large")
    assert "200,000" in problem["detail"]
    answer, problem = await upload(rest, b"x" * (BOUND * 3))
    assert (answer.status, problem["code"]) == (413, "payload_too_large")
    answer, problem = await rest.call(
        "POST", "/api/files", data=endless(), headers={"Content-Type": "multipart/form-data; boundary=B"}
    )
    assert (answer.status, problem["code"]) == (413, "payload_too_large")
    assert kept() == []
    assert (await upload(rest, b"x" * BOUND))[0].status == 201


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b"{}", 415, "unsupported_media_type"),
        ("multipart/mixed; boundary=B", b"--B--\r\n", 415, "unsupported_media_type"),
        ("multipart/form-data", b"--B--\r\n", 400, "bad_request"),
        ("multipart/form-data; boundary=" + "B" * 71, b"x", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b"", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b"rubbish", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b"--B--\r\n", 422, "invalid_input"),
        ("multipart/form-data; boundary=B", b"--B\r\nrubbish\r\n\r\nx\r\n--B--\r\n", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b'--B\r\nContent-Disposition: form-data; name="\x16"\r\n\r\nx\r\n--B--\r\n', 400, "bad_request"),
        ("multipart/form-data; boundary=B", b"--B\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--B--\r\n", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b"--B\r\n" + b"X: y\r\n" * 1000 + b"\r\nx\r\n--B--\r\n", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx', 400, "bad_request"),
        ("multipart/form-data; boundary=B", b'--B\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--B--\r\n', 422, "invalid_input"),
        ("multipart/form-data; boundary=B", b"--B\r\nNo-Name: 1\r\n\r\nx\r\n--B--\r\n", 422, "invalid_input"),
        (
            "multipart/form-data; boundary=B",
            (
                b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'
                b'--B\r\nContent-Disposition: form-data; name="file"; filename="b"\r\n\r\ny\r\n--B--\r\n'
            ),
            422,
            "invalid_input",
        ),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C--\r\n--B--\r\n',
            422,
            "invalid_input",
        ),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: text/html; x=<y>\r\n\r\nx\r\n--B--\r\n',
            415,
            "unsupported_media_type",
        ),
    ],
)  # fmt: skip
async def test_a_malformed_upload_is_refused_and_nothing_stays(
    rest: Rest, kept: Any, content_type: str, body: bytes, status: int, code: str
) -> None:
    """Each with its problem."""
    answer, problem = await rest.call("POST", "/api/files", data=body, headers={"Content-Type": content_type})
    assert (answer.status, problem["code"]) == (status, code), problem
    assert kept() == []


async def test_a_name_that_is_no_text_is_cleaned_too(rest: Rest) -> None:
    """Bytes that no alphabet has are left out of the name; the content stays as it is, however it says it is encoded."""
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a\xff.txt"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\neA==\r\n--B--\r\n"
    )
    answer, info = await rest.call(
        "POST", "/api/files", data=body, headers={"Content-Type": "multipart/form-data; boundary=B"}
    )
    assert (answer.status, info["name"], info["size_bytes"]) == (201, "a.txt", 4)


@pytest.mark.parametrize("file_id", ["x", "..%2F..%2Fetc%2Fpasswd", "01JD8Z5T6N8Q4W3E2R1T0Y9V8K", "%00"])
async def test_a_file_that_is_not_there_is_not_found(rest: Rest, file_id: str) -> None:
    """404, whatever the id looks like."""
    answer, problem = await rest.call("GET", f"/api/files/{file_id}")
    assert (answer.status, problem["code"]) == (404, "file_not_found")


async def test_a_file_belongs_to_who_sent_it(rest: Rest) -> None:
    """Owner and org come from the token."""
    form = aiohttp.FormData()
    form.add_field("file", b"x", filename="a")
    _, info = await rest.call("POST", "/api/files", data=form, token=make_token("bob", org="acme"))
    stored = rest.app[FILES].find(info["id"])
    assert stored is not None
    assert (stored.owner, stored.org) == ("bob", "acme")
    assert stored.info.media_type == "application/octet-stream"
