"""The job ``report.render``: progress by section, one file, and a loop that stays free."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime
from typing import Any

import pytest

from tests.unit.recorded_context import Call, RecordedContext
from tidings.protocol.errors import InvalidInput
from tidings_tasks import JobCancelled
from tidings_tasks.jobs import report
from tidings_tasks.jobs.rendering import Rendered, ReportRequest, Section

SECTIONS: list[dict[str, Any]] = [
    {"heading": "First", "markdown": "Two words"},
    {"heading": "Second", "table": {"columns": ["a", "b"], "rows": [[1, 2], [3, 4]]}},
    {"heading": "Third"},
]


def ask(**changes: Any) -> ReportRequest:
    """Make a request of three sections."""
    return ReportRequest.model_validate(
        {"title": "A title", "sections": SECTIONS, "format": "html", **changes}
    )


async def test_progress_goes_section_by_section_to_a_hundred() -> None:
    """Each section is announced before it is drawn; percent only grows, and ends at 100."""
    ctx = RecordedContext()
    await report.render(ctx.as_context(), ask())
    sent = ctx.named("progress")
    drawing = [(it["current"], it["total"], it["message"]) for it in sent if it["step"] == "render"]
    assert drawing == [(1, 3, "rendering 'First'"), (2, 3, "rendering 'Second'"), (3, 3, "rendering 'Third'")]
    percents = [it["percent"] for it in sent]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)


@pytest.mark.parametrize(
    ("format", "begins", "media_type", "pages"),
    [
        ("pdf", b"%PDF-", "application/pdf", 1),
        ("docx", b"PK", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", None),
        ("html", b"<!doctype html>", "text/html; charset=utf-8", None),
    ],
)
async def test_the_result_names_the_one_file_it_saved(
    format: str, begins: bytes, media_type: str, pages: int | None
) -> None:
    """Each format is saved under its own media type; only a PDF has a number of pages."""
    ctx = RecordedContext()
    result = await report.render(ctx.as_context(), ask(format=format))
    [(name, data)] = ctx.saved.items()
    assert name == f"a-title.{format}"
    assert data.startswith(begins)
    assert result["file"] == {"id": "0" * 26, "name": name, "media_type": media_type, "size_bytes": len(data)}
    assert (result["sections"], result.get("pages")) == (3, pages)


async def test_what_was_drawn_is_logged() -> None:
    """One line a section, with what was in it."""
    ctx = RecordedContext()
    await report.render(ctx.as_context(), ask())
    assert [it["message"] for it in ctx.named("log")][1:4] == [
        "section 1, 'First': 2 words",
        "section 2, 'Second': a table of 2 rows",
        "section 3, 'Third': its heading",
    ]


async def test_characters_without_a_glyph_are_reported() -> None:
    """A reader of the log learns which characters the PDF shows as U+FFFD."""
    ctx = RecordedContext()
    await report.render(ctx.as_context(), ask(format="pdf", title="報告 2026"))
    [warning] = [it for it in ctx.named("log") if it["level"] == "warning"]
    assert warning["fields"]["characters"] == "告報"


async def test_a_cancelled_job_stops_before_its_next_section() -> None:
    """The context raises at its next call; nothing further is drawn, and no file is saved."""

    def cancel_at_second(call: Call) -> None:
        if call[1].get("current") == 2:
            raise JobCancelled

    ctx = RecordedContext(on_call=cancel_at_second)
    with pytest.raises(JobCancelled):
        await report.render(ctx.as_context(), ask())
    assert [it["current"] for it in ctx.named("progress")] == [1, 2]
    assert ctx.saved == {}


async def test_the_event_loop_runs_on_while_a_section_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing waits here for the loop: on the loop's own thread it would wait for ever."""
    loop_ran = threading.Event()

    class WaitsForLoop:
        """Draws nothing until the loop has run."""

        def add(self, section: Section) -> None:
            """Fail unless another task of the loop runs meanwhile."""
            assert loop_ran.wait(30), "the loop was blocked"

        def finish(self) -> Rendered:
            """Return an empty file."""
            return Rendered(b"", "text/plain")

    def begin(request: ReportRequest, created_at: datetime) -> WaitsForLoop:
        return WaitsForLoop()

    monkeypatch.setattr(report, "open_document", begin)

    async def run_beside() -> None:
        loop_ran.set()

    async with asyncio.TaskGroup() as group:
        job = group.create_task(report.render(RecordedContext().as_context(), ask()))
        group.create_task(run_beside())
    assert job.result()["sections"] == 3


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Quarterly report Q3/2026", "quarterly-report-q3-2026.pdf"),
        ("../../etc/passwd", "etc-passwd.pdf"),
        ("Übersicht – 報告", "übersicht-報告.pdf"),
        ("!!!", "report.pdf"),
        ("word " * 40, "-".join(["word"] * 16) + ".pdf"),
    ],
)
def test_the_file_is_named_after_the_title(title: str, name: str) -> None:
    """Letters and digits of any alphabet, hyphens between them, of a bounded length."""
    assert report.report_file_name(ask(title=title, format="pdf")) == name


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        ({"sections": []}, "input.sections", "at least 1"),
        ({"sections": [{"heading": "h"}] * 201}, "input.sections", "at most 200"),
        ({"title": ""}, "input.title", "at least 1"),
        ({"title": "x" * 201}, "input.title", "at most 200"),
        ({"sections": [{"heading": " \t "}]}, "input.sections.0.heading", "at least 1"),
        ({"format": "odt"}, "input.format", "'pdf', 'docx' or 'html'"),
        ({"author": "ada"}, "input.author", "not permitted"),
        ({"sections": [{"heading": "h", "html": ""}]}, "input.sections.0.html", "not permitted"),
        (
            {"sections": [{"heading": "h", "table": {"columns": ["a", "b"], "rows": [[1, 2], [3]]}}]},
            "input.sections.0.table",
            "row 2 has 1 cells, but there are 2 columns",
        ),
        (
            {"sections": [{"heading": "h", "table": {"columns": ["a"], "rows": [[1]] * 20_001}}]},
            "input.sections.0.table.rows",
            "at most 20000",
        ),
        (
            {"sections": [{"heading": "h", "table": {"columns": ["a"] * 20, "rows": [[1] * 20] * 10_001}}]},
            "input",
            "200,020 cells",
        ),
        ({"sections": [{"heading": "h", "markdown": "x" * 300_000}] * 2}, "input", "600,000 characters"),
        (
            {"sections": [{"heading": "h", "table": {"columns": [], "rows": []}}]},
            "input.sections.0.table.columns",
            "1",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_place(
    changes: dict[str, Any], where: str, says: str
) -> None:
    """The error names the field and says what would be accepted."""
    with pytest.raises(InvalidInput) as refused:
        report.render.validate_input({"title": "t", "sections": SECTIONS, **changes})
    assert refused.value.errors[0].field == where
    assert says in refused.value.errors[0].message


def test_infinite_numbers_are_refused() -> None:
    """NaN and infinity have no place in a table."""
    for value in (float("nan"), float("inf")):
        with pytest.raises(InvalidInput):
            report.render.validate_input(
                {"title": "t", "sections": [{"heading": "h", "table": {"columns": ["a"], "rows": [[value]]}}]}
            )
