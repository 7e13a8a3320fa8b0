"""Dramatiq's result backends beside ours: they are asked by the id that a message has, and a message gets a job's id when it is sent."""

from __future__ import annotations

from typing import Any

from dramatiq import Message
from dramatiq.results import ResultBackend

from tidings.protocol import is_job_id

__all__ = ["JobResults"]


class JobResults:
    """A backend as it is, but that it says why the result of a message that was not sent itself cannot be had."""

    def __init__(self, backend: ResultBackend) -> None:
        self._backend = backend

    def get_result(self, message: Message[Any], *, block: bool = False, timeout: int | None = None) -> Any:
        """Return the result of a sent message.

        Raises:
            RuntimeError: the message has no job's id: it is a later step of a pipeline, which the step before sends, or
                was not sent at all.
        """
        if not is_job_id(message.message_id):
            raise RuntimeError(
                f"{message.actor_name} was not sent by this program, so the id of its job is not known here: a later step "
                "of a pipeline is sent when the step before it has ended. Let the last step tell its result (on_success, "
                "or a call of its own), or watch the jobs of the owner"
            )
        return self._backend.get_result(message, block=block, timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
