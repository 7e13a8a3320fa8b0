"""The model's gates: when a job may begin, what it waits for, and when it is looked at again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from tidings.protocol import JobState
from tidings_tasks.store import Breaker, BreakerState, QueueLimits, QueueState, Rate

from .model_job import ModelJob, World

__all__ = ["Circuit", "Gates"]

RETURN_BATCH, LOOK_EVERY_MS, OPEN_FACTOR_MAX = 50, 1_000, 10
NO_LIMITS = QueueLimits()
REASONS = {"c": "concurrency", "o": "rate_limit", "g": "rate_limit", "d": "circuit_open"}


@dataclass
class Circuit:
    """What is known of a dependency. ``openings`` counts how often in a row it opened."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    since_ms: int = 0
    until_ms: int = 0
    openings: int = 0
    trial: str = ""


@dataclass
class Gates:
    """Settings and state of all gates. ``timers`` say when those before a gate are looked at."""

    world: World
    limits: dict[str, QueueLimits] = field(default_factory=dict)
    states: dict[str, QueueState] = field(default_factory=dict)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    full_at_ms: dict[str, Fraction] = field(default_factory=dict)
    """Of each bucket."""
    circuits: dict[str, Circuit] = field(default_factory=dict)

    # Settings

    def configure(self, queues: Mapping[str, QueueLimits], dependencies: Mapping[str, Breaker]) -> None:
        """Set limits; what waits for other limits than these is looked at again."""
        self.breakers.update(dependencies)
        for queue, limits in queues.items():
            if limits == self.limits.get(queue, NO_LIMITS):
                continue
            self.limits[queue] = limits
            for gate in self.timers:
                if gate[0] in "qog" and gate.split(":")[1] == queue:
                    self.timers[gate] = self.world.now_ms

    # Passing

    def room(self, queue: str, wanted: int) -> int:
        """Say how many jobs of a queue may begin, of so many."""
        if self.states.get(queue) is QueueState.PAUSED:
            return 0
        limits = self.limits.get(queue, NO_LIMITS)
        free = wanted + 1
        if limits.max_running is not None:
            free = min(free, limits.max_running - len(self.world.running(queue=queue)))
        if limits.rate is not None and free > 0:
            free = min(free, self._tokens(f"q:{queue}", limits.rate))
            self._wait_for_token(f"q:{queue}", limits.rate)
        return max(0, min(free, wanted))

    def closed_gate(self, job: ModelJob) -> str:
        """Let a job pass all of its gates, or name the first one that is closed."""
        now_ms, gate = self.world.now_ms, job.key_gate
        if gate and len(self.world.running(key_gate=gate)) >= job.submission.concurrency_limit:
            return gate
        circuit = self.circuits.get(job.submission.dependency, Circuit())
        gate = f"d:{job.submission.dependency}"
        if circuit.state is BreakerState.HALF_OPEN:
            return gate
        if circuit.state is BreakerState.OPEN and now_ms < circuit.until_ms:
            self.timers[gate] = circuit.until_ms
            return gate
        buckets = self._buckets(job)
        for gate, rate in buckets.items():
            if self._tokens(gate, rate) < 1:
                self._wait_for_token(gate, rate)
                return gate
        for gate, rate in buckets.items():
            self._take(gate, rate)
        if circuit.state is BreakerState.OPEN:
            circuit.state, circuit.trial = BreakerState.HALF_OPEN, job.id
        return ""

    def count_claims(self, queue: str, count: int) -> None:
        """Take a queue's tokens."""
        rate = self.limits.get(queue, NO_LIMITS).rate
        if rate is not None:
            for _ in range(count):
                self._take(f"q:{queue}", rate)
            self._wait_for_token(f"q:{queue}", rate)

    # Leaving

    def stop_running(self, job: ModelJob, said: bool | None) -> None:
        """Free its key, and hear whether its dependency works: True, False, or nothing was said."""
        if job.key_gate:
            self.free_key(job.key_gate)
        if job.submission.dependency:
            self._note(job, said)

    def free_key(self, gate: str) -> None:
        """Let the first one at a key try; others look too, a while later, since that one may wait for something else."""
        if self.world.parked(gate) and self._let_return(gate, 1):
            self.timers[gate] = self.world.now_ms + LOOK_EVERY_MS

    def _note(self, job: ModelJob, said: bool | None) -> None:
        name, now_ms = job.submission.dependency, self.world.now_ms
        circuit = self.circuits.setdefault(name, Circuit())
        numbers = self.breakers.get(name, Breaker())
        if circuit.state is BreakerState.HALF_OPEN and circuit.trial == job.id:
            if said is False:
                self._trip(name, circuit)
            else:
                if said:
                    self.circuits[name] = Circuit()
                else:
                    circuit.state, circuit.until_ms, circuit.trial = BreakerState.OPEN, now_ms, ""
                self.timers[f"d:{name}"] = now_ms
        elif circuit.state is BreakerState.CLOSED and said:
            circuit.failures = 0
        elif circuit.state is BreakerState.CLOSED and said is False:
            if not circuit.failures or now_ms - circuit.since_ms >= numbers.within_s * 1000:
                circuit.failures, circuit.since_ms = 0, now_ms
            circuit.failures += 1
            if circuit.failures >= numbers.failures:
                self._trip(name, circuit)

    def _trip(self, name: str, circuit: Circuit) -> None:
        open_ms = round(self.breakers.get(name, Breaker()).open_s * 1000)
        circuit.until_ms = self.world.now_ms + open_ms * min(2**circuit.openings, OPEN_FACTOR_MAX)
        circuit.state, circuit.failures, circuit.trial = BreakerState.OPEN, 0, ""
        circuit.openings += 1
        self.timers[f"d:{name}"] = circuit.until_ms

    # Opening

    def open_what_is_due(self) -> None:
        """Look at what waits for this time."""
        due = sorted((ms, gate) for gate, ms in self.timers.items() if ms <= self.world.now_ms)
        for _, gate in due:
            del self.timers[gate]
        for _, gate in due:
            again_ms = self._open(gate)
            if again_ms is not None:
                self.timers[gate] = again_ms

    def _open(self, gate: str) -> int | None:
        kind, name, now_ms = gate[0], gate.split(":")[1], self.world.now_ms
        if kind == "q":
            return None
        if kind == "c":
            at_once = [job.submission.concurrency_limit for job in self.world.parked(gate)[:1]]
            is_full = at_once and len(self.world.running(key_gate=gate)) >= at_once[0]
            return now_ms + LOOK_EVERY_MS if not is_full and self._let_return(gate, 1) else None
        if kind == "d":
            circuit = self.circuits.get(name, Circuit())
            if circuit.state is BreakerState.CLOSED:
                return now_ms + 1 if self._let_return(gate, RETURN_BATCH) else None
            if circuit.state is BreakerState.OPEN and self._let_return(gate, 1):
                return max(circuit.until_ms, now_ms + LOOK_EVERY_MS)
            return None
        limits = self.limits.get(name, NO_LIMITS)
        rate = limits.rate_per_owner if kind == "o" else limits.rate_per_org
        if rate is None:
            return now_ms + 1 if self._let_return(gate, RETURN_BATCH) else None
        tokens = self._tokens(gate, rate)
        if tokens < 1:
            return self._next_token_ms(gate, rate)
        return now_ms + math.ceil(_each_ms(rate)) if self._let_return(gate, tokens) else None

    def _let_return(self, gate: str, most: int) -> bool:
        """Let the first ones stand in line again, at their old places. Returns whether others stay."""
        standing = self.world.parked(gate)
        for job in standing[:most]:
            job.gate = ""
        return len(standing) > most

    # Buckets: virtual scheduling. A bucket is never more than full nor less than empty, whatever its rate was before.

    def _buckets(self, job: ModelJob) -> dict[str, Rate]:
        limits = self.limits.get(job.queue, NO_LIMITS)
        found: dict[str, Rate] = {}
        if limits.rate_per_owner is not None:
            found[f"o:{job.queue}:{job.scope}"] = limits.rate_per_owner
        if limits.rate_per_org is not None and job.org:
            found[f"g:{job.queue}:{job.org}"] = limits.rate_per_org
        return found

    def _full_at_ms(self, gate: str, rate: Rate) -> Fraction:
        now_ms = self.world.now_ms
        kept_ms = max(Fraction(now_ms), self.full_at_ms.get(gate, Fraction(0)))
        full_ms = min(kept_ms, now_ms + (rate.burst or rate.count) * _each_ms(rate))
        if full_ms < kept_ms:
            self.full_at_ms[gate] = full_ms
        return full_ms

    def _tokens(self, gate: str, rate: Rate) -> int:
        missing_ms = self._full_at_ms(gate, rate) - self.world.now_ms
        return math.floor((rate.burst or rate.count) - missing_ms / _each_ms(rate))

    def _take(self, gate: str, rate: Rate) -> None:
        self.full_at_ms[gate] = self._full_at_ms(gate, rate) + _each_ms(rate)

    def _next_token_ms(self, gate: str, rate: Rate) -> int:
        return math.ceil(self._full_at_ms(gate, rate) - ((rate.burst or rate.count) - 1) * _each_ms(rate))

    def _wait_for_token(self, gate: str, rate: Rate) -> None:
        if self._tokens(gate, rate) < 1:
            self.timers[gate] = self._next_token_ms(gate, rate)

    # Looking

    def reason_to_wait(self, job: ModelJob) -> str | None:
        """Say what keeps a queued job back besides its turn."""
        limits = self.limits.get(job.queue, NO_LIMITS)
        if self.states.get(job.queue) is QueueState.PAUSED:
            return "paused"
        if job.gate:
            return REASONS[job.gate[0]]
        if limits != NO_LIMITS and f"q:{job.queue}" in self.timers:
            return "rate_limit"
        if limits.max_running is not None and len(self.world.running(queue=job.queue)) >= limits.max_running:
            return "concurrency"
        return None

    def place_in_queue(self, job: ModelJob) -> int | None:
        """Say how many steps it is from being next, 1 for the next one; None for one that stands in no line."""
        if job.state is not JobState.QUEUED or job.gate:
            return None
        return self.world.line(job.queue).index(job) + 1


def _each_ms(rate: Rate) -> Fraction:
    return Fraction(round(rate.per_s * 1000), rate.count)
