"""The look of a DOCX: page, paragraph and table styles, and the footer with its page numbers."""

from __future__ import annotations

from datetime import datetime

import docx
from docx.document import Document as Docx
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls, qn
from docx.shared import Mm, Pt, RGBColor
from docx.styles.style import ParagraphStyle

from .docx_xml import paragraph, text_run

__all__ = ["PARAGRAPH_STYLES", "TABLE_STYLE", "TEXT_WIDTH", "open_styled"]

_ACCENT, _INK, _MUTED = RGBColor(22, 84, 140), RGBColor(31, 41, 51), RGBColor(104, 117, 132)
_FONT = "Calibri"
_SIDE = Mm(20)
TABLE_STYLE = "ReportTable"
# In twips, the unit of tables and tabs.
TEXT_WIDTH = round(Mm(210 - 2 * 20).twips)
# Name to id, as Word derives it: python-docx speaks in names, the XML in ids.
PARAGRAPH_STYLES = {
    "Title": "Title",
    "Subtitle": "Subtitle",
    "Heading 1": "Heading1",
    "Heading 2": "Heading2",
    "Heading 3": "Heading3",
    "Heading 4": "Heading4",
    "Report Cell": "ReportCell",
    "Report Code": "ReportCode",
    "Report Footer": "ReportFooter",
}
_HEADING_POINTS = {
    "Title": 25.0,
    "Subtitle": 10.0,
    "Heading 1": 16.0,
    "Heading 2": 13.0,
    "Heading 3": 11.0,
    "Heading 4": 10.5,
}
_BORDER = 'w:val="single" w:sz="{sz}" w:space="0" w:color="{colour}"'


def open_styled(title: str, created_at: datetime) -> Docx:
    """Return an empty A4 document that carries every style named here."""
    document = docx.Document()
    page = document.sections[0]
    page.page_width, page.page_height = Mm(210), Mm(297)
    page.left_margin = page.right_margin = page.top_margin = page.bottom_margin = _SIDE
    properties = document.core_properties
    properties.title, properties.author, properties.comments = title, "Tidings", ""
    properties.created = properties.modified = created_at
    _style_paragraphs(document)
    document.styles.element.append(parse_xml(_table_style()))
    footer = page.footer.part.element
    footer[:] = [parse_xml(_footer(title))]
    return document


def _style_paragraphs(document: Docx) -> None:
    normal = document.styles["Normal"]
    assert isinstance(normal, ParagraphStyle)
    _set_font(normal, _FONT, 10.5, _INK)
    normal.paragraph_format.space_after = Pt(7)
    normal.paragraph_format.line_spacing = 1.2
    for name, points in _HEADING_POINTS.items():
        style = document.styles[name]
        assert isinstance(style, ParagraphStyle)
        _set_font(style, _FONT, points, {"Subtitle": _MUTED, "Heading 1": _ACCENT}.get(name, _INK))
        style.font.italic = False
        style.font.bold = name != "Subtitle"
    _add_style(document, "Report Cell", _FONT, 9.5, _INK)
    _add_style(document, "Report Footer", _FONT, 8, _MUTED)
    code = _add_style(document, "Report Code", "Consolas", 9, _INK)
    code.paragraph_format.space_after = Pt(7)
    code.element.get_or_add_pPr().append(
        parse_xml(f'<w:shd {nsdecls("w")} w:val="clear" w:color="auto" w:fill="F1F4F8"/>')
    )


def _add_style(document: Docx, name: str, font: str, points: float, colour: RGBColor) -> ParagraphStyle:
    style = document.styles.add_style(name, WD_STYLE_TYPE.PARAGRAPH)
    assert isinstance(style, ParagraphStyle)
    style.base_style = document.styles["Normal"]
    _set_font(style, font, points, colour)
    style.paragraph_format.space_after = Pt(0)
    style.paragraph_format.line_spacing = 1.0
    return style


def _set_font(style: ParagraphStyle, name: str, points: float, colour: RGBColor) -> None:
    style.font.name, style.font.size, style.font.color.rgb = name, Pt(points), colour
    fonts = style.element.rPr.rFonts
    # The template names theme fonts, and these win over a plain name.
    for attribute in ("asciiTheme", "hAnsiTheme", "eastAsiaTheme", "cstheme"):
        fonts.attrib.pop(qn(f"w:{attribute}"), None)
    fonts.set(qn("w:cs"), name)


def _table_style() -> str:
    accent, faint = _BORDER.format(sz=8, colour="16548C"), _BORDER.format(sz=4, colour="D6DDE5")
    return (
        f'<w:style {nsdecls("w")} w:type="table" w:customStyle="1" w:styleId="{TABLE_STYLE}">'
        '<w:name w:val="Report Table"/><w:basedOn w:val="TableNormal"/><w:uiPriority w:val="99"/>'
        '<w:tblPr><w:tblStyleRowBandSize w:val="1"/>'
        f"<w:tblBorders><w:top {accent}/><w:bottom {accent}/><w:insideH {faint}/></w:tblBorders>"
        '<w:tblCellMar><w:top w:w="40" w:type="dxa"/><w:left w:w="100" w:type="dxa"/>'
        '<w:bottom w:w="40" w:type="dxa"/><w:right w:w="100" w:type="dxa"/></w:tblCellMar></w:tblPr>'
        '<w:tblStylePr w:type="firstRow"><w:rPr><w:b/></w:rPr>'
        '<w:tcPr><w:shd w:val="clear" w:color="auto" w:fill="D6DDE5"/></w:tcPr></w:tblStylePr>'
        '<w:tblStylePr w:type="band2Horz">'
        '<w:tcPr><w:shd w:val="clear" w:color="auto" w:fill="F1F4F8"/></w:tcPr></w:tblStylePr></w:style>'
    )


def _footer(title: str) -> str:
    fields = (
        text_run("Page "),
        '<w:fldSimple w:instr=" PAGE "><w:r><w:t>1</w:t></w:r></w:fldSimple>',
        text_run(" of "),
        '<w:fldSimple w:instr=" NUMPAGES "><w:r><w:t>1</w:t></w:r></w:fldSimple>',
        f"<w:r><w:tab/></w:r>{text_run(title)}",
    )
    tab = f'<w:tabs><w:tab w:val="right" w:pos="{TEXT_WIDTH}"/></w:tabs>'
    return paragraph(
        "".join(fields), f'<w:pStyle w:val="{PARAGRAPH_STYLES["Report Footer"]}"/>{tab}', declare=True
    )
