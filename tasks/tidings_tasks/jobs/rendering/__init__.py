"""Rendering a report to PDF, DOCX or HTML: pure functions of its input, CPU work without I/O or context."""

from __future__ import annotations

from datetime import datetime

from .document import Document, Rendered
from .docx_document import DocxDocument
from .html_document import HtmlDocument
from .pdf_document import PdfDocument
from .request import Format, ReportRequest, Section, TableData

__all__ = ["Document", "Format", "Rendered", "ReportRequest", "Section", "TableData", "open_document"]

_DOCUMENTS: dict[Format, type[PdfDocument | DocxDocument | HtmlDocument]] = {
    "pdf": PdfDocument,
    "docx": DocxDocument,
    "html": HtmlDocument,
}


def open_document(request: ReportRequest, created_at: datetime) -> Document:
    """Begin the file that ``request`` asks for; its sections are then added one by one."""
    return _DOCUMENTS[request.format](request.title, len(request.sections), created_at)
