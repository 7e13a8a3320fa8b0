"""The container files, without building anything: what they name exists, nothing in them is secret or too powerful."""

from __future__ import annotations

import http.server
import importlib.metadata
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.stack import clean_environ
from tidings_tasks.settings import BARE_NAMES, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile.socket", "Dockerfile.worker")
SETTINGS = set(BARE_NAMES) | {f"TIDINGS_{name.upper()}" for name in Settings.model_fields}
NEVER_INLINE = re.compile(r"SECRET|PASSWORD|TOKEN|REDIS_URL|_KEY")


def instructions(name: str) -> list[tuple[str, str]]:
    """Read a Dockerfile as (instruction, rest), its continued lines joined and its comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def runtime(name: str) -> list[tuple[str, str]]:
    """Return the instructions of the last stage."""
    found = instructions(name)
    last = max(place for place, (instruction, _) in enumerate(found) if instruction == "FROM")
    return found[last:]


def environment(name: str) -> dict[str, str]:
    """Return what the last stage sets."""
    text = " ".join(rest for instruction, rest in runtime(name) if instruction == "ENV")
    return dict(re.findall(r"(\w+)=(\S+)", text))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Read the compose file, its anchors merged."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_one_command_as_nobody_in_particular(name: str) -> None:
    """Exec form, so that SIGTERM arrives; a numeric user, so that Kubernetes can tell it is not root."""
    stage = dict(runtime(name))
    assert json.loads(stage["ENTRYPOINT"]) == ["tidings", "server" if name.endswith("socket") else "worker"]
    assert stage["USER"] == "10001:10001"
    assert "CMD" in stage["HEALTHCHECK"]
    kinds = [instruction for instruction, _ in runtime(name)]
    assert all(kinds.index("USER") > place for place, kind in enumerate(kinds) if kind in ("RUN", "COPY"))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_carries_settings_that_exist_and_no_secret(name: str) -> None:
    """Each variable is Python's, the path, or in the table of settings."""
    named = environment(name)
    own = {variable for variable in named if not variable.startswith("PYTHON") and variable != "PATH"}
    assert own <= SETTINGS
    assert not any(NEVER_INLINE.search(variable) for variable in named)
    assert named["PYTHONUNBUFFERED"] == "1"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_built_from_what_is_there_and_let_through(name: str) -> None:
    """Every source exists and is not ignored; nothing is copied as a whole; no feature that plain builders lack."""
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    for instruction, rest in instructions(name):
        if instruction == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in allowed, source
        assert instruction != "ADD"
        assert "<<" not in rest
        assert "--link" not in rest
    assert allowed <= {source for _, rest in instructions(name) for source in rest.split()}


def test_both_images_are_made_alike() -> None:
    """The builders differ in the extra they install, in nothing else."""
    builders = [[line for line in instructions(name) if line not in runtime(name)] for name in DOCKERFILES]
    assert str(builders[0]).replace("[server]", "[worker]") == str(builders[1])


def test_every_dependency_is_pinned() -> None:
    """The constraints name each package that the extras reach, and the one that builds the wheel."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert len(pins) == len({canonicalize_name(name) for name in pins})
    pinned = {canonicalize_name(name) for name in pins}
    reached: set[str] = set()
    assert "hatchling" in pinned
    waiting = [Requirement("tidings[all,test]")]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if f"{name}{sorted(wanted.extras)}" in reached:
            continue
        reached.add(f"{name}{sorted(wanted.extras)}")
        if name != "tidings":
            assert name in pinned, f"{name} is not pinned"
        for text in importlib.metadata.requires(name) or ():
            found = Requirement(text)
            extras = wanted.extras or {""}
            if found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(found)
    assert len(reached) > 40
    assert "://" not in "".join(lines)


@pytest.mark.parametrize("service", ["valkey", "server", "worker"])
def test_a_service_can_do_little_beside_its_work(compose: dict[str, Any], service: str) -> None:
    """Read-only root, no capabilities, no new privileges, bounded memory and logs, and a restart."""
    found = compose["services"][service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["restart"] == "unless-stopped"
    assert found["mem_limit"]
    assert found["logging"]["options"]["max-size"]
    assert "privileged" not in found
    assert "store" in found["networks"]


def test_secrets_come_from_outside_and_must_be_given(compose: dict[str, Any]) -> None:
    """No secret has a value or a default here; without it compose says what to do."""
    seen = 0
    for service in compose["services"].values():
        for variable, value in service["environment"].items():
            if NEVER_INLINE.search(variable):
                seen += 1
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), variable
    assert seen == 4
    assert compose["networks"]["store"] == {"internal": True}
    assert "ports" not in compose["services"]["valkey"]


def test_the_services_settings_exist(compose: dict[str, Any]) -> None:
    """Server and worker set nothing that is not in the table of settings, and wait for a healthy store."""
    for name in ("server", "worker"):
        service = compose["services"][name]
        assert set(service["environment"]) <= SETTINGS
        assert service["depends_on"] == {"valkey": {"condition": "service_healthy"}}
        assert (ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    # Files are written by one and served by the other.
    assert (
        compose["services"]["server"]["volumes"]
        == compose["services"]["worker"]["volumes"]
        == ["files:/data"]
    )


class _Answers(http.server.BaseHTTPRequestHandler):
    """Lives at ``/health/live``, with the status that the server was given."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.server.status if self.path == "/health/live" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def answering() -> Iterator[http.server.ThreadingHTTPServer]:
    """Run a server whose ``status`` the test sets."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.status = 200  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def check_health(*arguments: str, **variables: str) -> int:
    """Run the health check as the container does and return its status."""
    command = [sys.executable, str(ROOT / "deploy/healthcheck.py"), *arguments]
    environ = clean_environ(http_proxy="http://127.0.0.1:9", **variables)
    ended = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr
    return ended.returncode


def test_the_health_check_asks_the_port_that_the_process_uses(
    answering: http.server.ThreadingHTTPServer,
) -> None:
    """The first variable that is set wins, else the default; a proxy is not asked."""
    port = str(answering.server_address[1])
    assert check_health(port, "TIDINGS_PORT", "PORT") == 0
    assert check_health("9", "TIDINGS_PORT", "PORT", PORT=port) == 0
    assert check_health("9", "TIDINGS_PORT", "PORT", TIDINGS_PORT=port, PORT="9") == 0
    assert check_health(port, "PORT", PORT="9") == 1


def test_the_health_check_fails_on_any_other_answer(answering: http.server.ThreadingHTTPServer) -> None:
    """An error status is not alive, and neither is a port that is no number."""
    answering.status = 503  # type: ignore[attr-defined]
    assert check_health(str(answering.server_address[1])) == 1
    assert check_health("no-port") == 1
