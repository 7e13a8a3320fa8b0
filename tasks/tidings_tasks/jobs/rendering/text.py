"""Text as every format can carry it: no control characters, one line where one line is meant."""

from __future__ import annotations

import re

__all__ = ["REPLACEMENT", "one_line", "printable"]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# XML 1.0 (and so DOCX) refuses C0 controls, surrogates and the two non-characters; C1 controls show nowhere.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Return ``text`` with each unprintable character replaced by U+FFFD, and line ends as ``\\n``."""
    return _UNPRINTABLE.sub(REPLACEMENT, text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Return ``text`` printable and with every run of white space as one space."""
    return " ".join(printable(text).split())
