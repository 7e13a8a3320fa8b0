"""Markdown becomes blocks: what is kept, and what can never get through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings_tasks.jobs.rendering.blocks import Code, Heading, Items, Paragraph, Quote, Rule, Span, Table
from tidings_tasks.jobs.rendering.markdown import read_markdown


def test_every_kind_of_block_is_read() -> None:
    """Headings sink one level, since the section has the first; lists know their first number."""
    blocks = read_markdown(
        "# Top\n\nText\n\n- a\n  - b\n\n7. seven\n8. eight\n\n> said\n\n```py\nx = 1\n```\n\n---\n\n| a | b |\n|:-:|--:|\n| 1 | 2 |\n"
    )
    assert blocks == (
        Heading(2, (Span("Top"),)),
        Paragraph((Span("Text"),)),
        Items(((Paragraph((Span("a"),)), Items(((Paragraph((Span("b"),)),),), start=None)),), start=None),
        Items(((Paragraph((Span("seven"),)),), (Paragraph((Span("eight"),)),)), start=7),
        Quote((Paragraph((Span("said"),)),)),
        Code("x = 1"),
        Rule(),
        Table(((Span("a"),), (Span("b"),)), (((Span("1"),), (Span("2"),)),), ("center", "right")),
    )


def test_styles_nest_and_like_spans_are_joined() -> None:
    """Bold within italic is both; a soft line end is a space, a hard one stays."""
    [paragraph] = read_markdown("*one **two*** `three` ~~four~~\nfive  \nsix")
    assert paragraph == Paragraph(
        (
            Span("one ", italic=True),
            Span("two", italic=True, bold=True),
            Span(" "),
            Span("three", code=True),
            Span(" "),
            Span("four", strike=True),
            Span(" five\nsix"),
        )
    )


@pytest.mark.parametrize(
    ("source", "link"),
    [
        ("[x](https://example.com/?a=1&b=2)", "https://example.com/?a=1&b=2"),
        ("[x](HTTP://example.com)", "HTTP://example.com"),
        ("[x](mailto:ada@example.com)", "mailto:ada@example.com"),
        ("<https://example.com>", "https://example.com"),
        ("[x](javascript:alert(1))", None),
        ("[x](&#106;avascript:alert(1))", None),
        ("[x](java\\script:alert)", None),
        ("[x](data:text/html,hi)", None),
        ("[x](file:///etc/passwd)", None),
        ("[x](//example.com)", None),
        ("[x](/relative)", None),
        ("[x](vbscript:x)", None),
    ],
)
def test_only_web_and_mail_addresses_become_links(source: str, link: str | None) -> None:
    """Everything else keeps its words and loses its address."""
    [paragraph] = read_markdown(source)
    assert isinstance(paragraph, Paragraph)
    assert [span.link for span in paragraph.text] == [link]
    assert paragraph.text[0].text in ("x", "https://example.com")


def test_html_stays_visible_text() -> None:
    """Neither a block nor an inline tag is HTML any more."""
    blocks = read_markdown("<script>alert(1)</script>\n\na <b onclick=x>b</b> &lt;i&gt;")
    assert blocks == (
        Paragraph((Span("<script>alert(1)</script>"),)),
        Paragraph((Span("a <b onclick=x>b</b> <i>"),)),
    )


def test_an_image_is_its_description() -> None:
    """Nothing is fetched."""
    [paragraph] = read_markdown("![A logo](http://example.com/logo.png)")
    assert paragraph == Paragraph((Span("[image: A logo]", italic=True),))


def test_unprintable_characters_show_as_replaced() -> None:
    """A form feed written as an entity would make the DOCX unreadable."""
    assert read_markdown("a&#12;b\x00c") == (Paragraph((Span("a\ufffdb\ufffdc"),)),)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_no_text_is_an_error(source: str) -> None:
    """Any text gives blocks."""
    read_markdown(source)


@given(st.text(alphabet="*_`~[]()<>|-#>\n 1.a!\\&", max_size=200))
def test_no_markup_is_an_error(source: str) -> None:
    """Any tangle of marks gives blocks."""
    read_markdown(source)
