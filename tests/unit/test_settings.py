"""Settings: known names only, all faults at once, no secret shown, and every one documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.settings_table import DOCUMENT, insert_table, render_table
from tidings_tasks.environment import read_dotenv, read_environment
from tidings_tasks.settings import BARE_NAMES, WORKER_BARE_NAMES, Settings, SettingsError, load_settings

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"


def load(**environ: str) -> Settings:
    """Load from these variables alone."""
    return load_settings(environ, dotenv=None)


def faults(**environ: str) -> dict[str, str]:
    """Load what is not valid, and return the message for each variable."""
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    assert SECRET not in str(caught.value)
    return {entry.field: entry.message for entry in caught.value.errors}


def test_every_setting_is_documented() -> None:
    """The document's table is the model's; ``python -m tests.support.settings_table`` writes it anew."""
    document = DOCUMENT.read_text("utf-8")
    assert insert_table(document, render_table()) == document


def test_every_setting_has_a_meaning_and_ends_it() -> None:
    """A row without an explanation helps nobody."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_nothing_set_gives_the_strict_rules() -> None:
    """Without a word, a process is in production, with no store and no secret."""
    settings = load()
    assert settings.env == "production"
    assert (settings.store_url, settings.jwt_secret) == (None, None)


def test_each_setting_is_read_by_its_prefixed_name() -> None:
    """Text from the environment becomes the setting's type."""
    settings = load(
        TIDINGS_ENV="Development",
        TIDINGS_JOBS="shop.jobs, shop.reports ,",
        TIDINGS_STORE_TIMEOUT_S="2.5",
        TIDINGS_REDIS_TLS_ENABLED="true",
        TIDINGS_DATA_DIR="~/data",
    )
    assert settings.env == "development"
    assert settings.jobs == ("shop.jobs", "shop.reports")
    assert settings.store_timeout_s == 2.5
    assert settings.redis_tls_enabled is True
    assert settings.data_dir == Path.home() / "data"


@pytest.mark.parametrize(
    ("environ", "field", "expected"),
    [
        ({"PORT": "1", "SOCKET_PORT": "2"}, "port", 1),
        ({"SOCKET_PORT": "2"}, "port", 2),
        ({"PORT": "1", "TIDINGS_PORT": "3"}, "port", 3),
        ({"PORT": "", "SOCKET_PORT": "2"}, "port", 2),
        ({"TIDINGS_PORT": ""}, "port", 8000),
        ({"LOG_LEVEL": "WARNING"}, "log_level", "warning"),
        ({"CORS_ORIGIN": "https://a.example,https://b.example"}, "cors_origins", ("https://a.example", "https://b.example")),
    ],
)  # fmt: skip
def test_the_usual_names_count_in_a_fixed_order(environ: dict[str, str], field: str, expected: Any) -> None:
    """The prefixed name wins, then the first of the table; an empty one is not set."""
    assert getattr(load(**environ), field) == expected


def test_every_usual_name_is_for_a_setting() -> None:
    """The table of names cannot point nowhere."""
    assert set(BARE_NAMES.values()) <= set(Settings.model_fields)


def test_an_argument_wins_over_the_environment() -> None:
    """An option of the command line is the last word; one that was not given says nothing."""
    settings = load_settings({"PORT": "1", "TIDINGS_HOST": "h"}, dotenv=None, port=9, host=None)
    assert (settings.port, settings.host) == (9, "h")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    """A misspelt setting never goes unnoticed."""
    found = faults(TIDINGS_SHARD="2", TIDINGS_ZZZZZZZZZ="1")
    assert "did you mean TIDINGS_SHARDS?" in found["TIDINGS_SHARD"]
    assert "docs/settings.md" in found["TIDINGS_ZZZZZZZZZ"]


def test_all_faults_are_told_at_once_by_the_name_that_was_used() -> None:
    """Whoever sets up a server sees every fault in one go, without a value."""
    found = faults(
        PORT="x", TIDINGS_SHARDS="0", JWT_SECRET="short", TIDINGS_LOG_FORMAT="xml", TIDINGS_JOBS="a b"
    )
    assert set(found) == {"PORT", "TIDINGS_SHARDS", "JWT_SECRET", "TIDINGS_LOG_FORMAT", "TIDINGS_JOBS"}
    assert "32 characters" in found["JWT_SECRET"]
    assert "token_urlsafe" in found["JWT_SECRET"]
    assert "short" not in found["JWT_SECRET"]
    assert "myapp.jobs" in found["TIDINGS_JOBS"]


@pytest.mark.parametrize(
    "url",
    ["store:6379", "http://store", "redis://", "unix://", f"redis://:{SECRET}@h:port/0", "redis://[::1/0"],
)
def test_a_store_url_that_cannot_work_is_refused(url: str) -> None:
    """The message shows how to write one, and not the password that was in it."""
    assert "redis://HOST:PORT/0" in faults(REDIS_URL=url)["REDIS_URL"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"REDIS_URL": "rediss://h/1", "REDIS_HOST": "other"}, "rediss://h/1"),
        ({"REDIS_HOST": "h"}, "redis://h:6379/0"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_PASSWORD": "p@/:%"}, "redis://:p%40%2F%3A%25@h:7/0"),
        ({"REDIS_HOST": "::1", "REDIS_TLS_ENABLED": "yes"}, "rediss://[::1]:6379/0"),
    ],
)
def test_the_store_is_named_by_a_url_or_by_parts(environ: dict[str, str], expected: str) -> None:
    """The URL wins; a password of any characters survives."""
    assert load(**environ).store_url == expected


def test_a_password_without_a_host_is_refused() -> None:
    """It would be passed over in silence, and the store would be another one than meant."""
    assert "REDIS_HOST" in faults(REDIS_PASSWORD=SECRET)["REDIS_PASSWORD"]


def test_any_origin_is_refused_in_production_alone() -> None:
    """`*` is for development; an origin with a path is none."""
    assert load(TIDINGS_ENV="development", CORS_ORIGIN="*").cors_origins == ("*",)
    assert "name the origins" in faults(CORS_ORIGIN="*")["CORS_ORIGIN"]
    assert "without a path" in faults(CORS_ORIGIN="https://a.example/app")["CORS_ORIGIN"]


def test_a_secret_shows_nowhere() -> None:
    """Neither in the repr, nor in an error about other fields; the redactor alone is given it."""
    settings = load(JWT_SECRET=SECRET, REDIS_URL="redis://u:p%40ss-word@h/0")
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"
    assert "p%40ss" not in repr(settings)
    assert set(settings.secrets) == {SECRET, "p%40ss-word", "p@ss-word"}
    assert load().secrets == ()


def test_settings_cannot_be_changed() -> None:
    """What was validated stays so."""
    with pytest.raises(ValidationError, match="frozen"):
        load().port = 1  # type: ignore[misc]  # the point of the test


def test_what_kubernetes_adds_for_services_is_no_setting() -> None:
    """A service called `tidings`, `tidings-server` or `redis` in the namespace does no harm."""
    settings = load(
        TIDINGS_SERVICE_HOST="10.0.0.1",
        TIDINGS_SERVICE_PORT="8000",
        TIDINGS_SERVICE_PORT_HTTP="8000",
        TIDINGS_PORT="tcp://10.0.0.1:8000",
        TIDINGS_PORT_8000_TCP="tcp://10.0.0.1:8000",
        TIDINGS_PORT_8000_TCP_PROTO="tcp",
        TIDINGS_SERVER_PORT="tcp://10.0.0.1:8000",
        REDIS_PORT="tcp://10.0.0.2:6379",
    )
    assert (settings.port, settings.redis_port) == (8000, 6379)


def test_a_dotenv_file_is_below_the_environment(tmp_path: Path) -> None:
    """Comments, quotes and `export` are understood; the environment wins."""
    path = tmp_path / ".env"
    path.write_text(
        "# a comment\n\n"
        "export TIDINGS_HOST='0.0.0.0'   # everywhere\n"
        'JWT_SECRET="a # is no comment in quotes, is it?"\n'
        "PORT=9000 # the port\n"
        "LOG_LEVEL=#\n"
        "REDIS_URL = redis://h/0#1\n",
        "utf-8",
    )
    assert read_dotenv(path) == {
        "TIDINGS_HOST": "0.0.0.0",
        "JWT_SECRET": "a # is no comment in quotes, is it?",
        "PORT": "9000",
        "LOG_LEVEL": "",
        "REDIS_URL": "redis://h/0#1",
    }
    assert read_environment({"PORT": "1"}, path)["PORT"] == "1"
    assert load_settings({}, dotenv=path).port == 9000
    assert read_dotenv(tmp_path / "none") == {}


def test_a_dotenv_line_that_is_none_is_refused_unseen(tmp_path: Path) -> None:
    """The line's number is told, and not what it holds: it may be a secret."""
    path = tmp_path / ".env"
    path.write_text(f"PORT=1\n{SECRET}\n", "utf-8")
    with pytest.raises(SettingsError, match=re.escape(f"{path}, line 2: write it as NAME=value")) as caught:
        read_dotenv(path)
    assert SECRET not in str(caught.value)


def test_a_dotenv_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A directory or a file of another encoding is explained, not traced."""
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_dotenv(tmp_path)
    (tmp_path / ".env").write_bytes(b"PORT=\xff\n")
    with pytest.raises(SettingsError, match="it is not UTF-8"):
        read_dotenv(tmp_path / ".env")


def test_a_worker_takes_the_platforms_port(tmp_path: Path) -> None:
    """``PORT`` is the server's own for a server, and that of health for a worker; its own name goes before."""
    environ = {"PORT": "9001"}
    assert load_settings(environ, dotenv=None).port == 9001
    worker = load_settings(environ, dotenv=None, bare_names=WORKER_BARE_NAMES)
    assert (worker.worker_port, worker.port) == (9001, 8000)
    named = environ | {"TIDINGS_WORKER_PORT": "9002"}
    assert load_settings(named, dotenv=None, bare_names=WORKER_BARE_NAMES).worker_port == 9002


def test_a_port_in_the_file_is_the_servers(tmp_path: Path) -> None:
    """Server and worker of one directory read the same ``.env``, and must not meet on one port."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=9001\n")
    assert load_settings({}, dotenv=dotenv, bare_names=WORKER_BARE_NAMES).worker_port is None
    assert load_settings({}, dotenv=dotenv).port == 9001
