"""The files that a job saves while it runs in memory: kept by the real file store, on a disk that is soon emptied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tidings.protocol import FileInfo

from ..files import FileStore, FileWriter

__all__ = ["AttemptFiles", "SavedFile"]


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that a job has saved: its description, as in the job's result, and what is in it."""

    info: FileInfo
    data: bytes

    @property
    def name(self) -> str:
        """The file's name."""
        return self.info.name

    @property
    def media_type(self) -> str:
        """Its type, such as ``text/csv``."""
        return self.info.media_type

    @property
    def text(self) -> str:
        """What is in it, as UTF-8."""
        return self.data.decode()


class AttemptFiles(FileStore):
    """The files of one attempt. Its directory is made when the first file is, and gone after ``take_all``."""

    def __init__(self, *, max_file_bytes: int) -> None:
        self.max_file_bytes = max_file_bytes
        self._writers: list[FileWriter] = []
        self._temporary: TemporaryDirectory[str] | None = None

    def create(self, owner: str, org: str | None, name: str, media_type: str) -> FileWriter:
        """Begin a new file; see ``FileStore.create``."""
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="tidings-test-")
            super().__init__(Path(self._temporary.name), max_file_bytes=self.max_file_bytes)
        writer = super().create(owner, org, name, media_type)
        self._writers.append(writer)
        return writer

    def take_all(self) -> list[SavedFile]:
        """Return the files that were saved whole, in order, and remove them."""
        found = []
        for writer in self._writers:
            stored = self.find(writer.id)
            if stored is not None:
                found.append(SavedFile(stored.info, stored.path.read_bytes()))
        self._writers.clear()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
        return found
