"""The job type ``report.render``: Markdown and tables become a PDF, DOCX or HTML file, section by section."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from tidings_tasks import JobContext, job

from .rendering import Rendered, ReportRequest, Section, open_document

__all__ = ["render", "report_file_name"]

_MAX_STEM = 80
_MAX_LISTED = 20


@job("report.render", queue="reports", timeout_s=300, max_attempts=3, backoff_s=(10, 300))
async def render(ctx: JobContext, input: ReportRequest) -> dict[str, Any]:
    """Render a report. The result names the file, the number of sections and, for a PDF, of pages."""
    total = len(input.sections)
    await ctx.log("info", f"rendering '{input.title}' as {input.format}", sections=total)
    # The drawing itself runs on a thread, so that the other jobs of this worker go on meanwhile; each context
    # call between two sections is where a cancellation takes effect.
    document = await asyncio.to_thread(open_document, input, datetime.now(UTC))
    for number, section in enumerate(input.sections, 1):
        # Putting the file together counts as one piece of work more.
        await ctx.progress(
            percent=100 * (number - 1) / (total + 1),
            message=f"rendering '{section.heading}'",
            current=number,
            total=total,
            step="render",
        )
        await asyncio.to_thread(document.add, section)
        await ctx.log("info", _what_was_drawn(number, section))
    await ctx.progress(percent=100 * total / (total + 1), message="writing the file", step="write")
    rendered = await asyncio.to_thread(document.finish)
    if rendered.undrawable:
        await _warn_of_undrawable(ctx, rendered)
    file = await ctx.save_file(report_file_name(input), rendered.data, rendered.media_type)
    await ctx.log("info", f"saved {file['name']}", size_bytes=file["size_bytes"], pages=rendered.pages)
    await ctx.progress(percent=100, message=f"{file['name']} is ready", step="done")
    result = {"file": file, "sections": total}
    return result if rendered.pages is None else {**result, "pages": rendered.pages}


def report_file_name(request: ReportRequest) -> str:
    """Return the title in lower case with a hyphen for whatever is neither letter nor digit, and the extension."""
    words = "".join(letter if letter.isalnum() else " " for letter in request.title.lower()).split()
    return ("-".join(words)[:_MAX_STEM].rstrip("-") or "report") + f".{request.format}"


def _what_was_drawn(number: int, section: Section) -> str:
    parts = [
        f"{len(section.markdown.split()):,} words" if section.markdown else "",
        f"a table of {len(section.table.rows):,} rows" if section.table else "",
    ]
    return f"section {number}, '{section.heading}': {' and '.join(filter(None, parts)) or 'its heading'}"


async def _warn_of_undrawable(ctx: JobContext, rendered: Rendered) -> None:
    letters = sorted(rendered.undrawable)
    await ctx.log(
        "warning",
        f"the font lacks {len(letters)} of the characters, shown as \N{REPLACEMENT CHARACTER}; "
        "docx and html leave them to the reader's fonts",
        characters="".join(letters[:_MAX_LISTED]),
    )
