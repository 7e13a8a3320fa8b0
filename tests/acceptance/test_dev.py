"""``tidings dev`` and the commands beside it, as someone at a terminal meets them."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jwt
import pytest

from tests.support.stack import LiveStack, clean_environ
from tests.support.timing import eventually_sync, scaled
from tidings_tasks.embedded import EmbeddedValkey

pytestmark = pytest.mark.acceptance

SECRET = "a-secret-for-tests-of-more-than-32-characters"


def run(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a ``tidings`` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tidings", *words],
        env=clean_environ(**environ), cwd=cwd, capture_output=True, text=True, timeout=scaled(60), check=False,
    )  # fmt: skip


def refusal(*words: str, cwd: Path, **environ: str) -> str:
    """Run a command that must end with status 2 and a message without a traceback, and return that."""
    done = run(*words, cwd=cwd, **environ)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def get(url: str, token: str | None = None) -> Any:
    """Read a URL: JSON, or the text of a page."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(url, headers=headers), timeout=scaled(10)) as answer:
        text = answer.read().decode()
    return json.loads(text) if "json" in answer.headers["Content-Type"] else text


def post(stack: LiveStack, path: str, body: Any) -> Any:
    """Send JSON as alice, and return the answer's."""
    headers = {"Authorization": f"Bearer {stack.token()}", "Content-Type": "application/json"}
    request = Request(stack.url + path, json.dumps(body).encode(), headers)
    with urlopen(request, timeout=scaled(10)) as answer:
        return json.load(answer)


@contextmanager
def dev(cwd: Path, *words: str, **environ: str) -> Iterator[str]:
    """Run ``tidings dev`` as a person does, and give what it prints until it is ready."""
    with subprocess.Popen(
        [sys.executable, "-m", "tidings", "dev", *words],
        env=clean_environ(**environ), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            printed = ""
            for line in process.stdout:
                printed += line
                if "`tidings token`" in line:
                    break
            assert "Token:" in printed, process.communicate()
            yield printed
        finally:
            process.terminate()
            process.communicate(timeout=scaled(30))
    assert process.returncode == 0


def find(pattern: str, text: str) -> str:
    """Return the first group of a pattern that must be in the text."""
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_dev_prints_a_page_and_a_token_that_work(tmp_path: Path) -> None:
    """With nothing configured: a page's URL, and a token that the API takes, also after a restart."""
    port = free_port()
    with dev(tmp_path, PORT=str(port)) as printed:
        url = find(r"Page:  (http://127\.0\.0\.1:\d+)/#token=", printed)
        token = find(r"Token: (\S+)", printed)
        assert f"/#token={token}\n" in printed
        assert url.endswith(f":{port}")
        assert "<html" in get(f"{url}/").lower()
        assert get(f"{url}/api/jobs", token) == {"jobs": [], "next_cursor": None}
        names = {entry["type"] for entry in get(f"{url}/api/job-types", token)["job_types"]}
        assert {"demo.steps", "report.render"} <= names
        made = run("token", "--sub", "bob", cwd=tmp_path).stdout.strip()
        assert get(f"{url}/api/jobs", made)["jobs"] == []
    secret = tmp_path / ".tidings" / "jwt-secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with dev(tmp_path, "--port", "0", PORT=str(port)) as printed:
        again = find(r"Page:  (http://127\.0\.0\.1:\d+)/#token=", printed)
        assert again != url
        assert get(f"{again}/api/jobs", token)["jobs"] == []


def test_dev_uses_the_secret_that_is_set(live_stack: LiveStack) -> None:
    """With JWT_SECRET no secret is made, and it shows in no line."""
    assert not (live_stack.data_dir / "jwt-secret").exists()
    assert get(f"{live_stack.url}/api/jobs", live_stack.token(sub="nobody-yet"))["jobs"] == []
    ready = live_stack.page.partition("#token=")[2]
    assert jwt.decode(ready, live_stack.secret, ["HS256"])["sub"] == "dev"
    with pytest.raises(HTTPError, match="401"):
        get(f"{live_stack.url}/api/jobs", live_stack.token()[:-2])
    assert live_stack.secret not in "\n".join([*live_stack.output, json.dumps(live_stack.events)])


def test_a_port_in_use_is_refused_with_the_fix(tmp_path: Path) -> None:
    """Nothing is started, and the message says how to go on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        for command in (["dev"], ["server"]):
            message = refusal(
                *command, "--port", port, cwd=tmp_path, TIDINGS_ENV="development", JWT_SECRET=SECRET
            )
            assert f"port {port} on 127.0.0.1 is in use" in message
            assert "--port N" in message
    assert not (tmp_path / ".tidings" / "valkey").exists()


def test_two_on_one_data_directory_are_refused(live_stack: LiveStack, tmp_path: Path) -> None:
    """The second one is told who has the directory, and the first one goes on."""
    message = refusal("dev", "--port", "0", "--data", str(live_stack.data_dir), cwd=tmp_path)
    assert f"in use by process {live_stack.process.pid}" in message
    assert "--data DIR" in message
    assert get(f"{live_stack.url}/health/ready")


def test_dev_refuses_production(tmp_path: Path) -> None:
    """Its embedded store and its own secret are not for that."""
    assert "tidings server" in refusal("dev", cwd=tmp_path, TIDINGS_ENV="production")


@pytest.mark.parametrize("command", ["server", "worker"])
def test_production_without_a_store_is_refused(command: str, tmp_path: Path) -> None:
    """A missing REDIS_URL is an error in production, which is what nothing set means."""
    message = refusal(command, cwd=tmp_path, JWT_SECRET=SECRET, TIDINGS_JOBS="tidings_tasks.demo", PORT="0")
    assert "REDIS_URL" in message
    assert "redis://" in message
    assert "TIDINGS_ENV=development" in message
    assert not (tmp_path / ".tidings").exists()


def test_a_server_without_a_secret_is_refused(tmp_path: Path) -> None:
    """There is no default secret outside `tidings dev`."""
    message = refusal("server", cwd=tmp_path, REDIS_URL="redis://127.0.0.1:1", PORT="0")
    assert "JWT_SECRET" in message
    assert "token_urlsafe" in message


def test_development_without_a_store_embeds_one_and_says_so(tmp_path: Path) -> None:
    """`tidings server` and `tidings worker` share one embedded store; the first runs it, the second joins."""
    environ = clean_environ(
        TIDINGS_ENV="development", JWT_SECRET=SECRET, TIDINGS_JOBS="tidings_tasks.demo", PORT="0",
        TIDINGS_LOG_FORMAT="text",
    )  # fmt: skip
    with contextmanager(_logging_until)("server", environ, tmp_path, "listening") as first:
        assert "REDIS_URL is not set: running an embedded store" in first
        assert "not for production" in first
        with contextmanager(_logging_until)("worker", environ, tmp_path, "serves") as second:
            assert "REDIS_URL is not set: using the embedded store that process" in second
    with EmbeddedValkey(tmp_path / ".tidings") as released:
        assert released.is_ready()


def _logging_until(command: str, environ: dict[str, str], cwd: Path, word: str) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tidings", command], env=environ, cwd=cwd, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        logged = ""
        for line in process.stderr:
            logged += line
            if word in line:
                break
        try:
            yield logged
        finally:
            process.terminate()
            process.communicate(timeout=scaled(20))
    assert process.returncode == 0, logged


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TIDINGS_PROT": "1"}, "TIDINGS_PROT: unknown setting; did you mean TIDINGS_PORT?"),
        ({"PORT": "many"}, "PORT: "),
        ({"JWT_SECRET": "hunter2"}, "JWT_SECRET: must have at least 32 characters"),
        ({"TIDINGS_JOBS": "not.there"}, "not.there: there is no module 'not'"),
    ],
)
@pytest.mark.parametrize("command", ["dev", "server", "worker"])
def test_wrong_settings_are_explained(
    command: str, environ: dict[str, str], expected: str, tmp_path: Path
) -> None:
    """Every command names the variable, the reason and the fix, and shows no value of a secret."""
    options = ["--port", "0"] if command == "dev" and "PORT" not in environ else []
    base = {"TIDINGS_ENV": "development", "JWT_SECRET": SECRET}
    message = refusal(command, *options, cwd=tmp_path, **(base | environ))
    assert expected in message
    assert "hunter2" not in message


JOBS = textwrap.dedent(
    """
    from tidings_tasks import JobContext, job

    @job("shop.{name}")
    async def run(ctx: JobContext) -> str:
        return "{answer}"
    """
)


def test_dev_reloads_changed_job_code(tmp_path: Path) -> None:
    """An edit takes effect in server and worker; one that does not import is told, and the old code goes on."""
    module = tmp_path / "shop_jobs.py"
    module.write_text(JOBS.format(name="first", answer="one"))
    stack = LiveStack(tmp_path / "data", modules=["shop_jobs"], cwd=tmp_path)
    stack.start()
    try:
        assert _answer(stack, "shop.first") == "one"

        since = stack.mark()
        module.write_text("this is no Python")
        assert "SyntaxError" in stack.wait_for("reload_refused", since=since)["reason"]
        assert _answer(stack, "shop.first") == "one"

        since = stack.mark()
        module.write_text(JOBS.format(name="second", answer="two"))
        stack.wait_for("reloading", since=since)
        stack.wait_for("ready", since=since)
        stack.wait_for("reloaded", since=since)
        assert _answer(stack, "shop.second") == "two"
        assert "shop.first" not in {
            entry["type"] for entry in get(f"{stack.url}/api/job-types", stack.token())["job_types"]
        }
    finally:
        assert stack.stop() == 0


SLOW_TO_END = textwrap.dedent(
    """
    import asyncio
    from pathlib import Path
    from tidings_tasks import JobContext, job

    @job("shop.hold")
    async def hold(ctx: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            Path("ending").write_text("")
            while not Path("go").exists():
                await asyncio.sleep(0.02)
    """
)


def test_a_broken_edit_in_the_midst_of_a_reload_is_told_and_mended(tmp_path: Path) -> None:
    """The worker that cannot start waits, dev does not claim that it runs, and it comes back with the code."""
    module = tmp_path / "shop_jobs.py"
    module.write_text(SLOW_TO_END)
    stack = LiveStack(tmp_path / "data", modules=["shop_jobs"], cwd=tmp_path)
    stack.start()
    try:
        job = post(stack, "/api/jobs", {"type": "shop.hold"})
        eventually_sync(
            lambda: get(f"{stack.url}/api/jobs/{job['id']}", stack.token())["status"] == "running"
        )

        since = stack.mark()
        module.write_text(JOBS.format(name="first", answer="one"))
        stack.wait_for("reloading", since=since)
        # The old worker still ends, with a job that takes its time; the server has the new code.
        eventually_sync((tmp_path / "ending").exists)
        stack.wait_for("ready", since=since)
        module.write_text("this is no Python")
        stack.wait_for("reload_refused", since=since)
        (tmp_path / "go").write_text("")
        stack.wait_for("waiting", "worker", since=since)
        said = "\n".join(stack.output)
        assert "the worker is not up; what cannot start with this code waits for a change" in said
        assert "goes on running" not in said
        assert sum(_is_end(entry) for entry in stack.events[since:]) == 1

        since = stack.mark()
        module.write_text(JOBS.format(name="second", answer="two"))
        stack.wait_for("reloaded", since=since)
        assert _answer(stack, "shop.second") == "two"
    finally:
        (tmp_path / "go").write_text("")
        assert stack.stop() == 0


def test_a_worker_that_waits_comes_back_when_what_it_imports_is_mended(tmp_path: Path) -> None:
    """Also by a file that is not watched, such as one of another package; and a crash is followed by a new one."""
    needed = tmp_path / "needed" / "part.py"
    needed.parent.mkdir()
    needed.write_text("answer = 'one'")
    (tmp_path / "shop_jobs.py").write_text("import needed.part\n" + JOBS.format(name="first", answer="one"))
    stack = LiveStack(tmp_path / "data", modules=["shop_jobs"], cwd=tmp_path)
    stack.start()
    try:
        since = stack.mark()
        needed.write_text("1 / 0")
        stack.kill("worker")
        stack.wait_for("waiting", "worker", since=since)
        needed.write_text("answer = 'two'")
        stack.wait_for("up", "worker", since=since)
        assert _answer(stack, "shop.first") == "one"
        assert any("the worker ended with status -9" in line for line in stack.output)
        assert any("starting another worker" in line for line in stack.output)
    finally:
        assert stack.stop() == 0


def _is_end(entry: dict[str, Any]) -> bool:
    return bool(entry["event"] == "ended" and entry["name"] == "worker")


def _answer(stack: LiveStack, job_type: str) -> Any:
    job_id = post(stack, "/api/jobs", {"type": job_type})["id"]
    page: dict[str, Any] = {"done": False, "position": "0"}
    while not page["done"]:
        page = get(f"{stack.url}/api/jobs/{job_id}/events?after={page['position']}&wait=10", stack.token())
    return get(f"{stack.url}/api/jobs/{job_id}", stack.token())["result"]


def test_check_finds_nothing_wrong_with_a_good_set_up(valkey_url: str, tmp_path: Path) -> None:
    """Store, modules, directory and secret are tried, and all is well."""
    environ = {"REDIS_URL": valkey_url, "JWT_SECRET": SECRET, "TIDINGS_JOBS": "tidings_tasks.demo"}
    done = run("check", "--json", cwd=tmp_path, **environ)
    findings = json.loads(done.stdout)
    assert (done.returncode, {entry["status"] for entry in findings}) == (0, {"ok"}), done.stdout
    assert {entry["subject"] for entry in findings} == {
        "JWT_SECRET",
        "REDIS_URL",
        "TIDINGS_DATA_DIR",
        "TIDINGS_ENV",
        "TIDINGS_JOBS",
        "TIDINGS_WORKER_PROFILE",
    }
    assert any(re.fullmatch(r"Valkey \d+\.\d+\.\d+ answers", entry["message"]) for entry in findings)
    assert not list(tmp_path.iterdir())


def test_check_says_how_to_mend_every_fault(tmp_path: Path) -> None:
    """Each thing that is wrong has a line with its fix, and the status says so."""
    (tmp_path / "broken_jobs.py").write_text("1 / 0\n")
    (tmp_path / "file").write_text("")
    done = run(
        "check", cwd=tmp_path, REDIS_URL="redis://:hunter2hunter2@127.0.0.1:1/0", TIDINGS_JOBS="broken_jobs",
        TIDINGS_DATA_DIR=str(tmp_path / "file"),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.count("ERROR") == done.stdout.count("fix:") == 4
    assert "broken_jobs.py:1: ZeroDivisionError" in done.stdout
    assert "the store at 127.0.0.1:1 does not answer: connection refused" in done.stdout
    assert "judged as production (the default, since it is not set); TIDINGS_ENV=development" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_check_shows_what_is_declared(tmp_path: Path) -> None:
    """Of a built-in queue what differs, and what a worker of these settings serves."""
    (tmp_path / "tidings.toml").write_text(
        '[queues.ai]\nrate_per_owner = "1/s"\n[queues.films]\n[dependencies.openai]\nfailures = 2\n'
    )
    environ = {"TIDINGS_ENV": "development", "TIDINGS_WORKER_PROFILE": "ai"}
    done = run("check", "--json", cwd=tmp_path, WORKER_CONCURRENCY="9", **environ)
    said = {entry["subject"]: entry["message"] for entry in json.loads(done.stdout)}
    assert said["TIDINGS_WORKER_PROFILE"] == "ai: up to 9 jobs at once of ai, embeddings"
    assert said["queue ai"] == "rate_per_owner 1/s"
    assert said["queue films"].startswith("priority 3, concurrency 10, timeout_s 300")
    assert said["dependency openai"] == "opens for 30 s after 2 failures within 60 s"
    assert "queue emails" not in said
    (tmp_path / "tidings.toml").write_text("[queues.ai]\nrte = 1\n")
    assert "tidings.toml: queues.ai.rte: unknown" in run("check", cwd=tmp_path).stdout


def test_a_worker_is_told_its_queues_in_one_way(tmp_path: Path) -> None:
    """By name or by profile; what is not there is told with what is."""
    modules = ["tidings_tasks.demo"]
    said = refusal("worker", *modules, "--queues", "ai", "--profile", "ai", cwd=tmp_path)
    assert "--profile" in said
    assert "give one of them" in " ".join(said.replace("│", " ").split())
    said = refusal("worker", *modules, "--profile", "primry", cwd=tmp_path)
    assert "did you mean primary?" in said
    said = refusal("worker", *modules, "--queues", "a1", cwd=tmp_path)
    assert "there is no queue a1" in said
    profiles = '{"mine": {"queues": ["b2"]}}'
    said = refusal(
        "worker",
        *modules,
        "--profile",
        "mine",
        cwd=tmp_path,
        TIDINGS_PROFILES=profiles,
        TIDINGS_ENV="development",
    )
    assert "profile mine: there is no queue b2; known are" in said


def test_check_finds_nothing_wrong_where_dev_runs(tmp_path: Path) -> None:
    """With the choice that it names itself, and none of the variables that production needs."""
    done = run("check", cwd=tmp_path, TIDINGS_ENV="development")
    assert done.returncode == 0, done.stdout
    assert "judged as development (as set)" in done.stdout


def test_check_puts_the_fix_of_a_wrong_setting_into_its_line(tmp_path: Path) -> None:
    """Not the name of a document."""
    done = run("check", "--json", cwd=tmp_path, TIDINGS_PROT="1", PORT="70000")
    fixes = {entry["subject"]: entry["fix"] for entry in json.loads(done.stdout)}
    assert fixes["TIDINGS_PROT"] == "did you mean TIDINGS_PORT?"
    assert fixes["PORT"].startswith("change PORT, or unset it")


@pytest.mark.parametrize(
    ("environ", "cause"),
    [
        ({"REDIS_URL": "redis://no-such-host.invalid:6379/0"}, "the host is unknown"),
        ({"REDIS_URL": "unix:///no/such/socket"}, "there is no such socket"),
    ],
)
def test_check_says_why_a_store_does_not_answer(environ: dict[str, str], cause: str, tmp_path: Path) -> None:
    """The cause beneath the library's error."""
    done = run("check", cwd=tmp_path, **environ)
    assert done.returncode == 1
    assert f"does not answer: {cause}" in done.stdout


def test_check_tells_a_wrong_password_from_a_missing_one(
    private_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """Each with its fix, and without the password."""
    import redis

    with redis.Redis.from_url(private_valkey.url) as client:
        client.config_set("requirepass", "right-password")
    wrong = private_valkey.url.replace("unix://", "unix://:hunter2hunter2@")
    done = run("check", cwd=tmp_path, REDIS_URL=wrong)
    assert "the store refuses this user and password" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert "the store wants a password" in run("check", cwd=tmp_path, REDIS_URL=private_valkey.url).stdout


def test_check_judges_the_store(private_valkey: EmbeddedValkey, tmp_path: Path) -> None:
    """A store that may drop jobs, or that belongs to another installation, is an error."""
    import redis

    environ = {"REDIS_URL": private_valkey.url, "JWT_SECRET": SECRET, "TIDINGS_JOBS": "tidings_tasks.demo"}
    with redis.Redis.from_url(private_valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        done = run("check", cwd=tmp_path, **environ)
        assert done.returncode == 1
        assert "set maxmemory-policy noeviction" in done.stdout
        client.config_set("maxmemory-policy", "noeviction")
    assert run("check", cwd=tmp_path, **environ).returncode == 0
    done = run("check", cwd=tmp_path, TIDINGS_SHARDS="4", **environ)
    assert done.returncode == 1
    assert "shards 1, this process has 4" in done.stdout


def test_token_makes_what_the_server_takes(tmp_path: Path) -> None:
    """Subject, organisation, scopes and life are as asked for; issuer and audience as configured."""
    environ = {"JWT_SECRET": SECRET, "TIDINGS_JWT_ISSUER": "us", "TIDINGS_JWT_AUDIENCE": "tidings"}
    words = ["--sub", "alice", "--org", "acme", "--scope", "admin", "--scope", "org:read", "--ttl", "15m"]
    done = run("token", *words, cwd=tmp_path, **environ)
    assert done.returncode == 0, done.stderr
    claims = jwt.decode(done.stdout.strip(), SECRET, ["HS256"], audience="tidings", issuer="us")
    assert claims.pop("exp") - claims.pop("iat") == 900
    assert claims.pop("jti")
    assert claims == {"sub": "alice", "org": "acme", "scope": "admin org:read", "iss": "us", "aud": "tidings"}


def test_token_without_a_secret_or_with_a_wrong_time_is_refused(tmp_path: Path) -> None:
    """The message says where a secret comes from, and how a time is written."""
    assert "JWT_SECRET" in refusal("token", "--sub", "alice", cwd=tmp_path)
    assert "15m" in refusal("token", "--sub", "alice", "--ttl", "soon", cwd=tmp_path, JWT_SECRET=SECRET)


def test_openapi_prints_the_document_the_server_serves(live_stack: LiveStack, tmp_path: Path) -> None:
    """It needs no store and no settings."""
    done = run("openapi", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["openapi"].startswith("3.1")
    assert document == get(f"{live_stack.url}/api/openapi.json")


def test_help_lists_the_commands_and_loads_no_server(tmp_path: Path) -> None:
    """`tidings --help` stays quick: what a command needs is loaded when it runs."""
    code = "import sys; from tidings.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean_environ(), capture_output=True, text=True,
        timeout=scaled(30), check=True,
    )  # fmt: skip
    for command in ("dev", "server", "worker", "check", "token", "openapi"):
        assert f" {command} " in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"dramatiq", "redis", "jwt", "watchfiles", "tidings_server.app"}


def test_a_worn_worker_is_started_again_without_a_word(tmp_path: Path) -> None:
    """It ends by itself with status 0 after a job, and the next jobs are run by the next one."""
    stack = LiveStack(
        tmp_path / "data", environ={"TIDINGS_WORKER_RECYCLE_JOBS": "1", "PORT": str(free_port())}
    )
    stack.start()
    try:
        pids = set()
        for _ in range(2):
            made = post(stack, "/api/jobs", {"type": "demo.steps", "input": {"steps": 1}})
            pids.add(stack.pid("worker"))

            def is_done(job_id: str = made["id"], pid: int = stack.pid("worker")) -> bool:
                state = get(f"{stack.url}/api/jobs/{job_id}", stack.token())["status"]
                return state == "completed" and stack.pid("worker") != pid

            eventually_sync(is_done, 30)
        assert len(pids) == 2
        assert "ended with status" not in "\n".join(stack.output)
        assert not [event for event in stack.events if event["event"] == "ended"]
    finally:
        stack.stop()
