"""The examples of ``docs/testing.md`` are a project whose tests pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.timing import scaled

GUIDE = Path(__file__).parent.parent.parent / "docs" / "testing.md"


def test_examples_of_the_guide_pass(tmp_path: Path) -> None:
    """Each example's first line names its file; those of one file follow each other."""
    for name, text in re.findall(r"```python\n# (\S+)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=scaled(60), check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "8 passed" in ended.stdout
