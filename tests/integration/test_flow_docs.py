"""The examples of ``docs/flows.md`` and of the protocol are real."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from tests.integration.running import open_jobs, running_worker
from tidings_tasks import demo
from tidings_tasks.flows.form import FlowInput, StepInput
from tidings_tasks.flows.planning import FLOW
from tidings_tasks.registry import REGISTRY, Registry
from tidings_tasks.store import Keyspace

DOCS = Path(__file__).parents[2] / "docs"
GUIDE, PROTOCOL = (DOCS / "flows.md").read_text("utf-8"), (DOCS / "protocol.md").read_text("utf-8")


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run the example as a module, which registers its types in a registry of its own."""
    registry = Registry()
    registry.add(demo.steps)
    monkeypatch.setattr(REGISTRY, "_types", registry._types)
    module = ModuleType("guide")
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
    exec(compile(code, "flows.md", "exec"), vars(module))
    return module


async def test_the_flow_of_the_guide_runs(
    guide: Any, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """As it is written in JSON and as it is built in Python."""
    [text] = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    async with (
        open_jobs(valkey_url, keyspace, REGISTRY) as jobs,
        running_worker(valkey_url, keyspace, REGISTRY, tmp_path),
    ):
        for body, last in ((json.loads(text), "sum"), (guide.daily_sum("2026-11-23").to_input(), "add")):
            record = await jobs.until(await jobs.submit(FLOW, body))
            assert orjson.loads(record.result or b"")["steps"][last]["result"] == 3


async def test_the_flow_of_the_protocol_runs(
    guide: Any, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """A reference is a dependency."""
    text = PROTOCOL.split("**Flows.**")[1].split("```json\n")[1].split("```")[0]
    async with (
        open_jobs(valkey_url, keyspace, REGISTRY) as jobs,
        running_worker(valkey_url, keyspace, REGISTRY, tmp_path),
    ):
        record = await jobs.until(await jobs.submit(FLOW, json.loads(text)))
        assert orjson.loads(record.result or b"")["steps"]["play"]["result"] == {"steps": 3, "attempt": 1}


def test_the_guide_names_every_field() -> None:
    """Of a flow and of a step."""
    flow, step = GUIDE.split("| Field of a step")
    for model, part in ((FlowInput, flow), (StepInput, step)):
        assert not [name for name in model.model_fields if f"`{name}`" not in part]
