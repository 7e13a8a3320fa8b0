"""What `--input` makes of JSON and files, and what errors look like on one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from tidings.cli.inputs import read_batch, read_input, read_object
from tidings.cli.messages import describe, one_line, printable
from tidings.protocol import errors


def test_objects_are_put_together_the_later_over_the_earlier(tmp_path: Path) -> None:
    """From the line and from files."""
    (tmp_path / "a.json").write_text('{"steps": 5, "delay_ms": 1}')
    assert read_input(['{"steps": 3}', f"@{tmp_path}/a.json", '{"delay_ms": 2}']) == {
        "steps": 5,
        "delay_ms": 2,
    }
    assert read_input([]) == {}


def test_documents_are_put_one_behind_the_other_and_json_has_the_last_word(tmp_path: Path) -> None:
    """Sections in order; title and format from JSON, else the first document's title."""
    (tmp_path / "t.csv").write_text("a\n1\n")
    (tmp_path / "n.md").write_text("# Notes\ntext\n")
    files = [f"@{tmp_path}/t.csv", f"@{tmp_path}/n.md"]
    report = read_input(files)
    assert [section["heading"] for section in report["sections"]] == ["T", "Notes"]
    assert (report["title"], report["format"]) == ("T", "pdf")
    report = read_input(['{"title": "Q3", "format": "html", "sections": [{"heading": "First"}]}', *files])
    assert [section["heading"] for section in report["sections"]] == ["First", "T", "Notes"]
    assert (report["title"], report["format"]) == ("Q3", "html")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("{steps: 3}", "not JSON: .*; give an object such as"),
        ("[1]", "a JSON object is needed, not list"),
        ("@none.json", "none.json: No such file or directory"),
        ("@none.csv", "none.csv: No such file or directory"),
        ("@bad.csv", r"bad.csv: row 2 has 2 cells"),
        ("@bad.json", r"bad.json: not JSON"),
    ],
)
def test_what_can_not_be_read_is_wrong_usage_with_its_reason(
    given: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naming the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("a\n1,2\n")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(typer.BadParameter, match=reason) as caught:
        read_input([given])
    assert "\n" not in str(caught.value)


def test_metadata_is_read_in_the_same_way() -> None:
    """With its own name in the message."""
    assert read_object('{"a": 1}', "--metadata") == {"a": 1}
    with pytest.raises(typer.BadParameter) as caught:
        read_object("1", "--metadata")
    assert "--metadata" in caught.value.format_message()


def test_an_error_is_one_line_with_field_reason_fix_and_code() -> None:
    """Whatever the server sent."""
    fault = errors.FieldError(field="input.steps", code="missing", message="Field\nrequired")
    assert describe(errors.InvalidInput(errors=[fault])) == "input.steps: Field required (invalid_input)"
    assert "is the server running" in describe(errors.ConnectionLost("can't reach http://x"))
    assert "TIDINGS_TOKEN" in describe(errors.TokenExpired())
    assert describe(errors.RateLimited("slow down", retry_after_s=7)).startswith(
        "slow down; try again in 7 s"
    )
    assert describe(errors.InternalError("x", request_id="r9")).endswith("(internal_error) [request r9]")


def test_foreign_text_can_not_drive_the_terminal() -> None:
    """Escape sequences and direction overrides are made visible; tabs and line ends stay."""
    assert printable("a\x1b[2Jb\x9b\u202ec\td\ne") == "a\ufffd[2Jb\ufffd\ufffdc\td\ne"
    assert one_line(" a \n\t b\x07 ") == "a b\ufffd"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "1 to 1,000 inputs go into a batch, not 0"),
        ("\n \n", "1 to 1,000 inputs go into a batch, not 0"),
        ("{}\n" * 1001, "1 to 1,000 inputs go into a batch, not 1,001"),
        ("{}\n[]\n", "line 2: a JSON object is needed, not list"),
        ("{}\n\n{", "line 3: not JSON"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_by_line(tmp_path: Path, text: str, reason: str) -> None:
    """With the number of the line as an editor shows it."""
    (tmp_path / "b.jsonl").write_text(text)
    with pytest.raises(typer.BadParameter, match=re.escape(reason)):
        read_batch(f"@{tmp_path}/b.jsonl")


def test_a_batch_is_an_input_a_line(tmp_path: Path) -> None:
    """Blank lines count for nothing."""
    (tmp_path / "b.jsonl").write_text('{"a": 1}\r\n\n{"a": "\u2028"}')
    assert read_batch(f"@{tmp_path}/b.jsonl") == [{"a": 1}, {"a": "\u2028"}]
