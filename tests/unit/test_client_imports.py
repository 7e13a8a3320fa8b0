"""What importing the client brings with it: nothing of the server's, and little of anything."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tidings

FORBIDDEN = {
    "redis",
    "valkey",
    "dramatiq",
    "jwt",
    "sqlalchemy",
    "aiohttp.web",
    "tidings_tasks",
    "tidings_server",
}


def modules_after(code: str) -> set[str]:
    """List what is imported in a fresh process that has run ``code``."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import tidings",
        "import tidings; tidings.Client('http://x', 't'); tidings.SyncClient",
        "import tidings.cli",
        "import tidings.cli; tidings.cli.main(['submit', '--help'])",
    ],
)
def test_the_client_imports_nothing_of_the_server_s(code: str) -> None:
    """Though it is installed here."""
    assert not modules_after(code) & FORBIDDEN


def test_the_protocol_alone_needs_no_network_library() -> None:
    """A worker imports it too."""
    assert not modules_after("import tidings.protocol") & {"aiohttp", "socketio", "rich", "typer"}


def test_every_public_name_is_there_and_listed() -> None:
    """What `__all__` promises can be had."""
    assert sorted(tidings.__all__) == dir(tidings)
    for name in tidings.__all__:
        assert getattr(tidings, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = tidings.nothing  # type: ignore[attr-defined]  # that is the point
