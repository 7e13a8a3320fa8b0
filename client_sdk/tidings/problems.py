"""Problem documents and refusals as they come from outside, made into errors whatever is in them."""

from __future__ import annotations

from collections.abc import Mapping

from .protocol.errors import TidingsError, error_from_problem

__all__ = ["read_problem"]


def read_problem(
    problem: object, *, status: int | None = None, retry_after_s: float | None = None
) -> TidingsError:
    """Return the error that ``problem`` stands for.

    What is missing or ill-typed in it is left out; at worst ``status``, or 500, decides alone.
    """
    members = problem if isinstance(problem, Mapping) else {}
    clean: dict[str, object] = {
        name: members[name] for name in ("code", "detail", "request_id") if isinstance(members.get(name), str)
    }
    faults = members.get("errors")
    if isinstance(faults, list):
        clean["errors"] = [
            {name: text for name, text in fault.items() if isinstance(text, str)}
            for fault in faults
            if isinstance(fault, Mapping)
        ]
    told = members.get("status")
    if status is None:
        status = told if isinstance(told, int) else 500
    return error_from_problem(clean, status=status, retry_after_s=retry_after_s)
