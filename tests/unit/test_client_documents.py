"""Tables and text files as the input of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidings import report_input_from_file
from tidings_tasks.jobs.rendering.request import TableData
from tidings_tasks.jobs.rendering.tables import lay_out_values


def read(tmp_path: Path, name: str, text: str | bytes, **options: Any) -> dict[str, Any]:
    """Write a file and read it as a report's input."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return report_input_from_file(path, **options)


def test_a_table_becomes_one_section(tmp_path: Path) -> None:
    """Named by the file, numbers recognised."""
    text = 'region,units,code\nNorth,12,007\n"South, far",-7,12\nEast,0,\n'
    assert read(tmp_path, "sales-2026_q3.csv", text) == {
        "title": "Sales 2026 q3",
        "sections": [
            {
                "heading": "Sales 2026 q3",
                "table": {
                    "columns": ["region", "units", "code"],
                    "rows": [["North", 12, "007"], ["South, far", -7, "12"], ["East", 0, ""]],
                },
            }
        ],
        "format": "pdf",
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_recognised(tmp_path: Path, delimiter: str) -> None:
    """As spreadsheets write it, also behind a byte order mark and with other line ends."""
    text = (
        b"\xef\xbb\xbf"
        + delimiter.join(["a", '"b, c; d"', "e"]).encode()
        + b"\r\n"
        + delimiter.join("123").encode()
    )
    (section,) = read(tmp_path, "t.csv", text)["sections"]
    assert section["table"] == {"columns": ["a", "b, c; d", "e"], "rows": [[1, 2, 3]]}


def test_a_short_row_is_filled_and_an_empty_one_left_out(tmp_path: Path) -> None:
    """As they are shown in a spreadsheet."""
    (section,) = read(tmp_path, "t.csv", 'a,b,c\n1\n\n"x\ny",2,3\n')["sections"]
    assert section["table"]["rows"] == [["1", "", ""], ["x\ny", 2, 3]]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("0", 0), ("-0.5", -0.5), ("1.5e3", "1.5e3"), ("-0", "-0"), ("0.1234567", "0.1234567"), ("NaN", "NaN"), ("inf", "inf"), ("0x10", "0x10"), ("1_000", "1_000"),
     ("12345678901234567890", "12345678901234567890"), (" 4 ", 4), ("٣", "٣"), ("1,5", "1,5")],
)  # fmt: skip
def test_only_plain_numbers_become_numbers(tmp_path: Path, cell: str, value: object) -> None:
    """What JSON or a reader would change stays text."""
    (section,) = read(tmp_path, "t.csv", f'n;m\n"{cell}";x\n')["sections"]
    assert section["table"]["rows"] == [[value, "x"]]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["39.95", "", "7.25"], [39.95, "", 7.25]),
        (["39.90", "7.25"], ["39.90", "7.25"]),
        (["120.5", "98"], ["120.5", "98"]),
        (["1.00", "2.00"], ["1.00", "2.00"]),
        (["1", "x"], ["1", "x"]),
    ],
)
def test_numbers_keep_their_written_form(tmp_path: Path, cells: list[str], values: list[object]) -> None:
    """A report shows the decimals of a column of numbers alike, so one cell that is written otherwise keeps all as text."""
    (section,) = read(tmp_path, "t.csv", "n;m\n" + "".join(f"{cell};x\n" for cell in cells))["sections"]
    assert [row[0] for row in section["table"]["rows"]] == values
    table = lay_out_values(TableData.model_validate(section["table"]))
    assert ["".join(span.text for span in row[0]) for row in table.rows] == cells
    assert table.aligns[0] == ("left" if "x" in cells else "right")


def test_a_text_is_cut_at_its_headings(tmp_path: Path) -> None:
    """Levels 1 and 2; deeper ones belong to their section."""
    text = "# Report\n\nIntro.\n\n## First ##\ntext\n### Deeper\nmore\n\nSecond\n------\n* item\n\n# Third\n"
    assert read(tmp_path, "notes.md", text, format="html") == {
        "title": "Report",
        "sections": [
            {"heading": "Report", "markdown": "Intro."},
            {"heading": "First", "markdown": "text\n### Deeper\nmore"},
            {"heading": "Second", "markdown": "* item"},
            {"heading": "Third", "markdown": ""},
        ],
        "format": "html",
    }


def test_a_title_alone_makes_no_section(tmp_path: Path) -> None:
    """It is the title."""
    report = read(tmp_path, "notes.md", "Big\n===\n\n## A\ntext\n")
    assert (report["title"], [section["heading"] for section in report["sections"]]) == ("Big", ["A"])


def test_what_only_looks_like_a_heading_is_none(tmp_path: Path) -> None:
    """Code, rules, tables, tags, lists, quotes."""
    body = (
        "```\n# code\n~~~\n```\n~~~~ py\n## code\n~~~\n~~~~\n#tag\n    # indented\n\n---\n\n| a |\n---\n\n- item\n---\n\n"
        "> quote\n---\n\ntwo lines\nof text\n---\nend"
    )
    (section,) = read(tmp_path, "my notes.md", body)["sections"]
    assert section == {"heading": "My notes", "markdown": body}


def test_a_given_title_goes_before_the_file_s(tmp_path: Path) -> None:
    """For both kinds."""
    assert read(tmp_path, "a.md", "# Own\ntext", title="Given")["title"] == "Given"
    assert read(tmp_path, "a.csv", "x\n1\n", title="Given")["title"] == "Given"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.txt", "x", r"a\.txt: a report is made from a \.csv or \.md file"),
        ("a.csv", b"\xff\xfe", r"a\.csv: not UTF-8 at byte 0; save it as UTF-8"),
        ("a.md", " \n", r"a\.md: the file is empty"),
        ("a.csv", "a,b\n1,2,3\n", r"a\.csv: row 2 has 3 cells, the first row only 2"),
        ("a.csv", 'a,b\n"x,2\n', r"a\.csv: not readable as CSV"),
    ],
)
def test_what_can_not_be_read_says_why(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    """In one line that names the file."""
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, name, text)
