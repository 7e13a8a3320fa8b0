"""Workers tell that they live, and how long jobs take; whoever asks sees those that live, and percentiles."""

from __future__ import annotations

import pytest

from tests.support.timing import eventually
from tidings_tasks.store import Durations, RunningJob, WorkerInfo, bucket_of, worker_commands

from .bench import Bench


def describe(worker: str, **changed: object) -> WorkerInfo:
    """Describe a worker as it does itself."""
    known: dict[str, object] = {
        "host": "h1", "pid": 7, "profile": "ai", "queues": ("ai", "embeddings"), "concurrency": 5,
        "running": (RunningJob("01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0", "demo.steps", 5),), "running_count": 1,
        "rss_bytes": 1 << 20, "version": "1.0", "runtime": "tidings", "started_ms": 3, "done": 2, "failed": 1,
        "is_stopping": False,
    }  # fmt: skip
    return WorkerInfo(worker, **(known | changed))  # type: ignore[arg-type]


def beat(
    bench: Bench, worker: str, number: int, *, run: str = "r", ttl_ms: int = 15_000, **durations: object
) -> None:
    """Let a worker beat."""
    info = describe(worker).to_json()
    bench.run(worker_commands.beat(worker, info, ttl_ms, durations, run=run, number=number))  # type: ignore[arg-type]


def test_a_worker_that_beats_is_listed_as_it_describes_itself(bench: Bench) -> None:
    """All it said comes back, with the time it said it."""
    beat(bench, "w2", 1)
    beat(bench, "w1", 1)
    listed = bench.run(worker_commands.list_workers())
    assert listed == [describe("w1", beat_ms=bench.now_ms), describe("w2", beat_ms=bench.now_ms)]


def test_a_beat_of_another_version_is_read(bench: Bench) -> None:
    """What is missing is empty, what is new is ignored."""
    bench.run(
        worker_commands.beat("w", b'{"pid":3,"running":[["a","b",1,2]],"new":1}', 900, {}, run="r", number=1)
    )
    [listed] = bench.run(worker_commands.list_workers())
    assert (listed.pid, listed.host, listed.running) == (3, "", (RunningJob("a", "b", 1),))


def test_a_worker_that_ends_is_gone_at_once(bench: Bench) -> None:
    """Its last beat, with no time to live, takes it off the list, and brings its last durations."""
    beat(bench, "w1", 1)
    beat(bench, "w1", 2, ttl_ms=0, t={3: 1})
    assert bench.run(worker_commands.list_workers()) == []
    assert bench.run(worker_commands.read_durations(["t"]))["t"].count == 1


async def test_a_worker_that_is_killed_vanishes_when_its_beat_expires(bench: Bench) -> None:
    """No other worker has to notice it."""
    bench.checks = False  # the beat may expire between two calls that are compared
    beat(bench, "w1", 1, ttl_ms=50)

    async def is_gone() -> bool:
        return bench.run(worker_commands.list_workers()) == []

    await eventually(is_gone, 5)


def test_a_silent_worker_leaves_no_trace(bench: Bench) -> None:
    """The index forgets it at another worker's beat."""
    beat(bench, "w1", 1)
    bench.advance(60_000)
    beat(bench, "w2", 1)
    assert bench.raw.zrange(bench.key("beats"), 0, -1) == [b"w2"]


def test_a_worker_that_took_over_a_name_is_heard(bench: Bench) -> None:
    """Its numbers begin anew: another run is no repeat."""
    beat(bench, "w1", 9, t={3: 1})
    beat(bench, "w1", 1, run="another", t={3: 1})
    assert bench.run(worker_commands.read_durations(["t"]))["t"].count == 2


@pytest.mark.parametrize("duration_s", [0.0011, 0.02, 0.5, 1, 7.7, 60, 3600, 86_400])
def test_percentiles_are_ten_percent_exact(duration_s: float) -> None:
    """Wherever a duration lies in its bucket."""
    found = Durations.from_buckets({bucket_of(duration_s): 5})
    assert found is not None
    assert found.p50_s == pytest.approx(duration_s, rel=0.1)
    assert found.p90_s == found.p95_s == found.p50_s


def test_percentiles_of_many_workers_are_those_of_all_jobs(bench: Bench) -> None:
    """100 jobs of 1 to 100 s, told in three beats of two workers."""
    for number, (worker, jobs) in enumerate(
        [("w1", range(1, 40)), ("w2", range(40, 60)), ("w1", range(60, 101))]
    ):
        buckets: dict[int, int] = {}
        for duration_s in jobs:
            buckets[bucket_of(duration_s)] = buckets.get(bucket_of(duration_s), 0) + 1
        beat(bench, worker, number, t=buckets)
    found = bench.run(worker_commands.read_durations(["t", "unknown"]))
    assert set(found) == {"t"}
    durations = found["t"]
    assert durations.count == 100
    assert durations.p50_s == pytest.approx(50, rel=0.11)
    assert durations.p90_s == pytest.approx(90, rel=0.11)
    assert durations.p95_s == pytest.approx(95, rel=0.11)


def test_durations_follow_change(bench: Bench) -> None:
    """What was slow for long and is fast now is known as fast after as many jobs, not ten times as many."""
    beat(bench, "w1", 1, t={bucket_of(100): 100_000})
    assert bench.run(worker_commands.read_durations(["t"]))["t"].count <= 1000
    for number in range(2, 13):
        beat(bench, "w1", number, t={bucket_of(1): 100})
    durations = bench.run(worker_commands.read_durations(["t"]))["t"]
    assert durations.p50_s == pytest.approx(1, rel=0.1)
    assert durations.count <= 1000


def test_types_are_bounded(bench: Bench) -> None:
    """The ones that have not been heard of for the longest time go."""
    bench.checks = False
    beat(bench, "w1", 1, first={3: 1})
    bench.advance(1)
    beat(bench, "w1", 2, **{f"t{number}": {3: 1} for number in range(1000)})
    assert bench.run(worker_commands.read_durations(["first"])) == {}
    assert bench.raw.zcard(bench.key("durs")) == 1000
    assert not bench.raw.exists(bench.key("dur:first"))
