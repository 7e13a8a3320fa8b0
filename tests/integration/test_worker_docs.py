"""The examples of ``docs/jobs.md`` are real."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import dramatiq
import pytest

from tests.integration.running import open_jobs, running_worker
from tidings.protocol import JobState
from tidings_tasks import registry as registry_module
from tidings_tasks.hooks import HOOKS
from tidings_tasks.registry import REGISTRY, Registry
from tidings_tasks.store import Keyspace

GUIDE = Path(__file__).parent.parent.parent / "docs" / "jobs.md"


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run all examples as one module, which registers its types in a registry of its own."""
    registry = Registry()
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    monkeypatch.setattr(REGISTRY, "_types", registry._types)
    monkeypatch.setattr(HOOKS, "_hooks", {})
    assert registry_module.REGISTRY is REGISTRY
    module = ModuleType("guide")
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL))
    exec(compile(code, str(GUIDE), "exec"), vars(module))
    return module


async def test_examples_of_the_guide_run(
    guide: Any, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Each ends as the text says."""
    async with (
        open_jobs(valkey_url, keyspace, REGISTRY) as jobs,
        running_worker(valkey_url, keyspace, REGISTRY, tmp_path),
    ):
        rows = await jobs.submit(guide.rows, guide.Rows(rows=3))
        count = await jobs.submit(guide.count, {"rows": 2})
        unknown = await jobs.submit(guide.ship, {"id": -1})
        closed = await jobs.submit(guide.ship, {"id": 1})
        encode = await jobs.submit(guide.encode)
        assert (await jobs.until(rows)).result == b'{"rows":3}'
        assert (await jobs.until(count)).result == b"2"
        assert (await jobs.until(unknown)).state is JobState.FAILED
        assert (await jobs.until(closed, JobState.RETRYING)).tries == 1
        assert (await jobs.until(encode)).state is JobState.COMPLETED
        resized = guide.resize.send_with_options(args=("a.png",), owner="alice", org="acme").message_id
        assert (await jobs.until(resized)).result == b'"a.png"'
