"""The table of settings, made from the model; ``python -m tests.support.settings_table`` writes it into the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidings_tasks.settings import BARE_NAMES, MIN_SECRET_CHARS, Settings

__all__ = ["DOCUMENT", "insert_table", "render_table"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
_BEGIN, _END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def render_table() -> str:
    """Return one row for each setting: names, what is accepted, default, meaning."""
    rows = ["| Setting | Also | Accepts | Default | Meaning |", "|---|---|---|---|---|"]
    schema = Settings.model_json_schema()["properties"]
    for name, field in Settings.model_fields.items():
        also = ", ".join(f"`{bare}`" for bare, target in BARE_NAMES.items() if target == name)
        shown = [f"`TIDINGS_{name.upper()}`", also, _accepts(name, schema[name]), _default(field.default)]
        rows.append(f"| {' | '.join(shown)} | {field.description} |".replace("|  |", "| |"))
    return "\n".join(rows) + "\n"


def insert_table(document: str, table: str) -> str:
    """Return the document with this table between its marks."""
    before, rest = document.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}{table}{_END}{after}"


def _accepts(name: str, schema: dict[str, Any]) -> str:
    (kind, *_) = [entry for entry in schema.get("anyOf", [schema]) if entry.get("type") != "null"]
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind["type"] in {"integer", "number"}:
        least = f"> {kind['exclusiveMinimum']:g}" if "exclusiveMinimum" in kind else f"{kind['minimum']:,}"
        return f"{least} to {kind['maximum']:,}" if "maximum" in kind else f"from {least}"
    if name == "jwt_secret":
        return f"text, at least {MIN_SECRET_CHARS} characters"
    plain = {"boolean": "`true`, `false`", "array": "a list, by commas", "object": "JSON"}
    formats = {"path": "a path", "password": "text, secret"}
    return plain.get(kind["type"]) or formats.get(kind.get("format", ""), "text")


def _default(value: Any) -> str:
    if value is None or value in ((), {}):
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    DOCUMENT.write_text(insert_table(DOCUMENT.read_text("utf-8"), render_table()), "utf-8")
