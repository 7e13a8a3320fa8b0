"""Job types: what the decorator takes, how an input is validated, how a result is encoded."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from tidings.protocol.errors import InvalidInput, UnknownJobType
from tidings_tasks import JobContext, SyncJobContext, job
from tidings_tasks.job_type import InvalidResult, NoInput
from tidings_tasks.registry import Registry, load_modules
from tidings_tasks.settings import Settings


class Steps(BaseModel):
    steps: int = Field(ge=1)
    note: str = ""


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_decorator_registers_and_leaves_the_function_callable(registry: Registry) -> None:
    """The type carries the function's name and docstring, and calling it calls the function."""

    @job("demo.sync", queue="reports", timeout_s=5, max_attempts=2, backoff_s=(1, 2), registry=registry)
    def run(ctx: SyncJobContext, input: Steps) -> int:
        """Count steps."""
        return input.steps

    assert registry.get("demo.sync") is run
    assert "demo.sync" in registry
    assert len(registry) == 1
    assert (run.name, run.queue, run.timeout_s, run.max_attempts, run.backoff_s) == (
        "demo.sync", "reports", 5.0, 2, (1.0, 2.0),
    )  # fmt: skip
    assert (run.input_model, run.is_async, run.description) == (Steps, False, "Count steps.")
    assert run(None, Steps(steps=3)) == 3


def test_function_may_take_the_context_alone(registry: Registry) -> None:
    """Then its input is an empty object."""

    @job("bare", registry=registry)
    async def bare(ctx: JobContext) -> None: ...

    assert bare.input_model is NoInput
    assert bare.is_async
    assert bare.dump_input({}) == {}
    with pytest.raises(InvalidInput):
        bare.validate_input({"x": 1})


def test_functions_of_another_form_are_refused(registry: Registry) -> None:
    """The error names the function and says what is expected."""

    def no_context() -> None: ...
    def too_many(ctx: Any, a: Steps, b: Steps) -> None: ...
    def no_model(ctx: Any, a: dict[str, int]) -> None: ...
    def missing(ctx: Any, a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is what is tested
    def odd_result(ctx: Any) -> Registry: ...  # type: ignore[empty-body]  # only its signature is read

    for fn, text in (
        (no_context, "has the form"),
        (too_many, "has the form"),
        (no_model, "pydantic model"),
        (missing, "cannot be resolved"),
        (odd_result, "return annotation"),
    ):
        with pytest.raises(TypeError, match=text) as caught:
            job("bad", registry=registry)(fn)
        assert fn.__name__ in str(caught.value)
    assert len(registry) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"queue": "no spaces"}, {"timeout_s": 0}, {"timeout_s": float("nan")}, {"max_attempts": 0}, {"backoff_s": ()},
        {"backoff_s": (-1,)}, {"concurrency_limit": 0}, {"concurrency_limit": 1.5}, {"max_attempts": 1.5},
        {"dependency": "no spaces"}, {"expires_s": 0},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(registry: Registry, options: dict[str, Any]) -> None:
    """At import, not when the first job runs."""
    with pytest.raises(ValueError, match=r"bad|queue|dependency"):

        @job("bad", registry=registry, **options)
        async def bad(ctx: JobContext) -> None: ...


def test_process_is_for_plain_functions(registry: Registry) -> None:
    """An async function is stopped at its await; there is nothing to kill."""

    @job("plain", process=True, concurrency_limit=3, dependency="openai", expires_s=60, registry=registry)
    def plain(ctx: SyncJobContext) -> None: ...

    assert (plain.process, plain.concurrency_limit, plain.dependency, plain.expires_s) == (
        True,
        3,
        "openai",
        60,
    )
    assert registry.dependencies == {"openai"}
    with pytest.raises(TypeError, match="plain functions"):

        @job("bad", process=True, registry=registry)
        async def bad(ctx: JobContext) -> None: ...


def test_the_queue_says_what_the_type_does_not(registry: Registry) -> None:
    """Each of the three numbers for itself, and by the policies of this installation."""

    @job("mixed", queue="exports", max_attempts=2, registry=registry)
    async def mixed(ctx: JobContext) -> None: ...

    @job("own", queue="own", registry=registry)
    async def own(ctx: JobContext) -> None: ...

    info = mixed.info()
    assert (info.timeout_s, info.retry.max_attempts, info.retry.backoff_s) == (300, 2, [60, 300, 1800])
    info = own.info(
        Settings(queues={"default": {"timeout_s": 7, "backoff_s": [1], "max_attempts": 9}}).queues
    )
    assert (info.timeout_s, info.retry.max_attempts, info.retry.backoff_s) == (7, 9, [1])


def test_name_is_taken_once(registry: Registry) -> None:
    """A second function of the same name is an error; the same one again, as on a reload, is none."""

    def make(version: int) -> Any:
        @job("one", registry=registry)
        async def one(ctx: JobContext) -> int:
            return version

        return one

    make(1)
    reloaded = make(2)
    assert registry.get("one") is reloaded
    with pytest.raises(ValueError, match="registered twice"):

        @job("one", registry=registry)
        async def other(ctx: JobContext) -> None: ...


def test_unknown_type_names_those_that_look_alike(registry: Registry) -> None:
    """A typo is told as one."""

    @job("report.rows", registry=registry)
    async def rows(ctx: JobContext) -> None: ...

    with pytest.raises(UnknownJobType, match=r"did you mean report\.rows\?"):
        registry.get("report.row")
    with pytest.raises(UnknownJobType) as caught:
        registry.get("zzz")
    assert "did you mean" not in str(caught.value)


def test_queues_are_the_built_in_ones_and_the_types_own(registry: Registry) -> None:
    """A custom queue is known once a type uses it."""

    @job("x", queue="my-queue", registry=registry)
    async def x(ctx: JobContext) -> None: ...

    assert {"critical", "default", "scheduled", "my-queue"} <= registry.queues


def test_input_errors_name_their_fields(registry: Registry) -> None:
    """Every fault has an entry with a dotted path under ``input``; unknown fields are faults."""

    class Order(BaseModel):
        lines: list[Steps]

    @job("order", registry=registry)
    async def order(ctx: JobContext, input: Order) -> None: ...

    with pytest.raises(InvalidInput) as caught:
        order.validate_input({"lines": [{"steps": 0}, {"steps": 1, "stepps": 2}], "more": 1})
    assert {(e.field, e.code) for e in caught.value.errors} == {
        ("input.lines.0.steps", "greater_than_equal"),
        ("input.lines.1.stepps", "extra_forbidden"),
        ("input.more", "extra_forbidden"),
    }
    assert caught.value.code == "invalid_input"
    assert isinstance(order.validate_input({"lines": [{"steps": 1}]}), Order)
    assert order.info().input_schema["additionalProperties"] is False


def test_model_that_sets_extra_itself_decides(registry: Registry) -> None:
    """At the top, and anywhere below: a run-time setting would override what the author wrote."""

    class Free(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Around(BaseModel):
        free: Free

    @job("free", registry=registry)
    async def free(ctx: JobContext, input: Free) -> None: ...

    @job("around", registry=registry)
    async def around(ctx: JobContext, input: Around) -> None: ...

    assert free.validate_input({"x": 1}).model_extra == {"x": 1}
    assert around.validate_input({"free": {"x": 1}}).free.model_extra == {"x": 1}


def test_model_instance_survives_the_way_through_the_store(registry: Registry) -> None:
    """Aliases, computed fields and types that are no JSON: what was dumped validates again to the same."""

    class Rich(BaseModel):
        id: UUID
        path: Path
        long_name: int = Field(alias="longName")

        @computed_field
        def twice(self) -> int:
            return self.long_name * 2

    @job("rich", registry=registry)
    async def rich(ctx: JobContext, input: Rich) -> None: ...

    made = Rich(id=UUID(int=7), path=Path("a/b"), longName=3)
    assert rich.validate_input(rich.dump_input(made)) == made
    given = {"id": str(UUID(int=7)), "path": "a", "longName": 1}
    assert rich.dump_input(given) is given
    with pytest.raises(InvalidInput, match="must be a Rich"):
        rich.validate_input(Steps(steps=1))


def test_result_is_encoded_by_its_annotation(registry: Registry) -> None:
    """A dataclass, a model, a plain dict; what does not fit is an error that says where."""

    @dataclass
    class Point:
        x: int
        y: int

    @job("point", registry=registry)
    async def point(ctx: JobContext) -> Point:
        return Point(1, 2)

    @job("plain", registry=registry)
    async def plain(ctx: JobContext) -> dict[str, int]:
        return {}

    @job("none", registry=registry)
    async def none(ctx: JobContext) -> None: ...

    assert point.dump_result(Point(1, 2)) == b'{"x":1,"y":2}'
    assert plain.dump_result({"a": 1}) == b'{"a":1}'
    assert none.dump_result(None) == b"null"
    with pytest.raises(InvalidResult, match=r"result\.a"):
        plain.dump_result({"a": "x"})
    with pytest.raises(InvalidResult):
        none.dump_result(1)


def test_description_of_a_type_is_that_of_the_contract(registry: Registry) -> None:
    """``info`` is what ``GET /api/job-types`` shows."""

    @job("described", max_attempts=4, backoff_s=(1, 5), description="Says so.", registry=registry)
    async def described(ctx: JobContext, input: Steps) -> None: ...

    info = described.info()
    assert (info.type, info.description, info.queue) == ("described", "Says so.", "default")
    assert info.retry.model_dump() == {"max_attempts": 4, "backoff_s": [1, 5]}
    assert info.input_schema["properties"]["steps"]["minimum"] == 1


def test_job_module_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``load_modules`` imports it, with a broker for the plain actors in it."""
    (tmp_path / "shop_jobs_for_test.py").write_text(
        "import dramatiq\n"
        "from tidings_tasks import JobContext, job\n"
        "@job('shop.test.job')\n"
        "async def one(ctx: JobContext) -> None: ...\n"
        "@dramatiq.actor\n"
        "def shop_test_actor(): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dramatiq.broker.global_broker", None)
    monkeypatch.setattr("sys.path", ["", *sys.path])
    registry = load_modules(["shop_jobs_for_test"])
    assert registry.get("shop.test.job").name == "shop.test.job"
    from tidings_tasks.queue.broker import installed_broker

    assert installed_broker().get_declared_actors() == {"shop_test_actor"}
    del registry._types["shop.test.job"]
    sys.modules.pop("shop_jobs_for_test")


def test_declaring_jobs_needs_no_store_no_broker_and_no_environment() -> None:
    """A job module imports fast and anywhere: without redis, Dramatiq, or a look at the environment."""
    code = """
import os, socket, sys
class Watched(dict):
    def __getitem__(self, name):
        assert not name.startswith(("TIDINGS", "REDIS")), name
        return super().__getitem__(name)
    get = lambda self, name, default=None: self[name] if name in self else default
os.environ = Watched(os.environ)
def refuse(*args): raise AssertionError("a socket")
from tidings_tasks import JobContext, job
socket.socket.connect = refuse
from pydantic import BaseModel
class Rows(BaseModel):
    rows: int
@job("x")
async def x(ctx: JobContext, input: Rows) -> dict[str, int]: return {}
print(sorted({"redis", "dramatiq", "aiohttp"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
