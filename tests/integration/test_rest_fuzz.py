"""Bodies and queries that nobody thought of: no call that takes one answers 500, and each refusal is a problem document."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.rest import Rest, make_settings, make_token, serve
from tests.support.timing import scaled
from tidings.protocol import new_job_id
from tidings.protocol.errors import Problem
from tidings_server.api.route import Route
from tidings_server.api.routes import ROUTES, describe

ADMIN = make_token("root", scope="admin")
DOCUMENT = describe()
BODIES = [route for route in ROUTES if route.body is not None]
QUERIES = [route for route in ROUTES if route.query.model_fields and not route.is_public]
# What comes near to being accepted finds more than what is refused at the first glance.
LIKELY: list[Any] = [
    None, True, False, 0, 1, -1, 9, 10, 0.5, 1e308, 2**63, 2**64 - 1, "", "x", "reports", "test.rows", "queued", "drop",
    "debounce", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "a\x00b", "\u2028", "x" * 300, {"rows": 1}, [],
    {}, ["queued"], [{}], {"key": "k"}, {"key": "k", "mode": "debounce"}, [{"type": "test.rows", "input": {"rows": 1}}],
]  # fmt: skip
values = st.sampled_from(LIKELY) | st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


class Served:
    """An application on a loop in a thread of its own, for examples that Hypothesis runs one by one."""

    def __init__(self, valkey_url: str, key_prefix: str, data_dir: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="served")
        self._thread.start()
        self._open = self._serve(
            valkey_url, make_settings(data_dir, key_prefix, submissions_per_minute=1_000_000)
        )
        self.rest: Rest = self.run(self._open.__aenter__())

    @asynccontextmanager
    async def _serve(self, valkey_url: str, chosen: Any) -> AsyncIterator[Rest]:
        async with serve(chosen, valkey_url) as rest:
            yield rest

    def run(self, work: Any) -> Any:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(scaled(30))

    def close(self) -> None:
        """End application, loop and thread."""
        self.run(self._open.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def served(valkey_url: str, key_prefix: str, tmp_path: Path) -> Iterator[Served]:
    """Serve an application for this test."""
    found = Served(valkey_url, key_prefix, tmp_path)
    yield found
    found.close()


def place_of(route: Route, job_id: str) -> str:
    """The route's path with its parameters filled."""
    return route.path.replace("{id}", job_id).replace("{name}", "reports")


def check(served: Served, route: Route, path: str, **sent: Any) -> None:
    """Call, and check that the answer is one of those that are documented."""
    answer, told = served.run(served.rest.call(route.method, path, token=ADMIN, **sent))
    documented = DOCUMENT["paths"][route.path][route.method.lower()]["responses"]
    assert str(answer.status) in documented, (answer.status, told)
    assert answer.status != 500, told
    if answer.status >= 400:
        problem = Problem.model_validate(told)
        assert problem.status == answer.status
        assert all(entry.message and entry.field for entry in problem.errors or ())


@pytest.mark.parametrize("route", BODIES, ids=lambda route: route.name)
def test_no_body_brings_a_call_down(served: Served, route: Route) -> None:
    """Whatever its known fields hold, and with unknown ones."""
    assert route.body is not None
    names = st.sampled_from([*route.body.model_fields, "unknown"])
    bodies = st.dictionaries(names, values, max_size=6) | values
    job_id = served.run(served.rest.submit(delay_s=1000))["id"]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies)
    def try_one(body: Any) -> None:
        check(
            served,
            route,
            place_of(route, job_id),
            data=orjson.dumps(body),
            headers={"Content-Type": "application/json"},
        )

    try_one()


@pytest.mark.parametrize("route", QUERIES, ids=lambda route: route.name)
def test_no_query_brings_a_call_down(served: Served, route: Route) -> None:
    """Waiting is left out, which takes its time."""
    names = st.sampled_from([name for name in [*route.query.model_fields, "unknown"] if name != "wait"])
    texts = st.text(max_size=12) | st.sampled_from([str(value) for value in LIKELY]) | st.integers().map(str)
    job_id = new_job_id(0)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(names, texts.filter(lambda text: text < "\ud800" or text > "\udfff")), max_size=4)
    )
    def try_one(query: list[tuple[str, str]]) -> None:
        check(served, route, place_of(route, job_id), params=query)

    try_one()
