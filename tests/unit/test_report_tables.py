"""Tables of values: how numbers read, and how columns share the width."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings_tasks.jobs.rendering import TableData
from tidings_tasks.jobs.rendering.columns import cap_words, share_width
from tidings_tasks.jobs.rendering.tables import lay_out_values


def column(*values: Any) -> tuple[list[str], str]:
    """Lay out one column and return its texts and its alignment."""
    table = lay_out_values(TableData(columns=["c"], rows=[[value] for value in values]))
    return ["".join(span.text for span in row[0]) for row in table.rows], table.aligns[0]


@pytest.mark.parametrize(
    ("values", "texts", "align"),
    [
        ((1, 20, -3), ["1", "20", "-3"], "right"),
        ((1.5, 2.25, 3), ["1.50", "2.25", "3.00"], "right"),
        ((1.0, 2.0), ["1", "2"], "right"),
        ((0.1 + 0.2,), ["0.3"], "right"),
        ((1e20, 12), ["1e+20", "12"], "right"),
        ((2**70,), ["1.18059e+21"], "right"),
        ((None, 4), ["", "4"], "right"),
        ((True, False, None), ["yes", "no", ""], "left"),
        (
            ("1,234.50 €", "−3 %", "+4.2%", "(12)", "$ 5"),
            ["1,234.50 €", "−3 %", "+4.2%", "(12)", "$ 5"],
            "right",
        ),
        (("2026-01-31", "2026-02-28"), ["2026-01-31", "2026-02-28"], "left"),
        (("12", "twelve"), ["12", "twelve"], "left"),
        ((None, ""), ["", ""], "left"),
        ((), [], "left"),
    ],
)
def test_a_column_reads_as_its_values_mean(values: tuple[Any, ...], texts: list[str], align: str) -> None:
    """Numbers stand right with the same decimals; words, dates and empty columns left."""
    assert column(*values) == (texts, align)


widths = st.lists(st.tuples(st.floats(0.1, 300), st.floats(0.1, 1)), min_size=1, max_size=20)


@given(widths, st.floats(50, 200))
def test_columns_never_exceed_the_width_and_keep_their_words_where_they_can(
    shape: list[tuple[float, float]], width: float
) -> None:
    """Whatever the content, the table fits; no column falls below its longest word while there is room for all."""
    natural = [wish for wish, _ in shape]
    least = cap_words([wish * part for wish, part in shape], width)
    shared = share_width(natural, least, width)
    assert sum(shared) <= width * 1.000001
    assert all(each > 0 for each in shared)
    if sum(least) <= width:
        assert all(given >= floor * 0.999999 for given, floor in zip(shared, least, strict=True))
