"""Importing the modules that register job types, with a fault told so that its author finds it.

``python -m tidings_tasks.job_modules MODULE …`` only tries it, in a process of its own: status 0 when all import.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable

from tidings.protocol.errors import FieldError

from .registry import Registry, load_modules
from .settings import SettingsError

__all__ = ["import_job_modules"]

_FIX = "is it installed, or in the directory the command is started in?"


def import_job_modules(names: Iterable[str]) -> Registry:
    """Import the modules and return the registry that they have filled.

    Raises:
        SettingsError: one entry for each module that does not import, with the place of the fault.
    """
    problems: list[FieldError] = []
    registry = load_modules(())
    for name in names:
        # The modules are other people's code: whatever they raise is their author's to read.
        try:
            load_modules([name])
        except Exception as error:
            problems.append(FieldError(field=name, code="import_failed", message=_explain(name, error)))
    if problems:
        raise SettingsError("these job modules cannot be loaded (arguments, TIDINGS_JOBS):", errors=problems)
    return registry


def _explain(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        return f"there is no module {error.name!r}; {_FIX}"
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return what
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen importlib") and frame.filename != __file__
    ]  # fmt: skip
    return f"{frames[-1].filename}:{frames[-1].lineno}: {what}" if frames else what


if __name__ == "__main__":
    try:
        import_job_modules(sys.argv[1:])
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
