"""The embedded store: private, locked, durable, and gone with its owner."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import redis

from tests.support.processes import is_running
from tests.support.timing import eventually_sync, scaled
from tidings_tasks.child_process import Tie, end_child, start_child
from tidings_tasks.embedded import MAX_SOCKET_PATH_BYTES, EmbeddedStoreError, EmbeddedValkey, StoreInUse


def client_of(server: EmbeddedValkey) -> redis.Redis:
    """Connect to a server."""
    return redis.Redis.from_url(server.url)


def test_only_its_user_can_reach_it(valkey_server: EmbeddedValkey) -> None:
    """There is no TCP port, and the data and the socket are in directories that no other user can enter."""
    assert stat.S_IMODE(valkey_server.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(valkey_server.socket_path.parent.stat().st_mode) == 0o700
    with client_of(valkey_server) as client:
        assert client.config_get("port") == {"port": "0"}
    assert valkey_server.pid is not None
    assert psutil.Process(valkey_server.pid).net_connections("tcp") == []


def test_acknowledged_data_survives_a_kill(private_valkey: EmbeddedValkey) -> None:
    """A write that was answered is there again when the store was killed and started again."""
    with client_of(private_valkey) as client:
        client.set("k", "v")
    private_valkey.kill()
    assert not private_valkey.is_ready()
    private_valkey.start()
    with client_of(private_valkey) as client:
        assert client.get("k") == b"v"


def test_data_survives_a_stop_and_another_owner(tmp_path: Path) -> None:
    """A second object on the same directory finds what the first one kept."""
    with EmbeddedValkey(tmp_path / "d") as server, client_of(server) as client:
        client.set("k", "v")
    assert server.pid is None
    with EmbeddedValkey(tmp_path / "d") as server, client_of(server) as client:
        assert client.get("k") == b"v"


def test_a_second_owner_is_refused(private_valkey: EmbeddedValkey) -> None:
    """Two stores on one directory would spoil the data; the message names the owner and the way out."""
    with pytest.raises(StoreInUse, match=f"process {os.getpid()}.*--data DIR"):
        EmbeddedValkey(private_valkey.data_dir).start()
    assert private_valkey.is_ready()


def test_a_path_that_is_too_long_for_a_socket_is_shortened(tmp_path: Path) -> None:
    """The data stays where it was asked for; the socket moves to a private directory with a short name."""
    deep = tmp_path / ("d" * MAX_SOCKET_PATH_BYTES) / "data"
    with EmbeddedValkey(deep) as server, client_of(server) as client:
        assert client.ping()
        assert len(os.fsencode(server.socket_path)) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
        assert (deep / "valkey" / "appendonlydir").is_dir()
    server.socket_path.parent.rmdir()


def test_a_socket_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    """A directory below the shared /tmp that someone has prepared is not trusted."""
    server = EmbeddedValkey(tmp_path / ("d" * MAX_SOCKET_PATH_BYTES))
    prepared = server.socket_path.parent
    prepared.mkdir(mode=0o700)
    prepared.chmod(0o755)
    try:
        with pytest.raises(EmbeddedStoreError, match="mode 0700"):
            server.start()
    finally:
        prepared.rmdir()


def test_a_data_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """The message names the directory, the reason and the fix."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedStoreError, match=r"file/data cannot be used: .*--data DIR"):
        EmbeddedValkey(tmp_path / "file" / "data").start()


def test_a_store_that_cannot_start_says_what_valkey_says(tmp_path: Path) -> None:
    """A spoilt append-only file ends the start with Valkey's own reason, and frees the directory."""
    server = EmbeddedValkey(tmp_path / "d")
    with server, client_of(server) as client:
        client.set("k", "v")
    (server.directory / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
    for _ in range(2):
        with pytest.raises(EmbeddedStoreError, match=r"(?i)manifest"):
            server.start()


OWNER = textwrap.dedent(
    """
    import subprocess, sys, signal
    from pathlib import Path
    from tidings_tasks.child_process import start_child
    from tidings_tasks.embedded import EmbeddedValkey

    if sys.argv[1] == "store":
        server = EmbeddedValkey(Path(sys.argv[2]))
        server.start()
        pid = server.pid
    else:
        pid = start_child([sys.executable, "-c", "import signal; signal.pause()"], tie=sys.argv[1]).pid
    print(pid, flush=True)
    signal.pause()
    """
)


@pytest.mark.parametrize("what", ["store", "kernel", "pipe"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_child_ends_with_its_parent(what: str, number: signal.Signals, tmp_path: Path) -> None:
    """Whatever signal ends the parent, kill -9 too, its child and the child's helpers are gone."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, what, str(tmp_path / "d")], stdout=subprocess.PIPE, process_group=0
    )
    with owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        tree = [child, *(p.pid for p in psutil.Process(child).children(recursive=True))]
        assert all(is_running(pid) for pid in tree)
        owner.send_signal(number)
        owner.wait(scaled(10))
    eventually_sync(lambda: not any(is_running(pid) for pid in tree))


def test_a_killed_owner_is_followed_at_once(tmp_path: Path) -> None:
    """The next owner of the directory does not trip over the store of one that was killed a moment ago."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, "store", str(tmp_path / "d")], stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        owner.kill()
    with EmbeddedValkey(tmp_path / "d") as server:
        assert server.is_ready()


@pytest.mark.parametrize("tie", ["kernel", "pipe"])
def test_a_child_keeps_its_exit_status(tie: Tie) -> None:
    """A tied child's exit status or deadly signal is seen as if it were started plainly."""
    child = start_child([sys.executable, "-c", "raise SystemExit(7)"], tie=tie)
    assert child.wait(scaled(10)) == 7
    child = start_child([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tie=tie)
    assert child.wait(scaled(10)) == -signal.SIGKILL


@pytest.mark.parametrize("tie", ["kernel", "pipe"])
def test_a_child_that_ignores_sigterm_is_killed(tie: Tie) -> None:
    """After the grace time the child is ended for certain."""
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\nwhile 1: signal.pause()"
    child = start_child([sys.executable, "-c", code], tie=tie, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert end_child(child, 0.05) == -signal.SIGKILL


def test_a_child_that_outlived_its_parent_never_starts() -> None:
    """Asked to serve a parent that is gone already, the tether ends without running the command."""
    from tidings_tasks import child_process

    argv = [
        sys.executable,
        "-I",
        "-S",
        child_process._TETHER,
        "kernel",
        "1",
        sys.executable,
        "-c",
        "print('ran')",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=scaled(10), check=False)
    assert (done.returncode, done.stdout) == (125, "")
