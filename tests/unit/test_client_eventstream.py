"""The parser of event streams: cut anywhere, all line ends, bounded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.transport.eventstream import EventStreamParser, StreamMessage, StreamTooLong

TEXT = (
    b"\xef\xbb\xbf: hello\n\n"
    b'event: progress\nid: e1:1\ndata: {"a":\ndata: 1}\n\n'
    b"data:no blank\r\n\r\n"
    b"event: nothing\n\n"
    b"id: e1:2\rdata: \xc3\xa4\r\r"
    b"retry: 10\nunknown: x\nfield\ndata\n\n"
)
MESSAGES = [
    StreamMessage("progress", '{"a":\n1}', "e1:1"),
    StreamMessage("message", "no blank", "e1:1"),
    StreamMessage("message", "ä", "e1:2"),
    StreamMessage("message", "", "e1:2"),
]


def test_a_stream_is_read_as_the_standard_says() -> None:
    """Comments, several data lines, all three line ends, unknown fields, a byte order mark."""
    assert EventStreamParser(1000).feed(TEXT) == MESSAGES


@settings(deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_where_the_chunks_are_cut_makes_no_difference(cuts: list[int]) -> None:
    """Also between CR and LF and inside a character."""
    parser, places = EventStreamParser(1000), sorted({0, len(TEXT), *cuts})
    pieces = [TEXT[start:end] for start, end in pairwise(places)]
    assert [message for piece in pieces for message in parser.feed(piece)] == MESSAGES


def test_a_message_without_its_end_is_not_dispatched() -> None:
    """A cut connection leaves nothing half read."""
    parser = EventStreamParser(1000)
    assert parser.feed(b"data: 1\n") == []
    assert parser.feed(b"\n") == [StreamMessage("message", "1", "")]


@pytest.mark.parametrize("piece", [b"x" * 60, b"data: 123456789\n"])
def test_a_message_over_the_bound_is_refused(piece: bytes) -> None:
    """Whether it is one line or many; what has been dispatched does not count."""
    parser = EventStreamParser(100)
    for _ in range(50):
        parser.feed(b"data: 1\n\n")
    parser.feed(piece)
    with pytest.raises(StreamTooLong):
        parser.feed(piece * 20)
