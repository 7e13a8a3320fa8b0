"""WordprocessingML as strings: paragraphs, styled runs, lists and tables (ECMA-376 part 1, §17)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from docx.oxml.ns import nsdecls

from .blocks import Align, Inline, Span, Table
from .columns import cap_words, share_width

__all__ = ["Relate", "abstract_lists", "list_instance", "paragraph", "runs", "table", "text_run"]

Relate = Callable[[str], str]
"""Gives the relationship id that stands for an address."""

_JUSTIFY: dict[Align, str] = {"left": "left", "center": "center", "right": "right"}
_BULLETS = "•–▪"
_LEVELS = 9
_STEP = 360
# In twips: the padding of a cell, and a rather wide letter of its type.
_CELL_PAD, _LETTER = 220, 130


def paragraph(content: str, properties: str = "", *, declare: bool = False) -> str:
    """Return a ``w:p``; ``declare`` makes it stand alone, with its namespaces."""
    names = f" {nsdecls('w', 'r')}" if declare else ""
    return f"<w:p{names}>" + (f"<w:pPr>{properties}</w:pPr>" if properties else "") + f"{content}</w:p>"


def runs(text: Inline, relate: Relate) -> str:
    """Return the runs and hyperlinks of ``text``."""
    return "".join(
        [_linked(span, relate) if span.link else text_run(span.text, _run_style(span)) for span in text]
    )


def text_run(text: str, properties: str = "") -> str:
    """Return a ``w:r`` of ``text``, its line ends and tabs as elements."""
    words = escape(text).replace("\n", '</w:t><w:br/><w:t xml:space="preserve">')
    words = words.replace("\t", '</w:t><w:tab/><w:t xml:space="preserve">')
    style = f"<w:rPr>{properties}</w:rPr>" if properties else ""
    return f'<w:r>{style}<w:t xml:space="preserve">{words}</w:t></w:r>'


def table(data: Table, style: str, cell_style: str, relate: Relate, width: int) -> str:
    """Return a ``w:tbl`` of at most ``width`` twips whose first row is repeated on each page."""
    widths = _column_widths(data, width)
    properties = [
        f'<w:pPr><w:pStyle w:val="{cell_style}"/>'
        + (f'<w:jc w:val="{_JUSTIFY[align]}"/>' if align != "left" else "")
        + "</w:pPr>"
        for align in data.aligns
    ]

    def row(cells: Sequence[Inline], kind: str) -> str:
        return (
            f"<w:tr><w:trPr>{kind}</w:trPr>"
            + "".join(
                [
                    f"<w:tc><w:p>{style}{runs(cell, relate)}</w:p></w:tc>"
                    for style, cell in zip(properties, cells, strict=True)
                ]
            )
            + "</w:tr>"
        )

    grid = "".join(f'<w:gridCol w:w="{each}"/>' for each in widths)
    return (
        f'<w:tbl><w:tblPr><w:tblStyle w:val="{style}"/><w:tblW w:w="{sum(widths)}" w:type="dxa"/>'
        '<w:tblLook w:val="0420" w:firstRow="1" w:lastRow="0" w:firstColumn="0" w:lastColumn="0" '
        'w:noHBand="0" w:noVBand="1"/></w:tblPr>'
        f"<w:tblGrid>{grid}</w:tblGrid>{row(data.columns, '<w:cantSplit/><w:tblHeader/>')}"
        + "".join([row(cells, "<w:cantSplit/>") for cells in data.rows])
        + "</w:tbl>"
    )


def abstract_lists(bullets_id: int, numbers_id: int) -> tuple[str, str]:
    """Return the two list definitions that every list refers to."""
    return (
        _abstract_list(bullets_id, [("bullet", _BULLETS[min(level, 2)]) for level in range(_LEVELS)]),
        _abstract_list(numbers_id, [("decimal", f"%{level + 1}.") for level in range(_LEVELS)]),
    )


def list_instance(number: int, abstract_id: int, level: int, start: int | None) -> str:
    """Return one list's own ``w:num``, so that its numbers begin at ``start`` and go on from no other list."""
    override = (
        f'<w:lvlOverride w:ilvl="{level}"><w:startOverride w:val="{start}"/></w:lvlOverride>'
        if start is not None
        else ""
    )
    return (
        f'<w:num {nsdecls("w")} w:numId="{number}"><w:abstractNumId w:val="{abstract_id}"/>{override}</w:num>'
    )


def _abstract_list(identity: int, levels: Sequence[tuple[str, str]]) -> str:
    return (
        f'<w:abstractNum {nsdecls("w")} w:abstractNumId="{identity}"><w:multiLevelType w:val="multilevel"/>'
        + "".join(
            f'<w:lvl w:ilvl="{level}"><w:start w:val="1"/><w:numFmt w:val="{kind}"/><w:lvlText w:val="{mark}"/>'
            f'<w:lvlJc w:val="left"/><w:pPr><w:ind w:left="{(level + 1) * _STEP}" w:hanging="{_STEP}"/></w:pPr></w:lvl>'
            for level, (kind, mark) in enumerate(levels)
        )
        + "</w:abstractNum>"
    )


def _run_style(span: Span) -> str:
    return (
        ('<w:rFonts w:ascii="Consolas" w:hAnsi="Consolas" w:cs="Consolas"/>' if span.code else "")
        + "<w:b/>" * span.bold
        + "<w:i/>" * span.italic
        + "<w:strike/>" * span.strike
        + ('<w:color w:val="16548C"/>' if span.link else "")
        + ('<w:u w:val="single"/>' if span.link else "")
        + ('<w:shd w:val="clear" w:color="auto" w:fill="F1F4F8"/>' if span.code else "")
    )


def _linked(span: Span, relate: Relate) -> str:
    assert span.link is not None
    return f'<w:hyperlink r:id="{relate(span.link)}">{text_run(span.text, _run_style(span))}</w:hyperlink>'


def _column_widths(data: Table, width: int) -> list[int]:
    """Share ``width`` twips by the letters in each column; the reader's program refines it."""
    columns = [
        ["".join(span.text for span in cell) for cell in column]
        for column in zip(data.columns, *data.rows, strict=True)
    ]
    natural = [_CELL_PAD + _LETTER * max(map(len, column)) for column in columns]
    words = [
        _CELL_PAD + _LETTER * max(len(word) for text in column for word in text.split() or ("",))
        for column in columns
    ]
    return [int(each) for each in share_width(natural, cap_words(words, width), width)]
