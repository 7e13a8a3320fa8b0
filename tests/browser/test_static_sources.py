"""The browser sources themselves: their unit tests in Node, their types, and nothing fetched from elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "static"
OURS = [
    path
    for path in sorted(STATIC.rglob("*"))
    if path.suffix in {".js", ".html", ".css"} and path.parent.name != "vendor"
]


def _find_or_skip(name: str, *places: Path) -> str:
    for place in places:
        if place.exists():
            return str(place)
    if found := shutil.which(name):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is needed")
    pytest.skip(f"{name} is not installed")


def test_the_pure_parts_pass_their_unit_tests() -> None:
    """Positions, waiting, memory, CSV, Markdown and formatting, as Node runs them."""
    node = _find_or_skip("node")
    files = sorted(str(path) for path in (ROOT / "tests/browser/unit").glob("*.test.mjs"))
    run = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout[-4_000:] + run.stderr[-2_000:]


def test_the_sources_are_type_correct() -> None:
    """`tsc` with `checkJs` and `strict` finds nothing in the JSDoc types."""
    tsc = _find_or_skip("tsc", ROOT / "node_modules/.bin/tsc", Path(os.environ.get("TSC", "/nonexistent")))
    run = subprocess.run(
        [tsc, "--project", str(ROOT / "tsconfig.json")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout


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
