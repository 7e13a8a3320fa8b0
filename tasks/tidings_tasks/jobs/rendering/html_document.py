"""A report as one self-contained HTML page: everything escaped, nothing loaded, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from .blocks import Block, Code, Heading, Inline, Items, Paragraph, Quote, Rule, Span, Table
from .document import Rendered, dated
from .markdown import read_markdown
from .request import Section
from .tables import lay_out_values

__all__ = ["HtmlDocument"]

_CONTENTS_FROM = 4
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #687584; --accent: #16548c; --pale: #f1f4f8;
  --faint: #d6dde5; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ec; --muted: #93a1b0; --accent: #7fb4e6;
  --pale: #1c242d; --faint: #36424f; --paper: #12181f } }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 50rem; padding: 3rem 1.25rem; overflow-wrap: break-word }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0; border-top: .35rem solid var(--accent); padding-top: 1rem }
h2 { color: var(--accent); margin: 2.5rem 0 .75rem; line-height: 1.25 }
h3, h4, h5 { margin: 1.75rem 0 .5rem }
a { color: var(--accent) }
.dated { color: var(--muted); border-bottom: 1px solid var(--faint); padding-bottom: 1.25rem; margin: .5rem 0 0 }
nav ol { columns: 18rem; padding-left: 1.5rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; background: var(--pale); border-radius: .2rem }
code { padding: .1em .3em } pre { padding: .75rem 1rem; overflow-x: auto } pre code { padding: 0; font-size: 1em }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: .25rem solid var(--faint); color: var(--muted) }
.scroll { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .9rem; border-bottom: 1px solid var(--accent) }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top }
th { background: var(--faint); position: sticky; top: 0 }
tbody tr:nth-child(even) { background: var(--pale) }
.right { text-align: right; font-variant-numeric: tabular-nums } .center { text-align: center }
hr { border: 0; border-top: 1px solid var(--faint); margin: 2rem 0 }
@media print { body { max-width: none; padding: 0; font-size: 10pt } thead { display: table-header-group }
  tr, pre { break-inside: avoid } h2, h3, h4 { break-after: avoid } th { position: static } .scroll { overflow: visible } }
"""


class HtmlDocument:
    """Implements ``Document``."""

    def __init__(self, title: str, sections: int, created_at: datetime) -> None:
        self._title = title
        self._dated = dated(created_at, sections)
        self._headings: list[str] = []
        self._parts: list[str] = []

    def add(self, section: Section) -> None:
        """Append a section."""
        self._headings.append(section.heading)
        number = len(self._headings)
        self._parts.append(f'<section id="section-{number}">\n<h2>{escape(section.heading)}</h2>\n')
        if section.markdown:
            self._parts.append(_blocks(read_markdown(section.markdown)))
        if section.table:
            self._parts.append(_table(lay_out_values(section.table)))
        self._parts.append("</section>\n")

    def finish(self) -> Rendered:
        """Return the page."""
        page = (
            '<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">\n'
            # The page comes from job input: even if something in it slipped through, it could load and run nothing.
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f'<header>\n<h1>{escape(self._title)}</h1>\n<p class="dated">{escape(self._dated)}</p>\n</header>\n'
            f"{self._contents()}<main>\n{''.join(self._parts)}</main>\n</body>\n</html>\n"
        )
        return Rendered(page.encode(), "text/html; charset=utf-8")

    def _contents(self) -> str:
        if len(self._headings) < _CONTENTS_FROM:
            return ""
        entries = "".join(
            f'<li><a href="#section-{number}">{escape(heading)}</a></li>\n'
            for number, heading in enumerate(self._headings, 1)
        )
        return f'<nav aria-label="Contents">\n<ol>\n{entries}</ol>\n</nav>\n'


def _blocks(blocks: Sequence[Block]) -> str:
    return "".join(_block(block) for block in blocks)


def _block(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level + 1}>{_inline(text)}</h{level + 1}>\n"
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>\n"
        case Code(text):
            return f"<pre><code>{escape(text)}\n</code></pre>\n"
        case Quote(inner):
            return f"<blockquote>\n{_blocks(inner)}</blockquote>\n"
        case Items(items, start):
            tag = "ul" if start is None else "ol"
            first = f' start="{start}"' if start not in (None, 1) else ""
            return f"<{tag}{first}>\n{''.join(_item(item) for item in items)}</{tag}>\n"
        case Table():
            return _table(block)
        case Rule():
            return "<hr>\n"


def _item(blocks: Sequence[Block]) -> str:
    match list(blocks):
        case [Paragraph(text), *more]:
            return f"<li>{_inline(text)}\n{_blocks(more)}</li>\n"
        case others:
            return f"<li>{_blocks(others)}</li>\n"


def _table(table: Table) -> str:
    classes = ["" if align == "left" else f' class="{align}"' for align in table.aligns]
    header = "".join(
        f'<th scope="col"{kind}>{_inline(cell)}</th>'
        for kind, cell in zip(classes, table.columns, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join([f"<td{kind}>{_inline(cell)}</td>" for kind, cell in zip(classes, row, strict=True)])
        + "</tr>\n"
        for row in table.rows
    )
    return (
        f'<div class="scroll">\n<table>\n<thead>\n<tr>{header}</tr>\n</thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _inline(text: Inline) -> str:
    return "".join([_span(span) for span in text])


def _span(span: Span) -> str:
    html = escape(span.text).replace("\n", "<br>")
    for wanted, tag in ((span.code, "code"), (span.strike, "s"), (span.italic, "em"), (span.bold, "strong")):
        if wanted:
            html = f"<{tag}>{html}</{tag}>"
    if span.link:
        html = f'<a href="{escape(span.link)}" rel="noopener noreferrer nofollow">{html}</a>'
    return html
