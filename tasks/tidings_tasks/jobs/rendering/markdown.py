"""Markdown to blocks: CommonMark with tables and strikethrough, no HTML, links to http, https and mailto only."""

from __future__ import annotations

import re
from dataclasses import replace

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from .blocks import Align, Block, Code, Heading, Inline, Items, Paragraph, Quote, Rule, Span, Table
from .text import printable

__all__ = ["read_markdown"]

_LINK = re.compile(r"(https?://|mailto:)[^\s]{1,2000}", re.IGNORECASE)
_LOWEST_HEADING = 4


def read_markdown(source: str) -> tuple[Block, ...]:
    """Read untrusted Markdown. Nothing in it is fetched, and nothing in it is an error."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    # The default leaves a refused link as source text; here its words stay and only the address goes.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]  # the documented way to set the rule
    return _blocks(SyntaxTreeNode(parser.parse(source)))


def _blocks(parent: SyntaxTreeNode) -> tuple[Block, ...]:
    return tuple(block for node in parent.children for block in _block(node))


def _block(node: SyntaxTreeNode) -> tuple[Block, ...]:
    match node.type:
        case "heading":
            return (Heading(min(int(node.tag[1:]) + 1, _LOWEST_HEADING), _inline(node)),)
        case "paragraph":
            return (Paragraph(_inline(node)),)
        case "fence" | "code_block":
            return (Code(printable(node.content).rstrip("\n")),)
        case "blockquote":
            return (Quote(_blocks(node)),)
        case "bullet_list":
            return (Items(tuple(_blocks(item) for item in node.children), start=None),)
        case "ordered_list":
            return (
                Items(tuple(_blocks(item) for item in node.children), start=int(node.attrs.get("start", 1))),
            )
        case "table":
            return (_table(node),)
        case "hr":
            return (Rule(),)
        case _:
            raise AssertionError(f"the parser gave a {node.type}, which none of its enabled rules makes")


def _table(node: SyntaxTreeNode) -> Table:
    head, *body = node.children
    header_cells = head.children[0].children
    rows = body[0].children if body else []
    return Table(
        columns=tuple(_inline(cell) for cell in header_cells),
        rows=tuple(tuple(_inline(cell) for cell in row.children) for row in rows),
        aligns=tuple(_align(cell) for cell in header_cells),
    )


def _align(cell: SyntaxTreeNode) -> Align:
    style = str(cell.attrs.get("style", ""))
    return "right" if "right" in style else "center" if "center" in style else "left"


def _inline(node: SyntaxTreeNode) -> Inline:
    """Return the spans of a block that holds one ``inline`` node, those of one style joined."""
    joined: list[Span] = []
    for span in (span for inline in node.children for span in _spans(inline, Span(""))):
        if joined and replace(joined[-1], text="") == replace(span, text=""):
            joined[-1] = replace(span, text=joined[-1].text + span.text)
        elif span.text:
            joined.append(span)
    return tuple(joined)


def _spans(node: SyntaxTreeNode, style: Span) -> tuple[Span, ...]:
    match node.type:
        case "text":
            return (replace(style, text=printable(node.content).replace("\n", " ")),)
        case "softbreak":
            return (replace(style, text=" "),)
        case "hardbreak":
            return (replace(style, text="\n"),)
        case "code_inline":
            return (replace(style, text=printable(node.content), code=True),)
        case "image":
            return (replace(style, text=f"[image: {printable(node.content)}]", italic=True),)
        case "strong":
            style = replace(style, bold=True)
        case "em":
            style = replace(style, italic=True)
        case "s":
            style = replace(style, strike=True)
        case "link":
            address = str(node.attrs.get("href", ""))
            style = replace(style, link=address if _LINK.fullmatch(address) else None)
    return tuple(span for child in node.children for span in _spans(child, style))
