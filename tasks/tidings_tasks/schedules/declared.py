"""What only the registered job types can say of the schedules that the settings declare."""

from __future__ import annotations

from collections.abc import Mapping

from tidings.protocol.errors import FieldError, InvalidInput, UnknownJobType

from ..environment import SettingsError
from ..queue.queues import QueuePolicy
from ..registry import Registry
from ..store import Keyspace
from .runs import Press
from .schedule import Schedule

__all__ = ["check_declared"]


def check_declared(
    declared: Mapping[str, Schedule],
    registry: Registry,
    policies: Mapping[str, QueuePolicy],
    keyspace: Keyspace,
) -> list[str]:
    """Check inputs and queues, and return a warning for each schedule whose type this process does not have.

    Raises:
        SettingsError: with an entry for each field that is wrong, such as ``schedules.nightly.input.rows``.
    """
    press = Press(keyspace, registry, policies)
    problems: list[FieldError] = []
    warnings: list[str] = []
    for name, schedule in declared.items():
        try:
            press.make_run(schedule, 0)
        except UnknownJobType as error:
            warnings.append(f"schedules.{name}.type: {error.detail}")
        except InvalidInput as error:
            problems += [
                entry.model_copy(update={"field": f"schedules.{name}.{entry.field}"})
                for entry in error.errors
            ]
    if problems:
        raise SettingsError("the schedules of the settings are not valid:", errors=problems)
    return warnings
