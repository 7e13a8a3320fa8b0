"""Making tokens: for ``tidings token`` and the page of ``tidings dev``. Verifying them is ``auth``'s, alone."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import jwt

from tidings.protocol.errors import FieldError
from tidings_tasks.settings import MIN_SECRET_CHARS, Settings, SettingsError

__all__ = ["make_kept_secret", "mint_token", "parse_ttl", "read_kept_secret"]

_TTL = re.compile(r"(\d+)([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SECRET_BYTES = 48


def mint_token(
    settings: Settings,
    secret: str,
    *,
    sub: str,
    org: str | None = None,
    scopes: Sequence[str] = (),
    ttl_s: int,
    now_s: float | None = None,
) -> str:
    """Return an HS256 token that this installation's server accepts for ``ttl_s`` seconds.

    Args:
        secret: the server's key.
        now_s: the wall clock, in seconds since the Unix epoch; None: now.
    """
    issued_at = int(time.time() if now_s is None else now_s)
    claims = {
        "sub": sub,
        "org": org,
        "scope": " ".join(scopes) or None,
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "iat": issued_at,
        "exp": issued_at + ttl_s,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, "HS256")


def parse_ttl(text: str) -> int:
    """Return a time such as ``90``, ``15m``, ``1h`` or ``7d`` in seconds.

    Raises:
        ValueError: it is none, or not positive.
    """
    match = _TTL.fullmatch(text.strip())
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time; write it like 90s, 15m, 1h or 7d")
    return seconds


def read_kept_secret(data_dir: Path) -> str | None:
    """Return the secret that ``tidings dev`` keeps in this directory, or None when there is none.

    Raises:
        SettingsError: the file cannot be read, or holds no secret.
    """
    path = _path(data_dir)
    try:
        secret = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path) from error
    if len(secret) < MIN_SECRET_CHARS:
        raise _unusable(path)
    return secret


def make_kept_secret(data_dir: Path) -> str:
    """Return the secret kept in this directory, making it at the first call; only its user can read it.

    Raises:
        SettingsError: it cannot be read or written.
    """
    kept = read_kept_secret(data_dir)
    if kept is not None:
        return kept
    path = _path(data_dir)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(_SECRET_BYTES))
        # Linking is atomic and never replaces: of two processes that make it at once, both use the first one's.
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise _unusable(path) from error
    made = read_kept_secret(data_dir)
    if made is None:
        raise _unusable(path)
    return made


def _path(data_dir: Path) -> Path:
    return data_dir / "jwt-secret"


def _unusable(path: Path) -> SettingsError:
    message = f"{path} cannot be read or written as a secret; remove it, or set JWT_SECRET"
    problem = FieldError(field="JWT_SECRET", code="kept_secret", message=message)
    return SettingsError("the settings are not valid:", errors=[problem])
