"""Queues and profiles: the built-in ones, what is declared over them, and how a fault in that is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidings_tasks.queue.dependencies import breakers_of
from tidings_tasks.queue.queues import (
    BUILT_IN_POLICIES,
    limits_of,
    order_queues,
    policy_of,
    priority_of,
)
from tidings_tasks.settings import Settings, SettingsError, load_settings
from tidings_tasks.store.limits import Breaker, QueueLimits, Rate

# name, priority, concurrency, rate, per owner, per org, time-out, delays: as they were agreed on.
TABLE = """
critical      1 10 -       -      -      60  5/10/20
documents     2 8  20/s    -      -      60  10/20/40
ai            2 5  -       10/min 60/min 120 30/60/120
embeddings    2 5  -       -      -      60  20/40/80
exports       3 5  -       10/min -      300 60/300/1800
reports       3 5  -       -      -      300 60/300/1800
emails        3 10 100/min -      -      30  10/20/40
webhooks      3 15 -       -      -      30  30/60/120/240/480/960/1920/3600
integrations  3 5  60/min  -      -      300 30/60/120
default       3 10 -       -      -      300 10/20/40
maintenance   4 2  -       -      -      600 60/120/240
scheduled     5 1  -       -      -      300 60/120/240
"""


def load(path: Path | None = None, **environ: str) -> Settings:
    """Load from a file and these variables alone."""
    return load_settings(environ, dotenv=None, config=path)


def faults(path: Path | None = None, **environ: str) -> dict[str, str]:
    """Load what is not valid, and return the message for each place."""
    with pytest.raises(SettingsError) as caught:
        load(path, **environ)
    return {entry.field: entry.message for entry in caught.value.errors}


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    """Write a file of declarations."""

    def write(text: str) -> Path:
        path = tmp_path / "tidings.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def test_the_built_in_queues_are_those_of_the_table() -> None:
    """Nothing declared, every number is the agreed one."""
    found = []
    for policy in load().queues.values():
        rates = [
            str(rate) if rate else "-" for rate in (policy.rate, policy.rate_per_owner, policy.rate_per_org)
        ]
        delays = "/".join(f"{delay:g}" for delay in policy.backoff_s)
        found.append([
            policy.name, str(policy.priority), str(policy.concurrency), *rates, f"{policy.timeout_s:g}", delays,
        ])  # fmt: skip
        assert policy.max_attempts == len(policy.backoff_s) + 1
        assert (policy.max_running, policy.max_length) == (None, None)
        assert policy.failed_kept_s >= 14 * 86_400
    assert found == [line.split() for line in TABLE.strip().splitlines()]


def test_the_built_in_profiles_are_those_of_the_table() -> None:
    """``all`` serves what there is, with as many jobs as the worker's setting says."""
    assert {p.name: (p.queues, p.concurrency) for p in load().profiles.values()} == {
        "primary": (("critical", "emails", "webhooks", "reports", "integrations", "default"), 10),
        "document": (("documents", "exports"), 8),
        "ai": (("ai", "embeddings"), 5),
        "scheduled": (("scheduled", "maintenance"), 1),
        "all": (None, None),
    }


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/min", Rate(10, 60)),
        ("20/s", Rate(20, 1)),
        ("100 / H", Rate(100, 3600)),
        ("5/day", Rate(5, 86_400)),
    ],
)
def test_a_rate_is_read_as_it_is_written(text: str, rate: Rate) -> None:
    """Spaces and capitals do no harm."""
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "10", "0/s", "-1/s", "1.5/s", "10/fortnight", "9999999/s", "10/min/s"])
def test_what_is_no_rate_is_told_how_to_write_one(text: str) -> None:
    """The message shows the form."""
    with pytest.raises(ValueError, match="10/min"):
        Rate.parse(text)


def test_a_declared_field_leaves_the_others_of_a_built_in_queue(toml: Any) -> None:
    """The variable goes over the file and the file over what is built in, each field for itself."""
    path = toml('[queues.ai]\nconcurrency = 50\nrate_per_owner = "1/s"\n[queues.documents]\nrate = "none"\n')
    found = load(path, TIDINGS_QUEUES='{"ai": {"rate_per_owner": "2/s", "max_running": 7}}').queues
    ai = found["ai"]
    assert (ai.concurrency, ai.rate_per_owner, ai.max_running) == (50, Rate(2, 1), 7)
    assert (ai.priority, ai.rate_per_org, ai.timeout_s) == (2, Rate(60, 60), 120)
    assert found["documents"].rate is None
    assert found["critical"] is BUILT_IN_POLICIES["critical"]
    assert ai.limits == QueueLimits(None, 7, None, Rate(2, 1), Rate(60, 60))


def test_another_queue_is_like_default_without_its_limits(toml: Any) -> None:
    """Whether it is declared, or a job type's own; a limit counts for the queue that it is written for."""
    path = toml(
        '[queues.films]\npriority = 2\n[queues.default]\ntimeout_s = 50\nrate = "9/s"\nmax_running = 3\n'
    )
    queues = load(path).queues
    films = queues["films"]
    assert (films.name, films.priority, films.timeout_s) == ("films", 2, 50)
    assert (films.rate, films.max_running) == (None, None)
    other = policy_of(queues, "other")
    assert other.model_dump() == films.model_dump() | {"name": "other", "priority": 3}
    assert limits_of(queues, ["other"])["other"] == QueueLimits()
    assert limits_of(queues)["default"] == QueueLimits(None, 3, Rate(9, 1))


def test_the_usual_variables_speak_of_default() -> None:
    """``WORKER_MAX_JOBS`` is its rate and ``WORKER_CONCURRENCY`` raises what it may run, where nothing is declared."""
    queues = load(WORKER_MAX_JOBS="120", WORKER_CONCURRENCY="50").queues
    assert (queues["default"].rate, queues["default"].concurrency) == (Rate(120, 60), 50)
    assert (queues["ai"].rate, queues["ai"].concurrency) == (None, 5)
    assert load(WORKER_CONCURRENCY="2").queues["default"].concurrency == 10
    declared = '{"default": {"rate": "1/s", "concurrency": 3}}'
    queues = load(WORKER_MAX_JOBS="120", WORKER_CONCURRENCY="50", TIDINGS_QUEUES=declared).queues
    assert (queues["default"].rate, queues["default"].concurrency) == (Rate(1, 1), 3)


def test_queues_are_served_by_priority() -> None:
    """Those that nobody declared are like the default one."""
    assert order_queues(["scheduled", "mine", "critical", "ai", "default"]) == [
        "critical", "ai", "default", "mine", "scheduled",
    ]  # fmt: skip
    assert (priority_of("critical"), priority_of("scheduled"), priority_of("mine")) == (1, 5, 3)
    assert order_queues(["ai", "mine"], load(TIDINGS_QUEUES='{"mine": {"priority": 1}}').queues) == [
        "mine",
        "ai",
    ]


def test_a_profile_is_picked_and_its_cap_overridden(toml: Any) -> None:
    """``WORKER_CONCURRENCY`` goes over any profile's number, when it is set."""
    path = toml('[profiles.films]\nqueues = ["films", "ai"]\n[profiles.ai]\nconcurrency = 500\n')
    assert load(path).profile.concurrency == 10
    found = load(path, TIDINGS_WORKER_PROFILE="ai").profile
    assert (found.queues, found.concurrency) == (("ai", "embeddings"), 500)
    found = load(path, TIDINGS_WORKER_PROFILE="films", WORKER_CONCURRENCY="3").profile
    assert (found.queues, found.concurrency) == (("films", "ai"), 3)
    assert load(path, TIDINGS_WORKER_PROFILE="films").profile.concurrency == 10
    message = faults(path, TIDINGS_WORKER_PROFILE="primry")["TIDINGS_WORKER_PROFILE"]
    assert message == "there is no profile 'primry'; did you mean primary?"


def test_a_dependency_has_a_breaker(toml: Any) -> None:
    """One that is only named by a job type has the usual numbers."""
    found = load(toml("[dependencies.openai]\nfailures = 2\nopen_s = 9\n")).dependencies
    assert breakers_of(found, ["openai", "smtp"]) == {"openai": Breaker(2, 60, 9), "smtp": Breaker()}


def test_schedules_are_declared_alike(toml: Any) -> None:
    """The variable goes over the file, field by field."""
    path = toml('[schedules.nightly]\ncron = "0 3 * * *"\ntype = "clean"\n')
    other = '{"nightly": {"cron": "0 4 * * *"}, "other": {"every_s": 5, "type": "look"}}'
    found = load(path, TIDINGS_SCHEDULES=other).schedules
    assert [(s.type, s.cron, s.every_s) for s in found.values()] == [
        ("clean", "0 4 * * *", None),
        ("look", None, 5),
    ]


def test_each_fault_names_file_or_variable_and_the_place_in_it(toml: Any) -> None:
    """All are told at once, with a fix or the nearest name."""
    path = toml(
        '[queues.ai]\nrate = "ten"\nbackof_s = [1]\nconcurrency = 0\n[queues.mine]\nbackoff_s = [1, -1]\n'
        "[queues.emails]\nname = 'x'\n[profile.x]\nqueues = ['a']\n[profiles.x]\nqueues = []\n[dependencies]\nsmtp = 3\n"
    )
    found = faults(
        path, TIDINGS_QUEUES='{"ai": {"priority": 99}, "no name": {}, "exports": 7}', TIDINGS_PROFILES="{"
    )
    assert found.pop(f"{path}: queues.ai.rate").endswith('such as "10/min"')
    assert found.pop(f"{path}: queues.ai.backof_s") == "unknown; did you mean backoff_s?"
    assert "greater than or equal to 1" in found.pop(f"{path}: queues.ai.concurrency")
    assert "greater than or equal to 0" in found.pop(f"{path}: queues.mine.backoff_s.1")
    assert found.pop(f"{path}: queues.emails.name").endswith("leave this field out")
    assert found.pop(f"{path}: profile") == "unknown; did you mean profiles?"
    assert "at least 1 item" in found.pop(f"{path}: profiles.x.queues")
    assert "[dependencies.openai]" in found.pop(f"{path}: dependencies.smtp")
    assert "less than or equal to 9" in found.pop("TIDINGS_QUEUES: ai.priority")
    assert "letters, digits" in found.pop("TIDINGS_QUEUES: no name")
    assert 'write it like {"ai": {"rate_per_owner": "10/min"}}' in found.pop("TIDINGS_QUEUES: exports")
    assert "is no JSON (line 1, column 2)" in found.pop("TIDINGS_PROFILES")
    assert found == {}


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, toml: Any) -> None:
    """One that was named must be there; the usual one need not."""
    assert load(tmp_path / "none").queues["ai"] is BUILT_IN_POLICIES["ai"]
    found = faults(None, TIDINGS_CONFIG_FILE=str(tmp_path / "none"))
    assert "there is no file" in found["TIDINGS_CONFIG_FILE"]
    path = toml("queues = ")
    assert "is no TOML" in faults(path)[str(path)]
    path.write_bytes(b"\xff")
    assert "not UTF-8" in faults(path)[str(path)]
    path.write_bytes(b"#" * 1_048_577)
    assert "right file" in faults(path)[str(path)]
    assert "Is a directory" in faults(tmp_path)[str(tmp_path)]
    assert "holds no names" in faults(None, TIDINGS_QUEUES="[]")["TIDINGS_QUEUES"]


def test_the_named_file_is_read(toml: Any) -> None:
    """``TIDINGS_CONFIG_FILE`` goes before the usual place."""
    path = toml("[queues.ai]\npriority = 9\n")
    assert load(None, TIDINGS_CONFIG_FILE=str(path)).queues["ai"].priority == 9


def test_the_example_is_valid() -> None:
    """It has something of each kind."""
    found = load(Path(__file__).parents[2] / "examples" / "tidings.toml")
    assert found.queues["films"].backoff_s == (60, 600)
    assert found.queues["ai"].rate_per_owner == Rate(30, 60)
    assert found.profiles["films"].queues == ("films", "documents")
    assert found.dependencies["openai"].failures == 5
    assert found.schedules["nightly-report"].time_zone == "Europe/Berlin"
