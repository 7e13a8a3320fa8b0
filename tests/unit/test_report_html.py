"""HTML reports: self-contained, and nothing of the input is markup."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidings_tasks.jobs.rendering import ReportRequest, open_document

VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """Reads a page, and fails where tags do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost tag, which this must be."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect what a reader sees."""
        if not self.open or self.open[-1] != "style":
            self.text += data


def render(*sections: dict[str, Any], title: str = "A title") -> Page:
    """Render a page and read it."""
    request = ReportRequest.model_validate({"title": title, "sections": sections, "format": "html"})
    document = open_document(request, datetime(2026, 11, 23, tzinfo=UTC))
    for section in request.sections:
        document.add(section)
    return Page(document.finish().data.decode())


def test_structure_follows_the_sections() -> None:
    """One h1, an h2 a section, sub-headings below, and a real table head."""
    page = render(
        {"heading": "One", "markdown": "# Sub\n\n- a\n\n3. b"},
        {"heading": "Two", "table": {"columns": ["Name", "Units"], "rows": [["North", 12], ["South", 7]]}},
    )
    tags = [tag for tag, _ in page.tags]
    assert [tag for tag in tags if tag in ("h1", "h2", "h3")] == ["h1", "h2", "h3", "h2"]
    assert tags.count("th") == 2
    assert tags.count("td") == 4
    assert ("ol", {"start": "3"}) in page.tags
    assert ("td", {"class": "right"}) in page.tags
    assert "nav" not in tags


def test_longer_reports_have_contents_that_lead_to_each_section() -> None:
    """From four sections on, every entry's target exists."""
    page = render(*({"heading": f"Part {number}"} for number in range(4)))
    targets = [str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"]
    assert targets == [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert len(targets) == 4


def test_the_page_loads_and_runs_nothing() -> None:
    """No scripts, images or style sheets, and a policy that forbids them."""
    page = render({"heading": "h", "markdown": "![i](http://example.com/i.png) [l](https://example.com)"})
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "object"}
    assert "default-src 'none'" in str(page.tags)
    assert all("src" not in attributes and "style" not in attributes for _, attributes in page.tags)
    [link] = [attributes for tag, attributes in page.tags if tag == "a"]
    assert (link["href"], link["rel"]) == ("https://example.com", "noopener noreferrer nofollow")


PLAIN = {
    tag
    for tag, _ in render({"heading": "h", "markdown": "x", "table": {"columns": ["c"], "rows": [["x"]]}}).tags
}


def tangles(letters: str, *words: str) -> st.SearchStrategy[str]:
    """Make texts of these letters and words."""
    return st.lists(st.sampled_from([*letters, *words]), min_size=1, max_size=60).map("".join)


hostile = tangles("<>&\"'/=a b;!-`()[]é\x00", "<script>", "</title>")
as_line = hostile.filter(lambda text: text.strip() != "")


@given(title=as_line, heading=as_line, cell=hostile)
def test_no_input_becomes_markup(title: str, heading: str, cell: str) -> None:
    """Whatever is in a title, a heading or a cell, the page has the same tags, and shows the text."""
    page = render(
        {"heading": heading, "markdown": "x", "table": {"columns": ["c"], "rows": [[cell]]}}, title=title
    )
    assert {tag for tag, _ in page.tags} <= PLAIN
    assert "".join(cell.replace("\x00", "\ufffd").split()) in "".join(page.text.split())


@given(tangles("<>&\"'()[]*_`~|#\n -a:!", "<script>", "javascript:", "http://"))
def test_no_markdown_becomes_foreign_markup(source: str) -> None:
    """Only the renderer's own tags and attributes appear, well nested."""
    page = render({"heading": "h", "markdown": source})
    for tag, attributes in page.tags:
        assert tag in PLAIN | {
            "a",
            "code",
            "em",
            "strong",
            "s",
            "ul",
            "ol",
            "li",
            "blockquote",
            "pre",
            "h3",
            "h4",
            "h5",
            "hr",
            "br",
        }
        assert set(attributes) <= {
            "id",
            "class",
            "href",
            "rel",
            "scope",
            "start",
            "charset",
            "http-equiv",
            "content",
            "name",
        }
        assert str(attributes.get("href", "http://")).lower().startswith(("http://", "https://", "mailto:"))
