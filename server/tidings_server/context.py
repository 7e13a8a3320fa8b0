"""What the application carries, by typed key."""

from __future__ import annotations

from typing import Final, Literal

from aiohttp import web

from tidings_tasks.files import FileStore
from tidings_tasks.registry import Registry
from tidings_tasks.settings import Settings
from tidings_tasks.store import Store

from .auth import Authenticator
from .eta import Forecast
from .gateway import Gateway
from .intake import Intake
from .life import Life
from .limits import Limiter
from .metrics import Metrics
from .relay import Relay
from .streams import Streams
from .upkeep import Upkeep

__all__ = [
    "AUTHENTICATOR",
    "FILES",
    "FORECAST",
    "GATEWAY",
    "INTAKE",
    "LIFE",
    "LIMITER",
    "METRICS",
    "MODE",
    "REGISTRY",
    "RELAY",
    "SETTINGS",
    "STORE",
    "STREAMS",
    "UPKEEP",
    "Mode",
]

Mode = Literal["embedded", "standalone", "cluster"]
"""How the store is run: a child of this installation, a server of its own, or a cluster."""

SETTINGS: Final = web.AppKey("settings", Settings)
MODE: Final[web.AppKey[Mode]] = web.AppKey("mode")
LIFE: Final = web.AppKey("life", Life)
AUTHENTICATOR: Final = web.AppKey("authenticator", Authenticator)
REGISTRY: Final = web.AppKey("registry", Registry)
STORE: Final = web.AppKey("store", Store)
FILES: Final = web.AppKey("files", FileStore)
FORECAST: Final = web.AppKey("forecast", Forecast)
RELAY: Final = web.AppKey("relay", Relay)
GATEWAY: Final = web.AppKey("gateway", Gateway)
INTAKE: Final = web.AppKey("intake", Intake)
LIMITER: Final = web.AppKey("limiter", Limiter)
STREAMS: Final = web.AppKey("streams", Streams)
UPKEEP: Final = web.AppKey("upkeep", Upkeep)
METRICS: Final = web.AppKey("metrics", Metrics)
