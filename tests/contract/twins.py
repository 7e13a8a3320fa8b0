"""A bench on two stores at once: each command runs on a real Valkey and in memory, and all there is must be equal after."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson

from tidings_tasks.store import Command, DeadGroup, Keyspace
from tidings_tasks.store.store import FORMAT
from tidings_tasks.testing.store import MemoryStore
from tidings_tasks.testing.valkey import Clock

from .bench import LEASE_MS, READING, Bench
from .snapshot import Kept, Snapshot, describe_difference

__all__ = ["TwinBench"]

T = TypeVar("T")

PACKED = ":br"
"""The breakers: MessagePack in Valkey, and in memory whatever the double makes of it. Commands read them, and are compared."""


class _Raw:
    """The client of the real store, through which keys go in both."""

    def __init__(self, client: Any, memory: MemoryStore) -> None:
        self._client, self._memory = client, memory

    def delete(self, *keys: str) -> int:
        """Remove keys, as who takes a wake token does."""
        self._memory.valkey.call("DEL", *[key.encode() for key in keys])
        found: int = self._client.delete(*keys)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class TwinBench(Bench):
    """What else a test changes in the real store through ``raw``, it must change in the one in memory too."""

    def __init__(self, url: str, keyspace: Keyspace) -> None:
        self.clock = Clock(1_750_000_000_000)
        self.memory = MemoryStore(self.clock, keyspace)
        super().__init__(url, keyspace)
        self.raw = _Raw(self.raw, self.memory)
        self.adopt_generation()

    def run(self, command: Command[T]) -> T:
        """Run a command on both, as often on one as on the other."""
        reply = super().run(command)
        mine = self.memory.run(command)
        assert _in_order(mine) == _in_order(reply), f"{command.script}: {mine} in memory, {reply} in Valkey"
        if self.checks:
            if command.script not in READING:
                self.memory.run(command)
            self.compare()
        return reply

    def compare(self) -> None:
        """Assert that both keep the same."""
        there, here = _decoded(self.snapshot()), _decoded(self.memory_snapshot())
        assert here == there, f"Valkey -> memory:\n{describe_difference(there, here)}"

    def call(self, name: str, key: str, *args: str | int) -> Any:
        """Run one of Valkey's own commands in memory."""
        return self.memory.valkey.call(name, self.key(key).encode(), *[str(arg).encode() for arg in args])

    def set_clock(self, ms: int) -> None:
        """Move both clocks forward, to store ms."""
        super().set_clock(ms)
        self.call("SET", "clock", ms)

    def begin_anew(self) -> None:
        """Begin on an empty store."""
        self.memory.valkey.clear()
        self.call("HSET", "meta", "format", FORMAT, "shards", self.keyspace.shards)
        super().begin_anew()

    def begin_generation(self) -> str:
        """Find another history, which has the same name in both."""
        self.call("HSET", "meta", "run", "f" * 40)
        fresh = super().begin_generation()
        args = [1, self.prefix, FORMAT, self.keyspace.shards, LEASE_MS, fresh]
        assert self.memory.attach(args) == [b"ok", fresh.encode()]
        self.adopt_generation()
        return fresh

    def adopt_generation(self) -> None:
        """Have the names that are made at random be the same in both."""
        meta = self.raw.hgetall(self.key("meta"))
        self.call("HSET", "meta", *[part.decode() for pair in meta.items() for part in pair])

    def memory_snapshot(self) -> Snapshot:
        """Return everything that is kept in memory, in the form of the other."""
        valkey = self.memory.valkey
        found: dict[str, Kept] = {}
        for key, value in valkey.items():
            name = key.decode().removeprefix(self.prefix)
            if name == ":next":
                continue  # a bound, as Bench.snapshot says
            found[name] = Kept(*_content(name, value), expires=valkey.expires(key))
        return found


def _in_order(reply: Any) -> Any:
    # Groups of the same moment come in the order of a hash, which Valkey does not promise.
    is_groups = isinstance(reply, list) and bool(reply) and isinstance(reply[0], DeadGroup)
    return sorted(reply, key=lambda group: group.fingerprint) if is_groups else reply


def _decoded(snapshot: Snapshot) -> Snapshot:
    """Read texts of JSON, whose members have no order, and leave out what only scripts can read."""
    return {
        key: Kept(kept.kind, _read(_unpacked(key, kept.content)), kept.expires)
        for key, kept in snapshot.items()
        if key != PACKED
    }


def _unpacked(key: str, content: Any) -> Any:
    if not key.startswith(":fw:"):
        return content
    return {field: value for field, value in content.items() if not field.removeprefix(b"m").isdigit()}


def _read(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _read(value) for key, value in content.items()}
    if not isinstance(content, bytes) or not content.startswith(b"{"):
        return content
    return orjson.loads(content)


def _content(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, bytes):
        if not name.startswith(":j:"):
            return "string", value
        fields = orjson.loads(value)
        return "record", {
            field.encode("latin-1"): part.encode("latin-1") if isinstance(part, str) else int(part)
            for field, part in fields.items()
        }
    if isinstance(value, list):
        return "list", value
    is_hash = all(isinstance(part, bytes) for part in value.values())
    return ("hash" if is_hash else "zset"), dict(value)
