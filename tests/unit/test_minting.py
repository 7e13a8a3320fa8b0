"""Minted tokens and the kept secret: taken by the server, private, and never replaced."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from tidings_server.auth import Authenticator
from tidings_server.minting import make_kept_secret, mint_token, parse_ttl, read_kept_secret
from tidings_tasks.settings import Settings, SettingsError

NOW_S = 1_795_428_000.0
SECRET = "a-secret-for-tests-of-more-than-32-characters"


def test_the_server_takes_a_minted_token() -> None:
    """What was asked for is what the server sees."""
    settings = Settings(jwt_secret=SECRET, jwt_issuer="us", jwt_audience="tidings")  # type: ignore[arg-type]
    token = mint_token(
        settings, SECRET, sub="alice", org="acme", scopes=["admin", "org:read"], ttl_s=60, now_s=NOW_S
    )
    identity = Authenticator(settings, now=lambda: NOW_S).verify(token)
    assert (identity.subject, identity.org) == ("alice", "acme")
    assert identity.scopes == {"admin", "org:read"}
    assert identity.expires_at == NOW_S + 60
    assert identity.token_id


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), (" 7d ", 604_800)]
)
def test_a_time_is_a_number_with_a_unit(text: str, seconds: int) -> None:
    """Seconds without a unit."""
    assert parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1h", "1w", "1h30m", "h", "1.5h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """The message shows how to write one."""
    with pytest.raises(ValueError, match="15m"):
        parse_ttl(text)


def test_the_kept_secret_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    """It is long, random, stays the same, and no draft of it is left."""
    assert read_kept_secret(tmp_path / "d") is None
    made = make_kept_secret(tmp_path / "d")
    assert len(made) >= 32
    assert make_kept_secret(tmp_path / "d") == read_kept_secret(tmp_path / "d") == made
    assert make_kept_secret(tmp_path / "e") != made
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["jwt-secret"]
    assert stat.S_IMODE((tmp_path / "d" / "jwt-secret").stat().st_mode) == 0o600


def test_many_that_make_it_at_once_use_the_same(tmp_path: Path) -> None:
    """Nobody signs with a secret that another one has just replaced."""
    barrier = threading.Barrier(8)
    made: list[str] = []

    def make() -> None:
        barrier.wait()
        made.append(make_kept_secret(tmp_path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40])
def test_a_kept_secret_that_is_none_is_refused_and_not_replaced(content: bytes, tmp_path: Path) -> None:
    """Replacing it in silence would turn every token away; the message names the file and not what it holds."""
    path = tmp_path / "jwt-secret"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="jwt-secret cannot be read or written as a secret; remove it"):
        make_kept_secret(tmp_path)
    assert path.read_bytes() == content
