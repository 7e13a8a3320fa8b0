"""Turns a table or a text file into the input of the job type `report.render`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

__all__ = ["report_input_from_file"]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(?:\.([0-9]{1,6}))?")
"""What a report shows in full; ``007``, ``1e5``, ``NaN`` and long account numbers stay text."""
_ATX = re.compile(r" {0,3}(#{1,2})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
_NO_PARAGRAPH = re.compile(r"(\s{4}|\t| {0,3}([>#|]|[-+*][ \t]|[0-9]{1,9}[.)][ \t]))")

ReportFormat = Literal["pdf", "docx", "html"]


def report_input_from_file(
    path: Path | str, format: ReportFormat = "pdf", title: str | None = None
) -> dict[str, Any]:
    """Read a ``.csv`` or ``.md`` file (UTF-8) as ``{title, sections, format}``.

    A CSV file becomes one section with a table: its first row names the columns, its delimiter (comma,
    semicolon, tab or bar) is recognised, and a column of plain numbers that are all written alike becomes numbers;
    others stay text, so that ``39.90`` is shown as ``39.90``. A Markdown file is cut into sections at its headings of
    levels 1 and 2; a heading of level 1 at its very beginning is the title.

    Args:
        path: The file; its name stands in where a heading or title is wanting.
        format: Of the report.
        title: Instead of the file's own.

    Raises:
        ValueError: the file is of another kind, not UTF-8, empty, or has a row that is longer than its first.
        OSError: it can't be read.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in {".csv", ".md", ".markdown"}:
        raise ValueError(f"{path.name}: a report is made from a .csv or .md file, not from {kind or 'this'}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if not text.strip():
        raise ValueError(f"{path.name}: the file is empty")
    name = re.sub(r"[-_\s]+", " ", path.stem).strip() or path.name
    name = name[0].upper() + name[1:]
    if kind == ".csv":
        sections: list[dict[str, Any]] = [{"heading": name, "table": _table(path.name, text)}]
    else:
        own_title, sections = _sections(text, name)
        title = title or own_title
    return {"title": title or name, "sections": sections, "format": format}


def _table(file_name: str, text: str) -> dict[str, Any]:
    try:
        rows = [
            row
            for row in csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(text), strict=True)
            if row
        ]
    except csv.Error as error:
        raise ValueError(f"{file_name}: not readable as CSV: {error}") from error
    columns, *body = rows
    for number, row in enumerate(body, start=2):
        if len(row) > len(columns):
            raise ValueError(
                f"{file_name}: row {number} has {len(row)} cells, the first row only {len(columns)}"
            )
    width = len(columns)
    cells = [[cell.strip() for cell in row] + [""] * (width - len(row)) for row in body]
    typed = [_column([row[index] for row in cells]) for index in range(width)]
    return {
        "columns": [cell.strip() for cell in columns],
        "rows": [list(row) for row in zip(*typed, strict=True)],
    }


def _delimiter(text: str) -> str:
    """Choose by the first line, outside quotes; the sniffer of the csv module guesses letters in short files."""
    line = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").splitlines()[0])
    return max(",;\t|", key=line.count)


def _column(texts: list[str]) -> list[Any]:
    """Make numbers of a column only where a report then shows what is written in each of its cells.

    ``39.90`` would become ``39.9``, and ``98`` beside ``120.5`` would be shown as ``98.0``.
    """
    filled = [text for text in texts if text]
    numbers = [_NUMBER.fullmatch(text) for text in filled]
    decimals = {len(number[2] or "") if number else None for number in numbers}
    if len(decimals) != 1 or None in decimals:
        return texts
    kind = float if decimals != {0} else int
    kept = all(str(kind(text)) == text for text in filled)
    return [kind(text) if text else "" for text in texts] if kept else texts


def _sections(text: str, name: str) -> tuple[str | None, list[dict[str, Any]]]:
    title = None
    sections: list[dict[str, Any]] = []
    for number, (level, heading, body) in enumerate(_cut(text.splitlines())):
        if number == 0 and level == 0 and not body:
            continue
        if not sections and title is None and level == 1:
            title = heading
            if not body:
                continue
        sections.append({"heading": heading or title or name, "markdown": body})
    return title, sections or [{"heading": title or name, "markdown": ""}]


def _cut(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yield (level, heading, body), first what stands before the first heading as level 0 (CommonMark 4.2–4.5)."""
    level, heading, body = 0, "", list[str]()
    fence = ""
    for line in lines:
        found = None
        if fence:
            close = _FENCE.match(line)
            if close and close[1].startswith(fence) and not close[2].strip():
                fence = ""
        elif opening := _FENCE.match(line):
            fence = opening[1]
        elif atx := _ATX.match(line):
            found = (len(atx[1]), atx[2] or "", body)
        elif (under := _UNDERLINE.match(line)) and _is_lone_paragraph(body):
            found = (1 if under[1][0] == "=" else 2, body[-1].strip(), body[:-1])
        if found is None:
            body.append(line)
            continue
        yield level, heading, "\n".join(found[2]).strip("\n")
        level, heading, body = found[0], found[1].strip(), []
    yield level, heading, "\n".join(body).strip("\n")


def _is_lone_paragraph(body: list[str]) -> bool:
    if not body or not body[-1].strip() or _NO_PARAGRAPH.match(body[-1]):
        return False
    return len(body) == 1 or not body[-2].strip()
