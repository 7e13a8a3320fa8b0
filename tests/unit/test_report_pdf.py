"""PDF reports, read back with pypdf: what is on which page."""

from __future__ import annotations

import io
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from fpdf import FPDF
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from tidings_tasks.jobs.rendering import Rendered, ReportRequest, open_document
from tidings_tasks.jobs.rendering.blocks import Span
from tidings_tasks.jobs.rendering.pdf_fonts import Faces
from tidings_tasks.jobs.rendering.pdf_lines import LineBreaker

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)


def render(*sections: dict[str, Any], title: str = "A title") -> tuple[PdfReader, Rendered]:
    """Render a PDF and open it."""
    request = ReportRequest.model_validate({"title": title, "sections": sections, "format": "pdf"})
    document = open_document(request, AT)
    for section in request.sections:
        document.add(section)
    rendered = document.finish()
    return PdfReader(io.BytesIO(rendered.data)), rendered


def test_title_sections_and_text_are_there_in_order() -> None:
    """The words can be read, searched and copied, in several alphabets."""
    reader, rendered = render(
        {"heading": "First", "markdown": "Zoë paid **12 €** in Łódź; Ελληνικά, Кириллица."},
        {"heading": "Second", "table": {"columns": ["Name", "Units"], "rows": [["North", 12]]}},
    )
    text = reader.pages[0].extract_text()
    wanted = [
        "A title",
        "23 November 2026 · 2 sections",
        "First",
        "Zoë paid 12 € in Łódź; Ελληνικά, Кириллица.",
        "Second",
        "Units",
        "North",
    ]
    places = [text.find(each) for each in wanted]
    assert -1 not in places
    assert places == sorted(places)
    assert rendered.undrawable == frozenset()
    assert reader.metadata is not None
    assert reader.metadata.title == "A title"


def test_pages_are_numbered_and_the_table_header_is_on_each() -> None:
    """Three hundred rows: every page says which it is of how many, and repeats the header."""
    rows = [[f"row {number}", number] for number in range(1, 301)]
    reader, rendered = render({"heading": "Rows", "table": {"columns": ["Label", "Value"], "rows": rows}})
    texts = [page.extract_text() for page in reader.pages]
    assert rendered.pages == len(texts) > 4
    for number, text in enumerate(texts, 1):
        assert f"Page {number} of {len(texts)}" in text
        assert text.count("Label") == 1
    seen = [line for text in texts for line in text.splitlines() if line.startswith("row ")]
    assert [line.split()[1] for line in seen] == [str(number) for number in range(1, 301)]


def test_a_row_higher_than_a_page_goes_on_below_the_header() -> None:
    """No word of it is lost."""
    words = [f"w{number:04}" for number in range(2_000)]
    cells = [" ".join(words[start : start + 250]) for start in range(0, 2_000, 250)]
    reader, _ = render({"heading": "Row", "table": {"columns": [f"c{n}" for n in range(8)], "rows": [cells]}})
    texts = [page.extract_text() for page in reader.pages]
    assert len(texts) > 1
    assert all("c7" in text for text in texts)
    assert {word for text in texts for word in text.split() if word.startswith("w")} == set(words)


def test_a_heading_is_not_left_alone_at_a_pages_end() -> None:
    """Whatever stands before it, what follows the heading begins on the heading's page."""
    pages = []
    for lines in range(28, 40):
        reader, _ = render(
            {"heading": "First", "markdown": "x  \n" * lines + "x"},
            {"heading": "Alone?", "markdown": "follows " * 40},
        )
        texts = [page.extract_text() for page in reader.pages]
        [page] = [number for number, text in enumerate(texts) if "Alone?" in text]
        assert "follows" in texts[page].split("Alone?")[1]
        pages.append(page)
    assert set(pages) == {0, 1}, "the range of lengths does not cross a page's end"


def test_what_the_font_lacks_is_shown_as_replaced() -> None:
    """Chinese, emoji and right-to-left letters: one mark each, and each is reported; joiners vanish."""
    reader, rendered = render({"heading": "報告", "markdown": "a 🎉 b\u200d\ufe0f שלום"})
    assert rendered.undrawable == set("報告🎉שלום")
    text = reader.pages[0].extract_text()
    assert "\ufffd\ufffd" in text
    assert "a \ufffd b \ufffd\ufffd\ufffd\ufffd" in text


def test_rendering_says_nothing_in_the_workers_log(caplog: pytest.LogCaptureFixture) -> None:
    """What a report holds is its owner's; the font library would log its letters."""
    with caplog.at_level(logging.INFO):
        render({"heading": "h", "markdown": "secret"})
    assert [record for record in caplog.records if record.name.startswith(("fontTools", "fpdf"))] == []


def test_decomposed_letters_are_composed() -> None:
    """A letter and its combining accent become the one glyph the font has."""
    reader, _ = render({"heading": "h", "markdown": "u\u0308ber"})
    assert "über" in reader.pages[0].extract_text()


def test_links_and_outline_lead_where_they_say() -> None:
    """Only permitted addresses become annotations; each section has a bookmark on its page."""
    reader, _ = render(
        {
            "heading": "One",
            "markdown": "[good](https://example.com/a) [bad](javascript:alert(1))\n\n" + "x  \n" * 60,
        },
        {"heading": "Two"},
    )
    uris = [note.get_object()["/A"]["/URI"] for page in reader.pages for note in page.get("/Annots", [])]
    assert uris == ["https://example.com/a"]
    outline = [(entry.title, reader.get_destination_page_number(entry)) for entry in reader.outline]
    assert outline == [("One", 0), ("Two", 1)]


def test_a_long_title_is_cut_in_the_footer_only() -> None:
    """The title block has all of it, the footer an ellipsis."""
    title = " ".join(f"word{number}" for number in range(25))
    reader, _ = render({"heading": "h"}, title=title)
    text = reader.pages[0].extract_text()
    assert "word24" in text.replace("\n", " ")
    assert "…" in text


@pytest.mark.parametrize(
    "markdown",
    [
        ">" * 50 + " deep",
        "".join("  " * depth + "- a\n" for depth in range(50)),
        "a" * 5_000,
        "`" + "b" * 5_000 + "`",
        "|" + "c|" * 200 + "\n|" + "-|" * 200 + "\n|" + "d|" * 200,
        "| " + "long header " * 2_000 + "|\n|-|\n| cell |\n" * 3,
        "- \n-\n",
        "```\n```",
        "",
    ],
)
def test_strange_text_is_drawn_without_an_error(markdown: str) -> None:
    """Deep nesting, endless words, hundreds of columns, empty blocks."""
    reader, _ = render({"heading": "h", "markdown": markdown})
    assert len(reader.pages) >= 1


@pytest.fixture(scope="module")
def breaker() -> LineBreaker:
    """Give a line breaker over the real fonts."""
    return LineBreaker(Faces(FPDF(unit="mm")))


spans = st.lists(
    st.builds(Span, st.text(alphabet="ab -–/\nWé報", max_size=40), bold=st.booleans(), code=st.booleans()),
    max_size=4,
)


@settings(max_examples=200)
@given(text=spans, width=st.floats(1, 60))
def test_lines_fit_and_lose_no_letter(breaker: LineBreaker, text: list[Span], width: float) -> None:
    """No line is wider than asked unless a single letter is; all but spaces at line ends comes out in order."""
    lines = breaker.lines(tuple(text), 3.5, width)
    for line in lines:
        letters = "".join(piece.text for piece in line.pieces)
        assert line.width == pytest.approx(sum(piece.width for piece in line.pieces))
        assert line.width <= width + 1e-6 or len(letters) == 1
    written = "".join(piece.text for line in lines for piece in line.pieces)
    source = "".join(span.text for span in text).replace("報", "\ufffd")
    assert "".join(written.split()) == "".join(source.split())


def test_words_break_at_spaces_and_hyphens_but_dates_do_not(breaker: LineBreaker) -> None:
    """``north-west`` may be parted after its hyphen, ``2026-01-31`` only where nothing else helps."""

    def broken(text: str, fits: str) -> list[str]:
        width = breaker.natural_width((Span(fits),), 3.5)
        return [
            "".join(piece.text for piece in line.pieces)
            for line in breaker.lines((Span(text),), 3.5, width + 0.01)
        ]

    assert broken("the north-west on", "the north-") == ["the north-", "west on"]
    assert broken("on 2026-01-31", "on 2026-01-") == ["on", "2026-01-31"]
    assert broken("aa bbb", "aabbb") == ["aa", "bbb"], "the space between counts too"
    assert broken("unbreakable", "unbrea") == ["unbrea", "kable"]
