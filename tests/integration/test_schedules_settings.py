"""Schedules that the settings declare, and what is checked when one is made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import open_jobs, running_worker
from tests.integration.scheduling import Desk, make
from tests.support.timing import eventually
from tidings.protocol.errors import InvalidInput, ScheduleConflict, ScheduleMissing, UnknownJobType
from tidings_tasks.checking import check_all
from tidings_tasks.registry import Registry
from tidings_tasks.schedules.book import API, SETTINGS
from tidings_tasks.settings import Settings, SettingsError
from tidings_tasks.store import Keyspace, Tenant


@pytest.fixture
async def desk(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Desk]:
    """Give a store without a worker."""
    async with open_jobs(valkey_url, keyspace, Registry()) as jobs:
        yield Desk(jobs)


async def test_the_settings_decide_about_theirs(desk: Desk) -> None:
    """New ones come, changed ones change, those gone are removed; others' stay, and what is paused stays paused."""
    await desk.book.create(make("by-hand", every_s=3600))
    await desk.scheduler().declare({"a": make("a", every_s=3600), "b": make("b", every_s=3600)})
    await desk.book.pause("a")
    await desk.scheduler().declare({"a": make("a", every_s=1800), "c": make("c", every_s=3600)})
    found = {entry.schedule.name: entry for entry in await desk.book.page()}
    assert {name: entry.record.origin for name, entry in found.items()} == {
        "a": SETTINGS,
        "by-hand": API,
        "c": SETTINGS,
    }
    assert found["a"].record.is_paused
    assert found["a"].schedule.every_s == 1800


async def test_a_restart_with_the_same_settings_loses_nothing(desk: Desk) -> None:
    """What was due before is still due."""
    declared = {"nightly": make("nightly", every_s=3600)}
    await desk.scheduler().declare(declared)
    before = await desk.record()
    await desk.scheduler().declare(declared)
    assert await desk.record() == before


async def test_a_declared_schedule_takes_the_place_of_one_made_by_hand(desk: Desk) -> None:
    """It is the settings' from then on, and can't be changed by hand."""
    await desk.book.create(make("a", every_s=3600))
    await desk.scheduler().declare({"a": make("a", every_s=1800)})
    assert (await desk.record("a")).origin == SETTINGS
    for change in (desk.book.replace(make("a")), desk.book.delete("a")):
        with pytest.raises(ScheduleConflict, match="declared in the settings"):
            await change


async def test_a_declared_type_that_is_not_here_is_left_as_it_is(desk: Desk) -> None:
    """Neither stored nor removed by this process."""
    declared = {"a": make("a", every_s=3600)}
    await desk.scheduler().declare(declared)
    await desk.scheduler(registry=Registry()).declare(declared)
    assert (await desk.record("a")).origin == SETTINGS


async def test_a_new_owner_in_the_settings_moves_the_schedule(valkey_url: str, key_prefix: str) -> None:
    """To the owner's shard: there is one of its name in all."""
    keyspace = Keyspace(key_prefix, 8)
    owners = [f"o{n}" for n in range(20)]
    first = owners[0]
    shard_of = {owner: keyspace.shard_of_tenant(Tenant(owner)) for owner in owners}
    other = next(owner for owner in owners if shard_of[owner] != shard_of[first])
    async with open_jobs(valkey_url, keyspace, Registry()) as jobs:
        desk = Desk(jobs)
        for owner in (first, other):
            await desk.scheduler().declare({"a": make("a", every_s=3600, owner=owner)})
            [entry] = await desk.book.page()
            assert (entry.schedule.owner, entry.shard) == (owner, shard_of[owner])


async def test_a_schedule_is_checked_when_it_is_made(desk: Desk) -> None:
    """Its type, its input, its queue, its size and its name."""
    with pytest.raises(UnknownJobType, match=r"did you mean test\.hold"):
        await desk.book.create(make(type="test.holt"))
    with pytest.raises(InvalidInput, match=r"input\.rows"):
        await desk.book.create(make(input={"rows": 0}))
    with pytest.raises(InvalidInput, match="queue"):
        await desk.book.create(make(queue="nowhere"))
    with pytest.raises(InvalidInput, match="65,536 bytes"):
        await desk.book.create(make(input={"rows": 1, "note": "x" * 70_000}))
    await desk.book.create(make(every_s=3600))
    with pytest.raises(ScheduleConflict, match="already"):
        await desk.book.create(make(every_s=3600))
    with pytest.raises(ScheduleConflict, match="owner"):
        await desk.book.replace(make(owner="bob"))
    with pytest.raises(ScheduleMissing):
        await desk.book.replace(make("other"))


async def test_a_worker_refuses_declared_inputs_that_are_not_valid(
    desk: Desk, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Before it begins, and with the field's whole path."""
    settings = {"schedules": {"nightly": {"type": "test.hold", "cron": "@daily", "input": {"rows": 0}}}}
    with pytest.raises(SettingsError, match=r"schedules\.nightly\.input\.rows"):
        async with running_worker(valkey_url, keyspace, desk.registry, tmp_path, **settings) as running:
            await running.ended()


async def test_a_worker_fires_what_its_settings_declare(
    desk: Desk, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Also where it serves another queue."""
    desk.release.set()
    settings = {"schedules": {"often": {"type": "test.hold", "every_s": 0.1, "input": {"rows": 1}}}}
    async with running_worker(valkey_url, keyspace, desk.registry, tmp_path, queues=["ai"], **settings):
        await eventually(desk.runs)
    assert (await desk.record("often")).origin == SETTINGS
    assert desk.begun == []


def test_settings_name_the_field_of_a_schedule() -> None:
    """As for every other setting."""
    with pytest.raises(ValueError) as refused:
        Settings.model_validate({"schedules": {"nightly": {"type": "x", "cron": "61 * * * *"}}})
    assert "schedules.nightly.cron" in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "subject", "status", "message"),
    [
        ({}, "schedule nightly", "ok", "demo.steps, due next "),
        ({"enabled": False}, "schedule nightly", "ok", "demo.steps, disabled"),
        ({"input": {"steps": 0}}, "schedules.nightly.input.steps", "error", "greater than or equal to 1"),
        ({"type": "demo.step"}, "schedules.nightly.type", "warning", "did you mean demo.steps"),
    ],
)
async def test_the_check_tells_when_each_is_due_and_what_is_wrong_with_it(
    fields: dict[str, Any], subject: str, status: str, message: str, tmp_path: Path
) -> None:
    """With the field's whole path, as a worker would tell it."""
    schedule = {"type": "demo.steps", "cron": "@daily", "input": {"steps": 1}} | fields
    settings = Settings.model_validate(
        {
            "env": "test",
            "data_dir": tmp_path,
            "jobs": "tidings_tasks.demo",
            "schedules": {"nightly": schedule},
        }
    )
    [found] = [finding for finding in await check_all(settings) if finding.subject == subject]
    assert found.status == status
    assert message in found.message
    assert bool(found.fix) == (status != "ok")
