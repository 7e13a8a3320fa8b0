"""The `--input` of a job: JSON text, or files of JSON, tables and text, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import typer

from ..documents import report_input_from_file
from ..protocol.bulk import MAX_BATCH

__all__ = ["read_batch", "read_input", "read_object"]

_DOCUMENTS = {".csv", ".md", ".markdown"}


def read_input(given: Sequence[str]) -> dict[str, Any]:
    """Put all ``--input`` values together: ``sections`` in order, otherwise a later member over an earlier.

    What JSON says about a report (its title, its format) goes before what its documents suggest.

    Raises:
        typer.BadParameter: a value is neither a JSON object nor a readable file.
    """
    whole: dict[str, Any] = {}
    suggested: dict[str, Any] = {}
    sections: list[Any] = []
    for text in given:
        path = Path(text[1:]) if text.startswith("@") else None
        if path is not None and path.suffix.lower() in _DOCUMENTS:
            document = _read_document(path)
            sections += document.pop("sections")
            suggested = document | suggested
        else:
            part = read_object(text, "--input")
            if isinstance(part.get("sections"), list):
                sections += part.pop("sections")
            whole |= part
    return suggested | whole | ({"sections": sections} if sections else {})


def read_batch(text: str) -> list[dict[str, Any]]:
    """Read the inputs of a batch: a file, given as ``@file``, with a JSON object on each line that is not blank.

    Raises:
        typer.BadParameter: it cannot be read, a line is no object, or there are none or more than 1,000.
    """
    if not text.startswith("@"):
        raise typer.BadParameter("give a file as @file.jsonl, an input on each line", param_hint="--batch")
    try:
        lines = Path(text[1:]).read_bytes().splitlines()
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]}: {error.strerror}", param_hint="--batch") from error
    inputs: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise typer.BadParameter(
                f"{text[1:]}, line {number}: not JSON: {error}", param_hint="--batch"
            ) from error
        if not isinstance(value, dict):
            raise typer.BadParameter(
                f"{text[1:]}, line {number}: a JSON object is needed, not {type(value).__name__}",
                param_hint="--batch",
            )
        inputs.append(value)
    if not 1 <= len(inputs) <= MAX_BATCH:
        raise typer.BadParameter(
            f"{text[1:]}: 1 to {MAX_BATCH:,} inputs go into a batch, not {len(inputs):,}",
            param_hint="--batch",
        )
    return inputs


def read_object(text: str, option: str) -> dict[str, Any]:
    """Read a JSON object, given as it is or as ``@file``.

    Raises:
        typer.BadParameter: it is none; the message says where and why.
    """
    where = "" if not text.startswith("@") else f"{text[1:]}: "
    try:
        value = orjson.loads(Path(text[1:]).read_bytes() if where else text)
    except OSError as error:
        raise typer.BadParameter(f"{where}{error.strerror}", param_hint=option) from error
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(
            f"{where}not JSON: {error}; give an object such as '{{\"steps\": 3}}', or @file",
            param_hint=option,
        ) from error
    if not isinstance(value, dict):
        raise typer.BadParameter(
            f"{where}a JSON object is needed, not {type(value).__name__}", param_hint=option
        )
    return value


def _read_document(path: Path) -> dict[str, Any]:
    try:
        return report_input_from_file(path)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--input") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--input") from error
