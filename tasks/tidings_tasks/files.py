"""Owned files, the input and output of jobs, kept in a local directory.

A file is a directory ``<last two characters of the id>/<id>/`` with ``data`` and ``info.json``. It appears and
disappears by one rename of that directory, so a reader sees all of it or nothing. What a killed process left half
written stays in ``.incoming/`` and is removed a day later, when a store next opens the directory.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict

from tidings.protocol import FileInfo
from tidings.protocol.errors import PayloadTooLarge, UnsupportedMediaType

from .file_names import clean_name, content_disposition

__all__ = ["FileStore", "FileWriter", "StoredFile", "content_disposition", "is_file_id", "new_file_id"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FILE_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
# RFC 6838 restricted names; of all parameters only a charset, so that nothing else reaches a response header.
_MEDIA_TYPE = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}(; ?charset=[a-z0-9_-]{1,32})?"
)
_STALE_S = 86_400
_INCOMING = ".incoming"


def new_file_id() -> str:
    """Make an id: 48 bits of time in milliseconds and 80 random bits, in Crockford base 32 (a ULID)."""
    value = ((time.time_ns() // 1_000_000) << 80) | secrets.randbits(80)
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def is_file_id(text: object) -> bool:
    """Tell whether ``text`` has the form of a file id. It says nothing about the file's existence."""
    return isinstance(text, str) and _FILE_ID.fullmatch(text) is not None


class StoredFile(BaseModel):
    """A file that is whole: whose it is, what it is, and where its bytes are."""

    model_config = ConfigDict(frozen=True)

    owner: str
    org: str | None
    info: FileInfo
    path: Path


class _Record(BaseModel):
    """The sidecar ``info.json``. The path is not in it, so that the directory can be moved."""

    owner: str
    org: str | None
    info: FileInfo


class FileWriter:
    """Writes one new file; a context manager. Leaving it normally publishes the file, an exception discards it.

    One thread at a time may use a writer. A coroutine calls ``create``, ``write`` and ``finish`` through
    ``asyncio.to_thread``; what is then left for leaving the context costs nothing.
    """

    def __init__(self, store: FileStore, owner: str, org: str | None, name: str, media_type: str) -> None:
        self._store = store
        self._id = new_file_id()
        self._owner, self._org, self._name, self._media_type = owner, org, name, media_type
        self._size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._stored: StoredFile | None = None
        self._directory = store.incoming / self._id
        self._directory.mkdir()
        self._data = (self._directory / "data").open("xb")

    @property
    def id(self) -> str:
        """The id that the file has once it is published."""
        return self._id

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``.

        Raises:
            PayloadTooLarge: the file would exceed the store's ``max_file_bytes``; it will not be published.
        """
        self._size_bytes += len(chunk)
        self._refuse_too_large()
        self._data.write(chunk)
        self._sha256.update(chunk)

    def finish(self) -> StoredFile:
        """Publish the file, whole and on disk, and return it. A second call returns the same.

        Raises:
            PayloadTooLarge: a write was refused.
        """
        self._refuse_too_large()
        if self._stored is None:
            self._stored = self._publish()
        return self._stored

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._data.close()
            if self._stored is None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def _refuse_too_large(self) -> None:
        # What was refused counts too, so a caller that ignores a refusal cannot publish the rest.
        if self._size_bytes > self._store.max_file_bytes:
            raise PayloadTooLarge(f"a file may have at most {self._store.max_file_bytes:,} bytes")

    def _publish(self) -> StoredFile:
        self._data.flush()
        os.fsync(self._data.fileno())
        info = FileInfo(
            id=self._id,
            name=self._name,
            media_type=self._media_type,
            size_bytes=self._size_bytes,
            sha256=self._sha256.hexdigest(),
            created_at=datetime.now(UTC),
            url=f"/api/files/{self._id}",
        )
        record = _Record(owner=self._owner, org=self._org, info=info)
        with (self._directory / "info.json").open("xb") as sidecar:
            sidecar.write(record.model_dump_json().encode())
            sidecar.flush()
            os.fsync(sidecar.fileno())
        _sync_directory(self._directory)
        final = self._store.place_of(self._id)
        final.parent.mkdir(exist_ok=True)
        self._directory.rename(final)
        _sync_directory(final.parent)
        _sync_directory(final.parent.parent)
        return StoredFile(owner=self._owner, org=self._org, info=info, path=final / "data")


class FileStore:
    """Keeps owned files under one directory; safe for many threads and for many processes on one file system.

    Every call blocks on the disk: from a coroutine, use ``asyncio.to_thread``. The store knows whose a file is;
    who may read it is for the caller to decide.
    """

    def __init__(self, directory: Path, *, max_file_bytes: int) -> None:
        """Open ``directory``, making it where it is missing, for its owner's eyes only."""
        self.max_file_bytes = max_file_bytes
        self._directory = directory
        self.incoming = directory / _INCOMING
        self.incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._remove_stale()

    def create(self, owner: str, org: str | None, name: str, media_type: str) -> FileWriter:
        """Begin a new file. ``name`` and ``media_type`` are untrusted: the name is cleaned.

        Raises:
            UnsupportedMediaType: ``media_type`` is not of the form ``type/subtype[; charset=…]``.
        """
        media_type = media_type.strip().lower()
        if _MEDIA_TYPE.fullmatch(media_type) is None:
            raise UnsupportedMediaType("a media type must have the form type/subtype, with at most a charset")
        return FileWriter(self, owner, org, clean_name(name), media_type)

    def find(self, file_id: str) -> StoredFile | None:
        """Return the file, or None where there is none. ``file_id`` is untrusted."""
        if not is_file_id(file_id):
            return None
        place = self.place_of(file_id)
        try:
            record = _Record.model_validate_json((place / "info.json").read_bytes())
        except FileNotFoundError:
            return None
        return StoredFile(owner=record.owner, org=record.org, info=record.info, path=place / "data")

    def delete(self, file_id: str) -> bool:
        """Remove the file and tell whether there was one. ``file_id`` is untrusted.

        Whoever has it open keeps reading it to its end.
        """
        if not is_file_id(file_id):
            return False
        doomed = self.incoming / f"deleted-{file_id}-{secrets.token_hex(4)}"
        try:
            self.place_of(file_id).rename(doomed)
        except FileNotFoundError:
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def place_of(self, file_id: str) -> Path:
        """Return the directory of a file whose id is known to be well-formed."""
        return self._directory / file_id[-2:] / file_id

    def _remove_stale(self) -> None:
        oldest_s = time.time() - _STALE_S
        for entry in self.incoming.iterdir():
            try:
                stale = entry.stat().st_mtime < oldest_s
            except FileNotFoundError:
                continue  # its writer, in another process, has just published it
            if stale:
                shutil.rmtree(entry, ignore_errors=True)


def _sync_directory(directory: Path) -> None:
    """Make a rename or a new entry of ``directory`` survive a power cut (POSIX: fsync of the directory)."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
