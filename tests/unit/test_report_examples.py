"""The example report agrees with the example sales, and both with the script that makes them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from tidings import report_input_from_file
from tidings_tasks.jobs.rendering import ReportRequest, open_document
from tidings_tasks.jobs.report import render

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def sales() -> list[dict[str, str]]:
    """Read the example sales."""
    with (EXAMPLES / "sales.csv").open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Read the example input."""
    found: dict[str, Any] = json.loads((EXAMPLES / "quarterly-report.json").read_text(encoding="utf-8"))
    return found


def test_the_sales_are_made_by_the_script() -> None:
    """The script prints the committed file, byte for byte."""
    made = subprocess.run(
        [sys.executable, str(EXAMPLES / "make_sales.py")], check=True, capture_output=True, timeout=60
    )
    assert made.stdout == (EXAMPLES / "sales.csv").read_bytes()


@pytest.mark.parametrize(
    ("heading", "key"), [("Revenue by region", "region"), ("What sold", "product"), ("Channels", "channel")]
)
def test_the_report_sums_up_the_sales(
    sales: list[dict[str, str]], report: dict[str, Any], heading: str, key: str
) -> None:
    """Units and revenue by region, product and channel are the sums of the rows."""
    [table] = [section["table"] for section in report["sections"] if section["heading"] == heading]
    for name, units, revenue, _ in table["rows"]:
        rows = [row for row in sales if row[key] == name]
        assert units == sum(int(row["units"]) for row in rows)
        assert revenue == pytest.approx(sum(float(row["revenue"]) for row in rows))
    assert {row[0] for row in table["rows"]} == {row[key] for row in sales}


def test_the_example_renders_to_pages_that_hold_every_section(report: dict[str, Any]) -> None:
    """It is a valid input, and each of its headings is in the PDF's text."""
    request: ReportRequest = render.validate_input(report)
    document = open_document(request, datetime(2026, 11, 23, tzinfo=UTC))
    for section in request.sections:
        document.add(section)
    rendered = document.finish()
    text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(rendered.data)).pages)
    assert all(section.heading in text for section in request.sections)
    assert "120,021.42 €" in text
    assert rendered.undrawable == frozenset()


@pytest.mark.parametrize("name", ["quarterly-report.md", "sales.csv"])
def test_a_file_dropped_on_the_client_is_a_valid_report(name: str) -> None:
    """What the SDK makes of the example files passes the job's own input model."""
    render.validate_input(report_input_from_file(EXAMPLES / name))
