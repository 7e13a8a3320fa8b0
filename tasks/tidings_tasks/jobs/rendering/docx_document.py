"""A report as DOCX: real headings, lists, links and tables, so that it can be edited further."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import qn

from .blocks import Block, Code, Heading, Inline, Items, Paragraph, Quote, Rule, Span, Table
from .document import Rendered, dated
from .docx_styles import PARAGRAPH_STYLES, TABLE_STYLE, TEXT_WIDTH, open_styled
from .docx_xml import abstract_lists, list_instance, paragraph, runs, table, text_run
from .markdown import read_markdown
from .request import Section
from .tables import lay_out_values

__all__ = ["DocxDocument"]

_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_BODY = "word/document.xml"
_STEP = 360
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block stands: how deep in lists and quotes."""

    lists: int = 0
    quotes: int = 0

    def indent(self) -> str:
        """Return the properties of a paragraph that has no list mark of its own."""
        left = (self.lists + self.quotes) * _STEP
        border = (
            '<w:pBdr><w:left w:val="single" w:sz="18" w:space="8" w:color="D6DDE5"/></w:pBdr>'
            if self.quotes
            else ""
        )
        return border + (f'<w:ind w:left="{left}"/>' if left else "")


class DocxDocument:
    """Implements ``Document``."""

    def __init__(self, title: str, sections: int, created_at: datetime) -> None:
        self._docx = open_styled(title, created_at)
        self._numbering = self._docx.part.numbering_part.element
        self._links: dict[str, str] = {}
        self._bullets_id, self._numbers_id = self._define_lists()
        taken = [int(each.get(qn("w:numId"))) for each in self._numbering.findall(qn("w:num"))]
        self._list_numbers = itertools.count(max(taken) + 1)
        self._parts: list[str] = []
        self._add((Span(title),), "Title")
        self._add((Span(dated(created_at, sections)),), "Subtitle")

    def add(self, section: Section) -> None:
        """Append a section."""
        self._add((Span(section.heading),), "Heading 1")
        if section.markdown:
            self._add_blocks(read_markdown(section.markdown), _Place())
        if section.table:
            self._add_table(lay_out_values(section.table))

    def finish(self) -> Rendered:
        """Return the file. How many pages it has depends on the program that shows it."""
        empty = io.BytesIO()
        self._docx.save(empty)
        filled = io.BytesIO()
        with zipfile.ZipFile(empty) as source, zipfile.ZipFile(filled, "w", zipfile.ZIP_DEFLATED) as target:
            for entry in source.infolist():
                content = source.read(entry)
                target.writestr(entry, self._fill(content) if entry.filename == _BODY else content)
        return Rendered(filled.getvalue(), _MEDIA_TYPE)

    def _fill(self, empty: bytes) -> bytes:
        """Put the body in as text: as a tree, a large table would take minutes and a gigabyte."""
        head, end, tail = empty.rpartition(b"<w:sectPr")
        return b"".join((head, "".join(self._parts).encode(), end, tail))

    def _add(self, text: Inline, style: str | None = None, properties: str = "") -> None:
        named = f'<w:pStyle w:val="{PARAGRAPH_STYLES[style]}"/>' if style else ""
        self._parts.append(paragraph(runs(text, self._relate), named + properties))

    def _add_blocks(self, blocks: Sequence[Block], place: _Place) -> None:
        for block in blocks:
            self._add_block(block, place)

    def _add_block(self, block: Block, place: _Place) -> None:
        match block:
            case Heading(level, text):
                self._add(text, f"Heading {level}")
            case Paragraph(text):
                self._add(text, properties=place.indent())
            case Code(text):
                style = f'<w:pStyle w:val="{PARAGRAPH_STYLES["Report Code"]}"/>'
                self._parts.append(paragraph(text_run(text), style + place.indent()))
            case Quote(inner):
                self._add_blocks(inner, _Place(place.lists, min(place.quotes + 1, _DEEPEST)))
            case Items():
                self._add_items(block, place)
            case Table():
                self._add_table(block)
            case Rule():
                line = '<w:pBdr><w:bottom w:val="single" w:sz="4" w:space="1" w:color="D6DDE5"/></w:pBdr>'
                self._parts.append(paragraph("", line))

    def _add_items(self, block: Items, place: _Place) -> None:
        level = min(place.lists, _DEEPEST)
        number = self._begin_list(block.start, level)
        inner = _Place(min(place.lists + 1, _DEEPEST), place.quotes)
        mark = (
            f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
            '<w:spacing w:after="60"/>'
        )
        for item in block.items:
            first, rest = (item[0].text, item[1:]) if item and isinstance(item[0], Paragraph) else ((), item)
            self._add(first, properties=mark)
            self._add_blocks(rest, inner)

    def _add_table(self, data: Table) -> None:
        self._parts.append(
            table(data, TABLE_STYLE, PARAGRAPH_STYLES["Report Cell"], self._relate, TEXT_WIDTH)
        )
        # Two tables in a row would be read as one, and a table may not end the document.
        self._parts.append(paragraph("", '<w:spacing w:after="60"/>'))

    def _relate(self, address: str) -> str:
        if address not in self._links:
            self._links[address] = self._docx.part.relate_to(
                address, RELATIONSHIP_TYPE.HYPERLINK, is_external=True
            )
        return self._links[address]

    def _define_lists(self) -> tuple[int, int]:
        taken = [
            int(each.get(qn("w:abstractNumId"))) for each in self._numbering.findall(qn("w:abstractNum"))
        ]
        bullets_id = max(taken, default=0) + 1
        first_instance = self._numbering.find(qn("w:num"))
        for definition in abstract_lists(bullets_id, bullets_id + 1):
            first_instance.addprevious(parse_xml(definition))
        return bullets_id, bullets_id + 1

    def _begin_list(self, start: int | None, level: int) -> int:
        number = next(self._list_numbers)
        abstract_id = self._bullets_id if start is None else self._numbers_id
        self._numbering.append(parse_xml(list_instance(number, abstract_id, level, start)))
        return number
