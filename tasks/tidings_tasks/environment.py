"""The environment of a process: its variables, over those of a ``.env`` file, without what Kubernetes adds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tidings.protocol.errors import FieldError, TidingsError

__all__ = [
    "BARE_NAMES",
    "CLIENT_NAMES",
    "WORKER_BARE_NAMES",
    "SettingsError",
    "read_dotenv",
    "read_environment",
]

BARE_NAMES: Mapping[str, str] = {
    "CORS_ORIGIN": "cors_origins",
    "JWT_SECRET": "jwt_secret",
    "LOG_LEVEL": "log_level",
    "PORT": "port",
    "REDIS_HOST": "redis_host",
    "REDIS_PASSWORD": "redis_password",
    "REDIS_PORT": "redis_port",
    "REDIS_TLS_ENABLED": "redis_tls_enabled",
    "REDIS_URL": "redis_url",
    "SOCKET_PORT": "port",
    "WORKER_CONCURRENCY": "worker_concurrency",
    "WORKER_ID": "worker_id",
    "WORKER_MAX_JOBS": "worker_max_jobs",
}
"""The usual names and the fields they set. Of two names for one field the first in this table wins, ``TIDINGS_…`` over both."""

WORKER_BARE_NAMES: Mapping[str, str] = {
    **{name: field for name, field in BARE_NAMES.items() if field != "port"},
    "PORT": "worker_port",
}
"""The same for ``tidings worker``, whose port is the one that a platform such as Cloud Run asks for."""

CLIENT_NAMES = frozenset({"TIDINGS_URL", "TIDINGS_TOKEN"})
"""Read by the client's commands alone, and no error here."""

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", re.DOTALL)
_QUOTED = re.compile(r"""(?:"([^"]*)"|'([^']*)')(?:\s+#.*)?""")

# Kubernetes gives every pod variables for each service of its namespace: a service called `tidings` or `redis` would
# otherwise be read as settings (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_SERVICE_NAME = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?$")
_SERVICE_VALUE = re.compile(r"^(tcp|udp|sctp)://")


class SettingsError(TidingsError):
    """The environment does not make valid settings. ``errors`` has one entry for each variable."""

    code, status, title = "invalid_settings", 500, "The settings are not valid"

    def __str__(self) -> str:
        return "\n".join([self.detail, *(f"  {e.field}: {e.message}" for e in self.errors)])


def read_environment(environ: Mapping[str, str] | None = None, dotenv: Path | None = None) -> dict[str, str]:
    """Return the variables of ``environ`` (default: this process's) over those of the file ``dotenv``.

    Raises:
        SettingsError: the file cannot be read, or a line of it is no ``NAME=value``.
    """
    own = {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if not (_SERVICE_NAME.search(name) or (name.endswith("_PORT") and _SERVICE_VALUE.match(value)))
    }
    return (read_dotenv(dotenv) if dotenv else {}) | own


def read_dotenv(path: Path) -> dict[str, str]:
    """Read ``NAME=value`` lines; ``#`` begins a comment, quotes around a value are removed, ``export`` is allowed.

    Raises:
        SettingsError: the file cannot be read, or a line of it is no ``NAME=value``. No value is shown.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{path} cannot be read: {reason}") from None
    found: dict[str, str] = {}
    problems: list[FieldError] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            where = f"{path}, line {number}"
            problems.append(FieldError(field=where, code="dotenv", message="write it as NAME=value"))
            continue
        name, value = match.groups()
        quoted = _QUOTED.fullmatch(value)
        found[name] = (quoted[1] or quoted[2] or "") if quoted else re.sub(r"(^|\s+)#.*$", "", value)
    if problems:
        raise SettingsError("the settings are not valid:", errors=problems)
    return found
