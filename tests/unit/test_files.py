"""Owned files: whole or absent, bounded, and never outside their directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidings.protocol.errors import PayloadTooLarge, UnsupportedMediaType
from tidings_tasks.files import FileStore, StoredFile, is_file_id, new_file_id

LIMIT_BYTES = 1_000


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """Give an empty store."""
    return FileStore(tmp_path / "files", max_file_bytes=LIMIT_BYTES)


def keep(store: FileStore, data: bytes = b"hello", name: str = "a.txt") -> StoredFile:
    """Store one file of ``ada`` at ``acme``."""
    with store.create("ada", "acme", name, "text/plain") as writer:
        writer.write(data)
    return writer.finish()


def leftovers(directory: Path) -> list[Path]:
    """List every regular file below ``directory``."""
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_written_file_is_found_with_all_that_was_said_of_it(store: FileStore) -> None:
    """Bytes, owner, org, size, digest and address come back as they went in."""
    with store.create("ada", None, "report.pdf", "application/pdf") as writer:
        writer.write(b"one ")
        writer.write(b"two")
    found = store.find(writer.finish().info.id)
    assert found is not None
    assert (found.owner, found.org, found.path.read_bytes()) == ("ada", None, b"one two")
    assert (found.info.name, found.info.media_type, found.info.size_bytes) == (
        "report.pdf",
        "application/pdf",
        7,
    )
    assert found.info.sha256 == hashlib.sha256(b"one two").hexdigest()
    assert found.info.url == f"/api/files/{found.info.id}"
    assert abs(found.info.created_at.timestamp() - time.time()) < 60


def test_files_outlive_the_store_object(store: FileStore, tmp_path: Path) -> None:
    """A restarted process finds what an earlier one kept, also when the directory was moved."""
    kept = keep(store)
    (tmp_path / "files").rename(tmp_path / "moved")
    found = FileStore(tmp_path / "moved", max_file_bytes=1).find(kept.info.id)
    assert found is not None
    assert found.path.read_bytes() == b"hello"


def test_finish_publishes_before_the_context_ends(store: FileStore) -> None:
    """A coroutine can finish on a thread; leaving the context then changes nothing."""
    with store.create("ada", None, "a", "text/plain") as writer:
        writer.write(b"x")
        stored = writer.finish()
        assert store.find(stored.info.id) == stored
    assert store.find(stored.info.id) == stored


def test_an_aborted_write_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    """An exception in the body removes what was written so far."""

    def stop_half_way() -> None:
        with store.create("ada", None, "a", "text/plain") as writer:
            writer.write(b"half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop_half_way()
    assert leftovers(tmp_path) == []
    assert list(store.incoming.iterdir()) == []


def test_exactly_the_limit_is_kept_and_one_byte_more_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    """The bound holds over the sum of the writes."""
    assert keep(store, b"x" * LIMIT_BYTES).info.size_bytes == LIMIT_BYTES
    before = leftovers(tmp_path)

    def write_too_much() -> None:
        with store.create("ada", None, "a", "text/plain") as writer:
            writer.write(b"x" * LIMIT_BYTES)
            writer.write(b"x")

    with pytest.raises(PayloadTooLarge, match="1,000"):
        write_too_much()
    assert leftovers(tmp_path) == before


def test_a_swallowed_refusal_still_publishes_nothing(store: FileStore, tmp_path: Path) -> None:
    """A caller who ignores the refused write cannot publish a file with a hole in it."""

    def ignore_the_refusal() -> None:
        with store.create("ada", None, "a", "text/plain") as writer:
            for chunk in (b"x" * (LIMIT_BYTES + 1), b""):
                with contextlib.suppress(PayloadTooLarge):
                    writer.write(chunk)

    with pytest.raises(PayloadTooLarge):
        ignore_the_refusal()
    assert leftovers(tmp_path) == []


def test_delete_removes_once_and_spares_open_readers(store: FileStore, tmp_path: Path) -> None:
    """A download under way is read to its end; the second delete says that there was nothing."""
    kept = keep(store, b"still readable")
    with kept.path.open("rb") as reader:
        assert store.delete(kept.info.id) is True
        assert store.find(kept.info.id) is None
        assert reader.read() == b"still readable"
    assert store.delete(kept.info.id) is False
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "file_id",
    [
        "",
        "../../etc/passwd",
        "..",
        "/etc/passwd",
        "A" * 25 + "/",
        "A" * 26 + "\n",
        "a" * 26,
        "A" * 27,
        "I" * 26,
        "A" * 25 + "\0",
    ],
)
def test_an_ill_formed_id_never_becomes_a_path(store: FileStore, tmp_path: Path, file_id: str) -> None:
    """Whatever is not 26 letters of Crockford's alphabet finds and deletes nothing."""
    outside = tmp_path / "info.json"
    outside.write_text("{}")
    assert store.find(file_id) is None
    assert store.delete(file_id) is False
    assert outside.exists()


def test_ids_are_ulids_that_sort_by_time() -> None:
    """26 letters, unlike each other, later ones greater."""
    first = new_file_id()
    deadline = time.monotonic() + 5
    while (later := new_file_id())[:10] == first[:10] and time.monotonic() < deadline:
        pass
    assert is_file_id(first)
    assert len({new_file_id() for _ in range(1_000)}) == 1_000
    assert first < later


@pytest.mark.parametrize(
    "media_type",
    ["", "text", "text/html\r\nX: 1", "text/plain; charset=utf-8; x=y", "text/" + "a" * 65, "*/*", "a/b/c"],
)
def test_a_media_type_that_could_bend_a_header_is_refused(
    store: FileStore, tmp_path: Path, media_type: str
) -> None:
    """Only type/subtype with at most a charset is kept."""
    with pytest.raises(UnsupportedMediaType):
        store.create("ada", None, "a", media_type)
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "media_type", ["text/CSV; charset=UTF-8", "image/svg+xml", "application/vnd.ms-excel"]
)
def test_ordinary_media_types_are_kept_in_lower_case(store: FileStore, media_type: str) -> None:
    """Case says nothing in a media type."""
    with store.create("ada", None, "a", media_type) as writer:
        pass
    assert writer.finish().info.media_type == media_type.lower()


def test_many_threads_write_delete_and_find_at_once(store: FileStore) -> None:
    """Two hundred files on eight threads: each whole, and each gone after its delete."""

    def one(number: int) -> bool:
        kept = keep(store, str(number).encode())
        found = store.find(kept.info.id)
        return (
            found is not None
            and found.path.read_bytes() == str(number).encode()
            and store.delete(kept.info.id)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(200)))


def test_what_a_killed_process_left_is_removed_a_day_later(store: FileStore, tmp_path: Path) -> None:
    """A half-written file is never found, stays while its writer may live, and does not stay for ever."""
    script = (
        "import os, signal, sys; from pathlib import Path; from tidings_tasks.files import FileStore\n"
        "store = FileStore(Path(sys.argv[1]), max_file_bytes=100)\n"
        "with store.create('ada', None, 'a', 'text/plain') as writer:\n"
        "    writer.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "files")], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    [half] = store.incoming.iterdir()
    assert store.find(half.name) is None
    FileStore(tmp_path / "files", max_file_bytes=1)
    assert half.exists()
    long_ago_s = time.time() - 2 * 86_400
    os.utime(half, (long_ago_s, long_ago_s))
    FileStore(tmp_path / "files", max_file_bytes=1)
    assert not half.exists()


def test_the_directory_is_for_its_owner_alone(store: FileStore) -> None:
    """Other users of the host cannot list or read files under way."""
    assert store.incoming.stat().st_mode & 0o077 == 0
