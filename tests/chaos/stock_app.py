"""The chaos's jobs for the stock ``dramatiq`` command."""

from __future__ import annotations

import dramatiq

from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.settings import load_settings

dramatiq.set_broker(TidingsBroker(load_settings()))

import tests.chaos.job_types  # noqa: E402, F401  # after the broker, as an app's own modules
