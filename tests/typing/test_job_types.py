"""What a type checker makes of job types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_submit_is_typed_by_the_input_model() -> None:
    """mypy, strict: no error but those the file expects, and each of those."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/typing/declared_jobs.py"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
