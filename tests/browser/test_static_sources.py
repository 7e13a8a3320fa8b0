"""The browser sources themselves: nothing is fetched from elsewhere, nothing is written into a page as HTML."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "static"
OURS = [
    path
    for path in sorted(STATIC.rglob("*"))
    if path.suffix in {".js", ".html", ".css"} and path.parent.name != "vendor"
]


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(STATIC)))
def test_no_source_needs_another_host_or_inserts_markup(path: Path) -> None:
    """No address of elsewhere is loaded, and nothing is written into a page as HTML or run from a string."""
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href|from|import|url)\s*[=(]?\s*["']?(?:https?:)?//""", text)
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
    if path.suffix == ".html":
        assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text)


def test_vendored_libraries_are_the_ones_that_are_named() -> None:
    """Each vendored script has the hash its README gives, and a licence beside it."""
    readme = (STATIC / "vendor/README.md").read_text(encoding="utf-8")
    scripts = sorted((STATIC / "vendor").glob("*.js"))
    assert scripts
    for script in scripts:
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{script.name}`"))
        assert hashlib.sha256(script.read_bytes()).hexdigest() in row
        for licence in re.findall(r"`([a-z.-]+\.LICENSE\.txt)`", row):
            assert (STATIC / "vendor" / licence).stat().st_size > 500
