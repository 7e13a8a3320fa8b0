"""What is kept of jobs: the owner's list and counts, retention, deletion without a trace, and tenants that never meet."""

from __future__ import annotations

import pytest

from tidings.protocol import JobState, new_job_id, shard_of
from tidings_tasks.store import Keyspace, Tenant, Verb, commands

from .bench import ALICE, Bench

DAY_MS = 86_400_000
ODD_NAMES = [
    "a/b", "a%2Fb", "%2F", "/", "//", "a", "A", "a:b", ":", "*", "[a]", "?", "\\", "o:a", "all", "{s1}", "}{", "a b",
    " a", "a ", "☃", "é", "e\u0301", "\U0001f600", "a\nb", "\t", "0", "-", ".", "~", "+", "%", "a" * 3_000, "a" * 3_001,
]  # fmt: skip


def names_of(bench: Bench, tenant: Tenant) -> list[str]:
    """List the ids of an owner's jobs."""
    return [job.id for job in bench.run(commands.list_jobs(0, tenant))]


def test_an_owners_jobs_are_listed_newest_first(bench: Bench) -> None:
    """Open and ended ones together, whatever state each is in."""
    ids = []
    for n in range(12):
        if n % 3 == 0:
            claim = bench.start(queue="other")
            bench.complete(claim)
            ids.append(claim.id)
        else:
            ids.append(bench.add(due="+1000" if n % 3 == 1 else ""))
    bench.add(Tenant("bob", "acme"))
    found = bench.run(commands.list_jobs(0, ALICE))
    assert [job.id for job in found] == ids[::-1]
    for limit in range(13):
        assert bench.run(commands.list_jobs(0, ALICE, limit=limit)) == found[:limit]
    assert found == [bench.record(job_id) for job_id in ids[::-1]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 12, 100])
def test_pages_join_to_the_whole_list(bench: Bench, size: int) -> None:
    """Also while jobs end, come and are deleted between two pages."""
    ids = [bench.add() for _ in range(12)]
    found: list[str] = []
    while page := bench.run(commands.list_jobs(0, ALICE, after_id=found[-1] if found else "", limit=size)):
        assert len(page) <= size
        found += [job.id for job in page]
        claims = bench.step(wants=[("default", 1)]).claims
        for claim in claims:
            bench.complete(claim)
            if claim.id not in found[-1:] and claim.id in ids[:2]:
                bench.run(commands.delete(claim.id))
                ids.remove(claim.id)
        bench.add(queue="other")
    assert [job_id for job_id in found if job_id in ids] == ids[::-1]
    assert len(found) == len(set(found))


def test_counts_follow_every_state(bench: Bench) -> None:
    """Every state has its number, and states without a job have 0."""
    bench.add(due="+1000")
    done, failed, cancelled, retrying, running = (bench.start() for _ in range(5))
    bench.complete(done)
    bench.write(failed, Verb.FAIL, {"code": "x"})
    bench.write(cancelled, Verb.CANCEL)
    bench.write(retrying, Verb.RETRY, {"code": "x"}, {"delay_ms": 1000})
    bench.add()
    assert running.attempt == 1
    counts = bench.run(commands.count_jobs(0, ALICE))
    assert counts == {state: int(state is not JobState.WAITING_INPUT) for state in JobState}
    assert bench.run(commands.count_jobs(0, Tenant("nobody"))) == dict.fromkeys(JobState, 0)


def test_deleting_leaves_nothing_of_the_job(bench: Bench) -> None:
    """Neither its id nor anything that it said, but in the feeds' logs, its idempotency key, and for minutes a mark."""
    bench.add(queue="other")
    before = set(bench.snapshot())
    claim = bench.start(idempotency_key="k", fingerprint="f", queue="gone")
    bench.progress(claim, 5)
    bench.write(claim, Verb.RETRY, {"code": "x"}, {"delay_ms": 0})
    again = bench.claim("gone")
    bench.cancel(claim.id)
    bench.write(again, Verb.CANCEL)
    assert bench.run(commands.delete(claim.id)) == "deleted"
    bench.raw.delete(bench.keyspace.mailbox(0, "w1"), bench.key("k:w1"), bench.keyspace.wake_list(0, "gone"))
    after = bench.snapshot()
    left = {key for key, kept in after.items() if claim.id in key or claim.id in str(kept.content)}
    assert left == {":i:acme/alice:k", ":fl:all", ":fl:g:acme", ":fl:o:acme/alice", f":t:{claim.id}"}
    assert set(after) - before == {":i:acme/alice:k", f":t:{claim.id}"}
    assert bench.run(commands.read_job(claim.id)) is None
    assert bench.counts() == {JobState.QUEUED: 1}


def test_an_owner_without_jobs_leaves_only_what_expires(bench: Bench) -> None:
    """Nothing is kept for ever of owners who came once."""
    claim = bench.start(Tenant("once"))
    bench.complete(claim)
    bench.run(commands.delete(claim.id))
    assert 0 < int(bench.raw.pttl(bench.key(f"t:{claim.id}"))) <= 600_000
    left = {key for key in bench.snapshot() if "once" in key}
    assert left == {":f:o:/once", ":fl:o:/once"}
    assert all(bench.snapshot()[key].expires for key in left)


def test_a_late_repeat_does_not_bring_a_deleted_job_back(bench: Bench) -> None:
    """The client that never heard that its job was stored repeats the call after the job has come and gone."""
    submission = bench.submission(idempotency_key="k")
    bench.enqueue(submission)
    bench.complete(bench.claim())
    bench.run(commands.delete(submission.id))
    before = bench.snapshot()
    assert bench.enqueue(submission)[0].outcome == "created"
    assert bench.snapshot() == before


@pytest.mark.parametrize("due", ["", "+1000"])
def test_an_open_job_is_not_deleted(bench: Bench, due: str) -> None:
    """Only what has ended can go."""
    job_id = bench.add(due=due)
    assert bench.run(commands.delete(job_id)) == "open"
    assert bench.kinds(job_id)


def test_deleting_twice_says_that_it_is_gone(bench: Bench) -> None:
    """As for a job that never was."""
    claim = bench.start()
    bench.complete(claim)
    assert [bench.run(commands.delete(job_id)) for job_id in (claim.id, claim.id, bench.new_id())] == [
        "deleted",
        "gone",
        "gone",
    ]


@pytest.mark.parametrize(("verb", "days"), [(Verb.COMPLETE, 7), (Verb.FAIL, 30), (Verb.CANCEL, 30)])
def test_ended_jobs_are_removed_when_their_time_is_over(bench: Bench, verb: Verb, days: int) -> None:
    """A week after completion, a month after failure or cancellation; by any step, whoever makes it."""
    claim = bench.start()
    bench.write(claim, verb, {"code": "x"})
    bench.advance(days * DAY_MS - 1)
    bench.step()
    assert bench.record(claim.id).state.is_terminal
    bench.advance(1)
    bench.step(worker="somebody")
    assert bench.run(commands.read_job(claim.id)) is None
    assert names_of(bench, ALICE) == []
    assert not [key for key in bench.snapshot() if claim.id in key]


def test_more_ended_jobs_than_one_step_removes_are_removed_by_the_next(bench: Bench) -> None:
    """Upkeep is bounded and gets there."""
    bench.enqueue(*[bench.submission() for _ in range(120)])
    bench.checks = False
    claims = bench.step(wants=[("default", 120)]).claims
    bench.step([bench.make_write(claim, Verb.COMPLETE) for claim in claims])
    bench.advance(7 * DAY_MS)
    sizes = []
    while count := bench.counts().get(JobState.COMPLETED):
        sizes.append(count)
        bench.step()
    assert sizes == [120, 70, 20]


def test_tenants_with_odd_names_never_meet(bench: Bench) -> None:
    """Each sees its own job and nothing else, in lists, counts, feeds and idempotency keys."""
    tenants = [Tenant(name, org) for name in ODD_NAMES for org in (None, "acme", name)]
    tenants += [Tenant("b", "a"), Tenant("c", "a/b"), Tenant("b/c", "a"), Tenant("a/b/c")]
    assert len({tenant.scope for tenant in tenants}) == len(set(tenants)) == len(tenants)
    bench.checks = False
    submissions = {
        tenant: bench.submission(tenant, idempotency_key="k", fingerprint=str(n))
        for n, tenant in enumerate(tenants)
    }
    found = bench.enqueue(*submissions.values())
    assert {entry.outcome for entry in found} == {"created"}
    for tenant, submission in submissions.items():
        assert names_of(bench, tenant) == [submission.id]
        assert bench.counts(tenant) == {JobState.QUEUED: 1}
        feed = bench.feed(f"o:{tenant.scope}")
        assert [job.id for job in feed.jobs or ()] == [submission.id]
        assert bench.record(submission.id).tenant == tenant
        [again] = bench.enqueue(bench.submission(tenant, idempotency_key="k", fingerprint="other"))
        assert again.id == submission.id
        if tenant.org is not None:
            members = {s.id for t, s in submissions.items() if t.org == tenant.org}
            jobs = bench.feed(f"g:{tenant.org_scope}").jobs
            assert {job.id for job in jobs or ()} == members
    bench.checks = True
    bench.step()


@pytest.mark.parametrize("key", ODD_NAMES)
def test_odd_idempotency_keys_stay_apart(bench: Bench, key: str) -> None:
    """A key is compared whole, and cannot reach into another owner's."""
    bench.add(idempotency_key="a", fingerprint="1")
    [entry] = bench.enqueue(bench.submission(idempotency_key=key, fingerprint="2"))
    assert entry.outcome == ("conflict" if key == "a" else "created")


def test_every_key_begins_with_prefix_and_hash_tag(valkey_url: str, key_prefix: str) -> None:
    """Odd names cannot make a hash tag of their own, and each shard's jobs stay in its slot."""
    keyspace = Keyspace(key_prefix, shards=2)
    bench = Bench(valkey_url, keyspace)
    for tenant in [Tenant("{s1}", "}{"), Tenant("a", "{s9}"), *(Tenant(f"t{n}") for n in range(8))]:
        shard = keyspace.shard_of_tenant(tenant)
        submission = bench.submission(tenant, id=new_job_id(shard), idempotency_key="{s1}")
        bench.store.run(commands.enqueue(shard, [submission]))
        assert shard_of(submission.id) == shard
        [claim] = bench.store.run(
            commands.step(shard, worker="{s1}", call=1, lease_ms=6000, wants=[("default", 1)])
        ).claims
        bench.store.run(commands.cancel(claim.id, by=b'"x"'))
    keys = [key.decode() for key in bench.raw.scan_iter(f"{key_prefix}*", count=1_000)]
    for key in keys:
        tag = key[key.index("{") + 1 : key.index("}")]
        assert key.startswith(f"{key_prefix}:{{{tag}}}:")
        assert tag in ("s0", "s1")
    slots = {bench.raw.execute_command("CLUSTER", "KEYSLOT", key) for key in keys}
    assert len(slots) == 2
    bench.close()
