"""Settings: read once from the environment, ``.env`` and ``tidings.toml``, validated whole, frozen, passed in (contract §9).

Every setting has the name ``TIDINGS_<FIELD>``; the usual bare names of ``BARE_NAMES`` are accepted too. An error names the
variable, the reason and the fix, and all errors are told at once.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tidings.protocol.errors import FieldError

from .declared import SECTIONS, read_declared
from .environment import BARE_NAMES, CLIENT_NAMES, WORKER_BARE_NAMES, SettingsError, read_environment
from .queue.dependencies import Dependency, overlay_dependencies
from .queue.profiles import Profile, overlay_profiles
from .queue.queues import QueuePolicy, overlay_queues
from .schedules.schedule import Schedule, overlay_schedules

__all__ = [
    "BARE_NAMES",
    "CLIENT_NAMES",
    "MIN_SECRET_CHARS",
    "WORKER_BARE_NAMES",
    "Settings",
    "SettingsError",
    "load_settings",
]

MIN_SECRET_CHARS = 32


_OVERLAYS = {
    "profiles": overlay_profiles,
    "dependencies": overlay_dependencies,
    "schedules": overlay_schedules,
}


class Settings(BaseModel):
    """One process's settings. Build with ``load_settings``, or directly in tests."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    env: Literal["development", "production", "test"] = Field("production", description="Which rules apply.")
    config_file: Path | None = Field(
        None,
        description="The file of queues, profiles, dependencies, schedules; default: `tidings.toml`, if there.",
    )
    jobs: tuple[str, ...] = Field((), description="Modules that register job types, separated by commas.")
    data_dir: Path = Field(Path(".tidings"), description="Where the embedded store and files are kept.")

    redis_url: SecretStr | None = Field(None, description="The job store: redis://, rediss:// or unix://.")
    redis_host: str | None = Field(None, description="Instead of redis_url: the host.")
    redis_port: int = Field(6379, ge=1, le=65535, description="With redis_host: the port.")
    redis_password: SecretStr | None = Field(None, description="With redis_host: the password.")
    redis_tls_enabled: bool = Field(False, description="With redis_host: whether to use TLS.")
    key_prefix: str = Field(
        "tidings", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Begins every key; one per installation."
    )
    shards: int = Field(1, ge=1, le=4096, description="Fixed when an installation is made.")
    store_timeout_s: float = Field(5.0, gt=0, le=60, description="Bound on one call of the store, seconds.")

    host: str = Field("127.0.0.1", description="The address the server listens on.")
    port: int = Field(8000, ge=0, le=65535, description="The server's port; 0 picks a free one.")
    static_dir: Path | None = Field(
        None, description="Serve the browser files from here instead of the package."
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins of other sites that may call, separated by commas."
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1024, le=16_777_216, description="Bound on a JSON request, bytes."
    )
    max_file_bytes: int = Field(
        33_554_432, ge=1024, le=1_073_741_824, description="Bound on an uploaded or produced file, bytes."
    )
    max_connections: int = Field(
        20_000, ge=1, description="Socket.IO connections one server process accepts."
    )
    max_subscriptions: int = Field(
        1000, ge=1, le=100_000, description="Jobs one connection may watch at once."
    )
    max_streams: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="SSE streams and long-polls one caller may hold on a server process.",
    )
    submissions_per_minute: int = Field(
        6000,
        ge=1,
        le=10_000_000,
        description="Jobs and files one caller may submit to a server process in a minute.",
    )
    metrics_public: bool = Field(
        False, description="Show `/metrics` to everybody, not only to this machine and to admins."
    )
    send_buffer_bytes: int = Field(
        1_048_576, ge=524_288, description="What may wait for one slow client, bytes; then it is closed."
    )
    shutdown_grace_s: float = Field(
        8.0, ge=0, le=600, description="How long running work is waited for at SIGTERM, seconds."
    )

    jwt_secret: SecretStr | None = Field(None, description="The HS256 key, at least 32 characters.")
    jwt_issuer: str | None = Field(None, description="The `iss` a token must have.")
    jwt_audience: str | None = Field(None, description="The `aud` a token must have.")

    worker_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="The worker's name; default: host, pid and a random part.",
    )
    worker_profile: str | None = Field(
        None, description="The profile a worker is started as; default: every queue."
    )
    worker_concurrency: int = Field(10, ge=1, le=10_000, description="Jobs one worker process runs at once.")
    worker_max_jobs: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Rate of the queue `default`, job starts a minute on all workers.",
    )
    worker_threads: int = Field(10, ge=1, le=256, description="Threads for synchronous job functions.")
    worker_processes: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Child processes for job functions with process=True; default: one per CPU, at least 2.",
    )
    worker_process_jobs: int = Field(
        1000, ge=1, le=10_000_000, description="Replace such a process after so many jobs."
    )
    worker_process_rss_mib: int | None = Field(
        None, ge=16, le=1_048_576, description="Replace such a process after a job that left it larger, MiB."
    )
    worker_recycle_jobs: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="End the worker after so many jobs, and up to a tenth more, to be started again.",
    )
    worker_recycle_rss_mib: int | None = Field(
        None,
        ge=64,
        le=1_048_576,
        description="End the worker when it has grown larger, MiB, to be started again.",
    )
    hook_timeout_s: float = Field(
        10.0, gt=0, le=300, description="How long a hook of a job author may take, seconds."
    )
    worker_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Serve the worker's health and metrics on this port; for `tidings worker` also `PORT`.",
    )
    lease_s: float = Field(
        6.0, ge=0.5, le=300, description="A worker that is silent for so long has lost its jobs, seconds."
    )
    max_result_bytes: int = Field(
        1_048_576, ge=1024, le=16_777_216, description="Bound on a job's result, bytes of JSON."
    )
    max_event_bytes: int = Field(
        65_536, ge=1024, le=1_048_576, description="Bound on one event's data, bytes of JSON."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is logged."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="One JSON object a line, or text for people."
    )

    queues: Mapping[str, QueuePolicy] = Field(
        {}, validate_default=True, description="Queues, over the built-in ones; see below."
    )
    profiles: Mapping[str, Profile] = Field(
        {}, validate_default=True, description="Worker profiles, over the built-in ones; see below."
    )
    dependencies: Mapping[str, Dependency] = Field(
        {}, description="When the circuits of named dependencies open; see below."
    )
    schedules: Mapping[str, Schedule] = Field(
        {}, description="Jobs that are submitted by the clock; see below."
    )

    @field_validator("queues", mode="before")
    @classmethod
    def _over_built_in_queues(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        return overlay_queues(
            value,
            max_jobs_per_minute=info.data.get("worker_max_jobs"),
            worker_concurrency=info.data.get("worker_concurrency", 0),
        )

    @field_validator("profiles", "dependencies", "schedules", mode="before")
    @classmethod
    def _over_built_in(cls, value: Any, info: ValidationInfo) -> Any:
        return _OVERLAYS[info.field_name or ""](value) if isinstance(value, Mapping) else value

    @field_validator("jobs", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("jobs")
    @classmethod
    def _module_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{name!r} is no module; write it as for an import, such as myapp.jobs")
        return value

    @field_validator("config_file", "data_dir", "static_dir")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("env", "log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _store_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = urlsplit(value.get_secret_value())
            place = url.path if url.scheme == "unix" else url.hostname
            _ = url.port
        except ValueError:
            place = None
        if not place or url.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError(
                "is no store's URL; write redis://HOST:PORT/0, rediss:// for TLS, or unix:///PATH, "
                "with /, @ and : of a password percent-encoded"
            )
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(
                f"must have at least {MIN_SECRET_CHARS} characters; make one with: "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.match(r"^https?://[^/\s]+$", origin):
                raise ValueError(
                    f"{origin!r} is no origin; write it like https://app.example.com, without a path"
                )
        return value

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        # Each message begins with its field, which `load_settings` turns into the variable's name.
        if self.env == "production" and "*" in self.cors_origins:
            raise ValueError(
                "cors_origins: '*' lets every site act for a signed-in user; name the origins in production"
            )
        if self.redis_url is None and self.redis_host is None and self.redis_password is not None:
            raise ValueError(
                "redis_password: goes with REDIS_HOST, which is not set; or write both in REDIS_URL"
            )
        if self.worker_profile is not None and self.worker_profile not in self.profiles:
            near = difflib.get_close_matches(self.worker_profile, self.profiles, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(self.profiles))}"
            raise ValueError(f"worker_profile: there is no profile {self.worker_profile[:128]!r}; {hint}")
        return self

    @property
    def profile(self) -> Profile:
        """The profile of a worker of these settings, with its number of jobs at once resolved."""
        found = self.profiles[self.worker_profile or "all"]
        if found.concurrency is None or "worker_concurrency" in self.model_fields_set:
            return found.model_copy(update={"concurrency": self.worker_concurrency})
        return found

    @property
    def store_url(self) -> str | None:
        """The store's URL with its password, from ``redis_url`` or the host's parts; None when neither is set."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        if self.redis_host is None:
            return None
        secret = f":{quote(self.redis_password.get_secret_value(), safe='')}@" if self.redis_password else ""
        scheme = "rediss" if self.redis_tls_enabled else "redis"
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"{scheme}://{secret}{host}:{self.redis_port}/0"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for the log's redactor alone."""
        password = urlsplit(self.store_url or "").password
        own = self.jwt_secret.get_secret_value() if self.jwt_secret else None
        return tuple({secret for secret in (own, password, unquote(password or "")) if secret})


def load_settings(
    environ: Mapping[str, str] | None = None,
    *,
    dotenv: Path | None = Path(".env"),
    config: Path | None = Path("tidings.toml"),
    bare_names: Mapping[str, str] = BARE_NAMES,
    **overrides: Any,
) -> Settings:
    """Build the settings of this process: arguments win over the environment, it wins over the files.

    Args:
        dotenv: the file below the environment, where it is there.
        bare_names: the usual names and their fields. With ``WORKER_BARE_NAMES`` a ``PORT`` in the file ``dotenv`` is left to the
            server, with which a worker may share it.
        config: the file of queues and the like, where it is there and ``TIDINGS_CONFIG_FILE`` names no other.

    Raises:
        SettingsError: with an entry for every variable that is unknown or not valid.
    """
    env = read_environment(environ, dotenv)
    names: dict[str, str] = {}
    problems: list[FieldError] = []
    declared = read_declared(env, config)
    problems += declared.problems
    values: dict[str, Any] = dict(declared.tables)
    if bare_names is WORKER_BARE_NAMES and "PORT" not in (os.environ if environ is None else environ):
        env.pop("PORT", None)
    for bare, field in bare_names.items():
        if env.get(bare) and field not in values:
            values[field], names[field] = env[bare], bare
    for name, value in env.items():
        if not name.startswith("TIDINGS_") or name in CLIENT_NAMES:
            continue
        field = name.removeprefix("TIDINGS_").lower()
        if field not in Settings.model_fields:
            problems.append(FieldError(field=name, code="unknown_setting", message=_unknown(name)))
        elif value != "" and field not in SECTIONS:
            values[field], names[field] = value, name
    for field, value in overrides.items():
        if value is not None:
            values[field] = value
            names.pop(field, None)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for entry in error.errors(include_input=False, include_url=False):
            message = entry["msg"].removeprefix("Value error, ")
            if entry["loc"] and entry["loc"][0] in declared.tables:
                problems.append(declared.describe(entry["loc"], entry["type"], message))
                continue
            field = str(entry["loc"][0]) if entry["loc"] else message.partition(": ")[0]
            message = message.removeprefix(f"{field}: ")
            name = names.get(field, f"TIDINGS_{field.upper()}")
            problems.append(FieldError(field=name, code=entry["type"], message=message))
    if problems:
        raise SettingsError("the settings are not valid:", errors=problems)
    return settings


def _unknown(name: str) -> str:
    known = sorted({f"TIDINGS_{field.upper()}" for field in Settings.model_fields} | CLIENT_NAMES)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return (
        f"unknown setting; did you mean {near[0]}?"
        if near
        else "unknown setting; docs/settings.md lists the known ones"
    )
