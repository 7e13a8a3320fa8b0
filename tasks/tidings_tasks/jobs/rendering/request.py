"""What a report is made of: the input model of ``report.render`` and its bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .text import one_line, printable

__all__ = ["Cell", "Format", "ReportRequest", "Section", "TableData"]

MAX_SECTIONS = 200
MAX_ROWS = 20_000
MAX_COLUMNS = 20
# Together these keep the slowest report (a PDF at the bounds) well within the job's time-out.
MAX_REPORT_CELLS = 200_000
MAX_REPORT_MARKDOWN = 500_000

Format = Literal["pdf", "docx", "html"]
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(one_line)
]
ColumnName = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=100), AfterValidator(one_line)
]
CellText = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(printable)]
# Wider integers become floats: a number of more digits is no longer for reading.
CellInteger = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Cell = CellText | bool | CellInteger | float | None


class TableData(BaseModel):
    """Named columns and rows of plain values. Numbers are shown right-aligned, null as an empty cell."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    columns: list[ColumnName] = Field(min_length=1, max_length=MAX_COLUMNS)
    rows: list[list[Cell]] = Field(default_factory=list, max_length=MAX_ROWS)

    @model_validator(mode="after")
    def _rows_fit_the_columns(self) -> TableData:
        width = len(self.columns)
        for number, row in enumerate(self.rows, 1):
            if len(row) != width:
                raise ValueError(f"row {number} has {len(row)} cells, but there are {width} columns")
        return self


class Section(BaseModel):
    """A heading, and below it text, a table, or both."""

    model_config = ConfigDict(extra="forbid")

    heading: Line
    markdown: Annotated[str, AfterValidator(printable)] | None = Field(
        default=None,
        max_length=MAX_REPORT_MARKDOWN,
        description="CommonMark with tables and ~~strikethrough~~. HTML is shown as text, images as their description.",
    )
    table: TableData | None = Field(default=None, description="Shown below the text.")


class ReportRequest(BaseModel):
    """A report to render."""

    model_config = ConfigDict(extra="forbid")

    title: Line = Field(examples=["Quarterly report"])
    sections: list[Section] = Field(min_length=1, max_length=MAX_SECTIONS)
    format: Format = "pdf"

    @model_validator(mode="after")
    def _is_of_a_size_to_read(self) -> ReportRequest:
        cells = sum(len(it.table.columns) * len(it.table.rows) for it in self.sections if it.table)
        if cells > MAX_REPORT_CELLS:
            raise ValueError(
                f"the tables have {cells:,} cells together; at most {MAX_REPORT_CELLS:,} are rendered"
            )
        letters = sum(len(it.markdown or "") for it in self.sections)
        if letters > MAX_REPORT_MARKDOWN:
            raise ValueError(
                f"the texts have {letters:,} characters together; at most {MAX_REPORT_MARKDOWN:,} are rendered"
            )
        return self
