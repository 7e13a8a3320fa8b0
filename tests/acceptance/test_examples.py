"""The examples run as their README says, against a real ``tidings dev``."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.worker_processes import dramatiq_process
from tests.support.node import Node
from tests.support.stack import LiveStack
from tests.support.timing import eventually_sync, scaled

pytestmark = pytest.mark.acceptance

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """Run ``tidings dev myapp.jobs`` in the examples' directory."""
    stack = LiveStack(tmp_path_factory.mktemp("examples") / "data", modules=["myapp.jobs"], cwd=EXAMPLES)
    stack.start()
    yield stack
    stack.stop()


def run(stack: LiveStack, command: list[str], cwd: Path = EXAMPLES) -> str:
    """Run an example to its end, which must be a good one, and return what it printed."""
    environ = os.environ | {
        "TIDINGS_TOKEN": stack.token(),
        "TIDINGS_URL": stack.url,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ended = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=scaled(60), check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def tidings(stack: LiveStack, *arguments: str) -> str:
    """Run the command line in the examples' directory."""
    return run(stack, [sys.executable, "-m", "tidings", *arguments])


def test_the_report_is_submitted_and_watched(stack: LiveStack) -> None:
    """``tidings submit report.render --input @quarterly-report.json --watch`` ends with a PDF's address."""
    lines = tidings(
        stack, "submit", "report.render", "--input", "@quarterly-report.json", "--watch", "--json"
    )
    last = json.loads(lines.splitlines()[-1])
    assert last["kind"] == "completed", lines
    result = last["data"]["result"]
    assert (result["file"]["name"], result["sections"]) == ("quarterly-report-q3-2026.pdf", 8)
    assert result["pages"] > 3


def test_the_job_of_ones_own_runs(stack: LiveStack) -> None:
    """``myapp.jobs`` is found in the working directory, and its job counts its rows."""
    lines = tidings(stack, "submit", "report.rows", "--input", '{"rows": 3}', "--watch", "--json")
    events = [json.loads(line) for line in lines.splitlines()]
    assert [event["data"]["chunk"] for event in events if event.get("kind") == "output"] == [
        "row 1\n",
        "row 2\n",
        "row 3\n",
    ]
    assert events[-1]["data"]["result"] == {"rows": 3}


def test_the_flow_is_submitted_and_watched(stack: LiveStack) -> None:
    """Its progress is that of the whole, and its result tells of each step, with what was handed on."""
    lines = tidings(stack, "submit", "flow", "--input", "@flow.json", "--watch", "--json")
    events = [json.loads(line) for line in lines.splitlines()]
    progress = [event["data"] for event in events if event.get("kind") == "progress"]
    assert (progress[-1]["percent"], progress[-1]["message"]) == (100, "4 of 4 steps done")
    steps = events[-1]["data"]["result"]["steps"]
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(
        ("count", "left", "right", "sum"), "completed"
    )
    assert steps["left"]["result"] == {"steps": 4, "attempt": 1}
    assert steps["sum"]["result"] == {"rows": 4}


def test_the_job_s_own_tests_pass() -> None:
    """Without ``tidings dev``: they need no store."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Where pytest alone is installed, what this project's own settings ask of plugins must not hold.
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(
        command, cwd=EXAMPLES, env=environ, capture_output=True, text=True, timeout=scaled(60), check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 passed" in ended.stdout


def test_python_follows_a_job_to_its_result(stack: LiveStack) -> None:
    """Twenty steps, the last at 100 %, and the result."""
    printed = run(stack, [sys.executable, "follow_a_job.py", stack.url])
    assert "100.0 %  step 20 of 20" in printed
    assert "result: {'steps': 20, 'attempt': 1}" in printed


def test_the_stock_client_follows_a_job_to_its_end(stack: LiveStack, node: Node, tmp_path: Path) -> None:
    """The module resolves the package as after ``npm install``, sees the steps in order, and ends by itself."""
    script = shutil.copy(EXAMPLES / "follow-a-job.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(node.modules)
    printed = run(stack, [node.program, str(script), stack.url], cwd=tmp_path)
    numbers = [int(line.split()[0]) for line in printed.splitlines() if line[:1].isdigit()]
    assert numbers == sorted(set(numbers))
    assert "completed" in printed
    assert "current: 20" in printed


def test_curl_follows_a_job_by_polling_and_streaming(stack: LiveStack) -> None:
    """The long poll ends with the job, its status is then 304, the stream has every kind of event; the URL is the environment's."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    printed = run(stack, ["./poll.sh"])
    assert "event: queued" in printed
    assert "\n304\n" in printed
    assert "event: completed" in printed
    assert printed.count("at ") >= 3


@pytest.mark.parametrize("script", ["follow_a_job.py", "follow-a-job.mjs"])
def test_what_goes_wrong_at_the_start_is_one_line(
    stack: LiveStack, node: Node, tmp_path: Path, script: str
) -> None:
    """Without a token, with a wrong one and where no server is: the reason, exit status 1, no stack trace."""
    shutil.copy(EXAMPLES / script, tmp_path)
    (tmp_path / "node_modules").symlink_to(node.modules)
    program = node.program if script.endswith(".mjs") else sys.executable
    with socket.socket() as bound:  # bound but not listening: whoever connects is refused
        bound.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{bound.getsockname()[1]}"
        cases = [
            (stack.url, "", "set TIDINGS_TOKEN"),
            (stack.url, "no.such.token", "unauthenticated"),
            (nowhere, "no.such.token", "reach"),
        ]
        for url, token, reason in cases:
            environ = os.environ | {"TIDINGS_TOKEN": token, "TIDINGS_URL": url}
            ended = subprocess.run(
                [program, script], cwd=tmp_path, env=environ, capture_output=True, text=True,
                timeout=scaled(60), check=False,
            )  # fmt: skip
            assert ended.returncode == 1, ended.stdout + ended.stderr
            (line,) = ended.stderr.splitlines()
            assert line.startswith("error: ")
            assert reason in line


def test_a_dramatiq_app_is_followed_live(stack: LiveStack) -> None:
    """The stock command runs it, the SDK's ``tidings watch`` shows each step, and the pipeline's next job is the same owner's."""
    app = EXAMPLES / "dramatiq_app"
    environ = os.environ | {
        "REDIS_URL": f"unix://{stack.data_dir / 'valkey' / 'valkey.sock'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with dramatiq_process("invoices", environ=environ, cwd=app):
        sent = subprocess.run(
            [sys.executable, "send.py", "alice"], cwd=app, env=environ, capture_output=True, text=True,
            timeout=scaled(60), check=False,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        lines = tidings(stack, "watch", sent.stdout.strip(), "--json")
        events = [json.loads(line) for line in lines.splitlines()]
        progress = [event["data"]["current"] for event in events if event.get("kind") == "progress"]
        assert progress[-1] == 5
        assert progress == sorted(progress)
        assert (events[-1]["kind"], events[-1]["data"]["result"]) == ("completed", 8)

        def mailed() -> bool:
            return '"mail"' in tidings(stack, "jobs", "--json")

        assert eventually_sync(mailed, 30)


def test_the_dramatiq_apps_readme_shows_what_changes() -> None:
    """Its diff is the one between the two files."""
    app = EXAMPLES / "dramatiq_app"
    before, after = (app / "before" / "invoices.py").read_text(), (app / "invoices.py").read_text()
    changed = [
        line
        for line in difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    shown = (app / "README.md").read_text().split("```diff\n")[1].split("```")[0].splitlines()
    assert [line for line in shown if line[:1] in "+-"] == changed
    assert sum(line.startswith("-") for line in changed) == 3
