"""DOCX reports, read back with python-docx: real headings, lists, links and tables."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import docx
from docx.document import Document
from docx.oxml.ns import qn
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings_tasks.jobs.rendering import ReportRequest, open_document


def render(*sections: dict[str, Any], title: str = "A title") -> Document:
    """Render a DOCX and open it."""
    request = ReportRequest.model_validate({"title": title, "sections": sections, "format": "docx"})
    document = open_document(request, datetime(2026, 11, 23, tzinfo=UTC))
    for section in request.sections:
        document.add(section)
    return docx.Document(io.BytesIO(document.finish().data))


def test_text_carries_its_styles() -> None:
    """Title, headings and runs are what a word processor calls so."""
    found = render({"heading": "One", "markdown": "## Sub\n\nplain **bold** *it* `code`"})
    styled = [(each.style.name if each.style else None, each.text) for each in found.paragraphs]
    assert styled == [
        ("Title", "A title"),
        ("Subtitle", "23 November 2026 · 1 section"),
        ("Heading 1", "One"),
        ("Heading 3", "Sub"),
        ("Normal", "plain bold it code"),
    ]
    runs = {run.text: run for run in found.paragraphs[-1].runs}
    assert (runs["bold"].bold, runs["it"].italic, runs["code"].font.name) == (True, True, "Consolas")
    assert found.core_properties.title == "A title"


def test_tables_hold_their_cells_and_repeat_their_header() -> None:
    """The first row is marked as a header; numbers are right-aligned; zebra rows come from the table's style."""
    rows = [["North", 1], ["South", 2.5]]
    found = render({"heading": "h", "table": {"columns": ["Name", "Units"], "rows": rows}})
    [table] = found.tables
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["Name", "Units"],
        ["North", "1.0"],
        ["South", "2.5"],
    ]
    header, *others = table._tbl.tr_lst
    assert header.trPr.find(qn("w:tblHeader")) is not None
    assert all(row.trPr.find(qn("w:tblHeader")) is None for row in others)
    assert str(table.cell(1, 1).paragraphs[0].alignment) == "RIGHT (2)"
    assert table.style is not None
    assert table.style.name == "Report Table"


def test_each_list_counts_for_itself() -> None:
    """Two ordered lists have different instances, each with its own first number."""
    found = render({"heading": "h", "markdown": "1. a\n2. b\n\ntext\n\n5. c\n"})
    instances = [
        found_in.numPr.numId.val
        for each in found.paragraphs
        if (found_in := each._p.pPr) is not None and found_in.numPr is not None
    ]
    assert instances[0] == instances[1] != instances[2]
    numbering = {num.numId: num for num in found.part.numbering_part.element.num_lst}
    starts = [
        override.startOverride.val
        for number in (instances[0], instances[2])
        for override in numbering[number].lvlOverride_lst
    ]
    assert starts == [1, 5]


def test_links_are_relationships_and_the_bad_ones_are_words() -> None:
    """The same address is kept once."""
    found = render(
        {
            "heading": "h",
            "markdown": "[a](https://example.com/?x=1&y=2) [b](https://example.com/?x=1&y=2) [c](javascript:x)",
        }
    )
    paragraph = found.paragraphs[-1]
    assert [link.address for link in paragraph.hyperlinks] == ["https://example.com/?x=1&y=2"] * 2
    assert paragraph.text == "a b c"
    external = [each for each in found.part.rels.values() if each.is_external]
    assert len(external) == 1


def test_the_footer_counts_pages() -> None:
    """Page and page count are fields, so the word processor fills them in."""
    footer = render({"heading": "h"}).sections[0].footer
    fields = [each.get(qn("w:instr")).strip() for each in footer.part.element.iter(qn("w:fldSimple"))]
    assert fields == ["PAGE", "NUMPAGES"]
    assert "A title" in "".join(each.text for each in footer.paragraphs)


hostile = st.text(
    alphabet=st.one_of(st.sampled_from("<>&\"'\t\n]]>\x0b\x0c\x1f\ufffe"), st.characters(codec="utf-8")),
    max_size=60,
)


@settings(max_examples=60)
@given(markdown=hostile, cell=hostile)
def test_any_text_gives_a_file_that_opens(markdown: str, cell: str) -> None:
    """What XML refuses is replaced, what it escapes is escaped."""
    found = render({"heading": "h", "markdown": markdown, "table": {"columns": ["<&>"], "rows": [[cell]]}})
    assert found.tables[-1].cell(0, 0).text == "<&>"
