"""File names from outside: what is kept of them, and how a download is offered."""

from __future__ import annotations

from email.message import Message

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidings_tasks.file_names import clean_name, content_disposition


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\ada\report.pdf", "report.pdf"),
        ("a\r\nSet-Cookie: x=1", "aSet-Cookie_ x=1"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("  .hidden. ", "hidden"),
        ("...", "file"),
        ("", "file"),
        ("\ud800.txt", "txt"),
        ("Übersicht – 報告.pdf", "Übersicht – 報告.pdf"),
        ("a \u2028 b", "a b"),
    ],
)
def test_a_name_keeps_what_is_safe(given_name: str, kept: str) -> None:
    """Folders, control characters and direction overrides go, other alphabets stay."""
    assert clean_name(given_name) == kept


def test_a_long_name_keeps_its_extension() -> None:
    """The stem is cut between characters, not within one."""
    name = clean_name("ü" * 300 + ".pdf")
    assert name.endswith("ü.pdf")
    assert 190 <= len(name.encode()) <= 200


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("50% off.pdf", "attachment; filename=\"50_ off.pdf\"; filename*=UTF-8''50%25%20off.pdf"),
        ("Über.pdf", "attachment; filename=\"Uber.pdf\"; filename*=UTF-8''%C3%9Cber.pdf"),
        ("報告.pdf", "attachment; filename=\"file.pdf\"; filename*=UTF-8''%E5%A0%B1%E5%91%8A.pdf"),
    ],
)
def test_a_download_is_always_an_attachment_with_both_spellings(name: str, header: str) -> None:
    """RFC 6266: a plain form for everyone, RFC 5987's form where the plain one says less."""
    assert content_disposition(name) == header


@given(st.text())
@example("0 ȴ 0")
def test_any_name_gives_one_safe_header_that_reads_back(name: str) -> None:
    """The header is printable ASCII on one line, and a client recovers the cleaned name from it."""
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    message = Message()
    message["Content-Disposition"] = header
    assert message.get_content_disposition() == "attachment"
    clean = clean_name(name)
    assert 1 <= len(clean.encode()) <= 200
    read = message.get_filename()
    assert read is not None
    assert clean_name(read) in (clean, read)


@given(st.text())
def test_cleaning_is_done_after_one_pass(name: str) -> None:
    """What is clean stays as it is."""
    assert clean_name(clean_name(name)) == clean_name(name)
