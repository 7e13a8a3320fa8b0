"""``.submit()`` and its kin: from a program without an event loop, from one with, and from inside a job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.integration.running import Jobs, open_jobs, running_worker
from tidings.protocol import JobState
from tidings.protocol.errors import IdempotencyConflict, InvalidInput, StoreUnavailable
from tidings_tasks import JobContext, connect, connection, job
from tidings_tasks.registry import REGISTRY
from tidings_tasks.settings import Settings, SettingsError
from tidings_tasks.store import Keyspace, Tenant, commands


class Number(BaseModel):
    n: int


@job("test.submit.number")
async def number(ctx: JobContext, input: Number) -> int:
    return input.n


@job("test.submit.parent")
async def parent(ctx: JobContext, input: Number) -> list[str]:
    return await number.submit_many_async([Number(n=n) for n in range(input.n)], owner=ctx.owner, org=ctx.org)


@pytest.fixture
def disconnected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be without a connection before and after the test, whatever it does."""
    monkeypatch.setattr(connection, "_default", None)
    yield
    if connection._default is not None:
        connection._default.store.close()


@pytest.fixture
def connected(valkey_url: str, keyspace: Keyspace, disconnected: None) -> None:
    connect(valkey_url, keyspace=keyspace)


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, REGISTRY) as found:
        yield found


@pytest.mark.usefixtures("connected")
async def test_submitted_job_is_the_owners(jobs: Jobs) -> None:
    """Synchronously or not: with the options of the call, and ``system`` when nobody is named."""
    first = await jobs.read(
        number.submit(Number(n=1), owner="alice", org="acme", tags=["t"], queue="ai", delay_s=60)
    )
    assert (first.tenant, first.spec.tags, first.queue) == (Tenant("alice", "acme"), ("t",), "ai")
    assert first.state is JobState.SCHEDULED
    second = await jobs.read(await number.submit_async({"n": 2}))
    assert (second.tenant, second.spec.input, second.state) == (Tenant("system"), {"n": 2}, JobState.QUEUED)


@pytest.mark.usefixtures("connected")
async def test_many_are_all_or_none(jobs: Jobs) -> None:
    """One bad input, and nothing is stored; the ids come in the order of the inputs."""
    tenant = Tenant("alice")
    with pytest.raises(InvalidInput):
        number.submit_many([{"n": 1}, {"n": "x"}], owner="alice")
    with pytest.raises(InvalidInput, match="at most 1000"):
        number.submit_many([{"n": 1}] * 1001, owner="alice")
    assert await jobs.store.run(commands.list_jobs(0, tenant)) == []
    ids = number.submit_many([{"n": n} for n in range(1000)], owner="alice")
    assert [(await jobs.read(job_id)).spec.input["n"] for job_id in (ids[0], ids[999])] == [0, 999]
    assert number.submit_many([]) == []


@pytest.mark.usefixtures("connected")
async def test_idempotency_key_makes_one_job_of_repeats() -> None:
    """With the same content the same job; with another one an error."""
    first = number.submit({"n": 1}, owner="alice", idempotency_key="k")
    assert number.submit(Number(n=1), owner="alice", idempotency_key="k") == first
    assert number.submit({"n": 1}, owner="bob", idempotency_key="k") != first
    with pytest.raises(IdempotencyConflict):
        number.submit({"n": 2}, owner="alice", idempotency_key="k")


async def test_job_submits_others_without_being_connected(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path, disconnected: None
) -> None:
    """Inside a worker the store is the worker's."""
    async with running_worker(valkey_url, keyspace, REGISTRY, tmp_path):
        import orjson

        record = await jobs.until(await jobs.submit(parent, {"n": 3}))
        assert record.result is not None
        children = [await jobs.until(job_id) for job_id in orjson.loads(record.result)]
    assert [child.result for child in children] == [b"0", b"1", b"2"]
    assert {child.tenant for child in children} == {Tenant("alice", "acme")}


@pytest.mark.usefixtures("disconnected")
def test_first_use_reads_the_environment(
    valkey_url: str, keyspace: Keyspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``REDIS_URL`` the error says what to do; with it, the key prefix counts too."""
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "REDIS_HOST", "TIDINGS_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match=r"REDIS_URL.*\n?.*connect\(url\)"):
        number.submit({"n": 1})
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("TIDINGS_KEY_PREFIX", keyspace.prefix)
    job_id = number.submit({"n": 1})
    assert connection.default_store().keyspace == keyspace
    assert connection.default_store().run(commands.read_job(job_id)) is not None


@pytest.mark.usefixtures("disconnected")
def test_settings_without_a_store_are_refused() -> None:
    """At ``connect``, not at the first submission."""
    with pytest.raises(SettingsError, match="REDIS_URL"):
        connect(Settings())


@pytest.mark.usefixtures("disconnected")
def test_store_that_is_away_is_told(tmp_path: Path) -> None:
    """The caller decides whether to try again."""
    connect(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(StoreUnavailable):
        number.submit({"n": 1})
