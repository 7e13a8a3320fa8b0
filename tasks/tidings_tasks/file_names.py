"""File names that came from outside: cleaned for keeping, and spelt for ``Content-Disposition``."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

__all__ = ["clean_name", "content_disposition"]

_MAX_NAME_BYTES = 200
_MAX_EXTENSION_BYTES = 16
# Letters of RFC 5987's attr-char beside the alphanumerics; everything else is percent-encoded.
_ATTR_CHAR = "!#$&+-.^_`|~"


def clean_name(name: str) -> str:
    """Return ``name`` without folders, control and direction characters, or what a file system refuses.

    At most 200 bytes of UTF-8 remain, the extension among them; nothing left gives ``file``.
    """
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    # Cc, Cf (with the bidirectional overrides that disguise an extension), Cs, Co, Cn; Zl and Zp break lines.
    kept = "".join("_" if letter in '<>:"|?*' else letter for letter in base if not _is_unseen(letter))
    kept = re.sub(r"\s+", " ", kept).strip(" .")
    return _shorten(kept) or "file"


def content_disposition(name: str) -> str:
    """Return the header value that offers a download as ``name`` (RFC 6266, with RFC 5987 for other alphabets)."""
    name = clean_name(name)
    stem, dot, extension = name.rpartition(".") if "." in name else (name, "", "")
    stem, extension = _plain(stem), _plain(extension)
    plain = (stem if re.search(r"[A-Za-z0-9]", stem) else "file") + (dot + extension if extension else "")
    header = f'attachment; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"


def _plain(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    ascii_only = re.sub(r" +", " ", ascii_only).strip(" .")
    # Some browsers would decode a percent sign here and others would not; quotes and backslashes end the string.
    return re.sub(r'["\\%;]', "_", ascii_only)


def _is_unseen(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "C" or unicodedata.category(letter) in ("Zl", "Zp")


def _shorten(name: str) -> str:
    if len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    ending = (dot + extension).encode()
    if not stem or len(ending) > _MAX_EXTENSION_BYTES:
        stem, ending = name, b""
    room = _MAX_NAME_BYTES - len(ending)
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + ending.decode()
