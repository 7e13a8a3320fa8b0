"""Which store a process uses: the one the settings name or, in development alone, an embedded one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from tidings.protocol.errors import FieldError

from .embedded import START_TIMEOUT_S, EmbeddedValkey, StoreInUse
from .settings import Settings, SettingsError

__all__ = ["StoreSource", "open_store", "require_store"]

_log = logging.getLogger(__name__)
_POLL_S = 0.02


class StoreSource(NamedTuple):
    """Where the store is: its URL, which may hold a password, and who runs it."""

    url: str
    mode: Literal["embedded", "standalone"]


def require_store(settings: Settings) -> None:
    """Refuse to go on without a store in production.

    Raises:
        SettingsError: no store is named, and `TIDINGS_ENV` is `production`.
    """
    if settings.store_url is None and settings.env == "production":
        message = (
            "no job store is named; set it to a Valkey or Redis, like redis://localhost:6379/0, "
            "or set TIDINGS_ENV=development for an embedded one"
        )
        problem = FieldError(field="REDIS_URL", code="missing", message=message)
        raise SettingsError("the settings are not valid:", errors=[problem])


@contextmanager
def open_store(settings: Settings) -> Iterator[StoreSource]:
    """Give the store of the settings; without one, run an embedded store or join the one that runs on this data.

    Call from the main thread; an embedded store that was started here ends with the context.

    Raises:
        SettingsError: no store is named, and `TIDINGS_ENV` is `production`.
        EmbeddedStoreError: the embedded store cannot be run.
    """
    require_store(settings)
    embedded = EmbeddedValkey(settings.data_dir)
    if settings.store_url is not None:
        # `tidings dev` names its own store to its children.
        yield StoreSource(
            settings.store_url, "embedded" if settings.store_url == embedded.url else "standalone"
        )
        return
    try:
        embedded.start()
    except StoreInUse as error:
        _join(embedded, error)
        _log.warning(
            "REDIS_URL is not set: using the embedded store that process %d runs on %s, as long as that lives",
            error.pid,
            embedded.directory,
        )
        yield StoreSource(embedded.url, "embedded")
        return
    try:
        _log.warning(
            "REDIS_URL is not set: running an embedded store on %s; this is for development, not for production",
            embedded.directory,
        )
        yield StoreSource(embedded.url, "embedded")
    finally:
        embedded.stop()


def _join(embedded: EmbeddedValkey, refusal: StoreInUse) -> None:
    """Wait until the other process's store answers: it may be loading its data."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not embedded.is_ready():
        if time.monotonic() > deadline:
            raise refusal
        time.sleep(_POLL_S)
