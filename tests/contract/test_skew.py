"""What a newer release has written is kept and passed over: members of a spec, fields of a record, kinds of events."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest

from tidings.protocol import JobState
from tidings_tasks.store import Spec, Submission, Verb, WriteCode, commands

from .bench import Bench, spec_of

_ADD_FIELD = """
local record = cmsgpack.unpack(redis.call('GET', KEYS[1]))
record.zz = 'newer'
redis.call('SET', KEYS[1], cmsgpack.pack(record))
"""
_READ_FIELD = "return cmsgpack.unpack(redis.call('GET', KEYS[1])).zz"


@dataclasses.dataclass(frozen=True, slots=True)
class NewerSpec(Spec):
    """A spec with a member that this release does not know."""

    def to_json(self) -> bytes:
        """Encode it, with one member more."""
        return orjson.dumps(orjson.loads(Spec.to_json(self)) | {"region": {"name": "eu"}, "flags": [1]})


def add_field(bench: Bench, job_id: str) -> None:
    """Write a field into a record, as a newer script would."""
    bench.raw.eval(_ADD_FIELD, 1, bench.key(f"j:{job_id}"))


def field_of(bench: Bench, job_id: str) -> bytes | None:
    """Read that field."""
    found: bytes | None = bench.raw.eval(_READ_FIELD, 1, bench.key(f"j:{job_id}"))
    return found


def newer_submission(bench: Bench) -> Submission:
    """Make a submission as a newer server does."""
    fields = {f.name: getattr(spec_of(), f.name) for f in dataclasses.fields(Spec) if f.init}
    return dataclasses.replace(bench.submission(), spec=NewerSpec(**fields))


def test_a_spec_of_a_newer_server_is_read_and_kept(bench: Bench) -> None:
    """Its unknown members are passed over, and stay in the store for those who know them."""
    submission = newer_submission(bench)
    bench.enqueue(submission)
    claim = bench.claim()
    assert claim.spec == spec_of()
    assert bench.complete(claim) is WriteCode.DONE
    assert bench.record(submission.id).spec == spec_of()
    kept = orjson.loads(bench.raw.get(bench.key(f"m:{submission.id}")))
    assert (kept["region"], kept["flags"]) == ({"name": "eu"}, [1])


@pytest.mark.parametrize("ends", ["completed", "failed", "cancelled", "lost"])
def test_a_field_of_a_newer_script_outlives_whatever_ours_do(bench: Bench, ends: str) -> None:
    """Through its claim, its writes, a hand-back, a retry, a cancellation and its end."""
    job_id = bench.add()
    add_field(bench, job_id)
    bench.run(commands.change(job_id, priority=2))
    claim = bench.claim()
    bench.progress(claim, 10)
    bench.write(claim, Verb.RELEASE)
    claim = bench.claim()
    bench.write(claim, Verb.RETRY, {"code": "x", "type": "X", "message": "x"})
    bench.step()
    claim = bench.claim()
    if ends == "completed":
        bench.complete(claim, 1)
    elif ends == "failed":
        bench.write(claim, Verb.FAIL, {"code": "x", "type": "X", "message": "x"})
    elif ends == "cancelled":
        bench.cancel(job_id)
        bench.write(claim, Verb.CANCEL)
    else:
        bench.lose_worker()
    assert field_of(bench, job_id) == b"newer"
    assert bench.state(job_id) is (JobState.QUEUED if ends == "lost" else JobState(ends))


def test_an_event_of_a_kind_that_we_do_not_know_stands_in_the_log(bench: Bench) -> None:
    """What follows is numbered behind it, a page holds it as it was written, progress folds around it and not over it."""
    claim = bench.start()
    bench.progress(claim, 1)
    text = _newer_event(bench, claim.id)
    bench.progress(claim, 2)
    bench.progress(claim, 3)
    bench.complete(claim)
    assert bench.kinds(claim.id) == ["queued", "started", "progress", "asking_again", "progress", "completed"]
    assert text in bench.read(claim.id).events
    last = bench.events(claim.id)[-2]
    assert (last["seq"], last["prev"]) == (6, 4)


def _newer_event(bench: Bench, job_id: str) -> bytes:
    record: Any = bench.record(job_id)
    text = orjson.dumps(
        {
            "job_id": job_id, "epoch": record.epoch, "seq": record.head + 1, "kind": "asking_again",
            "at": "2100-01-01T00:00:00.000Z", "attempt": 1, "data": {"prompt": {"text": "?"}},
        }
    )  # fmt: skip
    bench.checks = False
    bench.raw.eval(
        """
        local record = cmsgpack.unpack(redis.call('GET', KEYS[1]))
        record.n, record.b, record.lb = record.n + 1, record.b + #ARGV[1], nil
        redis.call('SET', KEYS[1], cmsgpack.pack(record))
        redis.call('RPUSH', KEYS[2], ARGV[1])
        """,
        2, bench.key(f"j:{job_id}"), bench.key(f"e:{job_id}"), text,
    )  # fmt: skip
    return text
