"""A keyspace as one comparable value: every key with its type, content and whether it expires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Snapshot", "describe_difference", "take_snapshot"]

Content = bytes | dict[bytes, bytes] | list[bytes] | dict[bytes, float]
Snapshot = Mapping[str, "Kept"]

_DUMP = """
local found, cursor = {}, '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local kind = redis.call('TYPE', key).ok
    local content
    if kind == 'string' then
      content = redis.call('GET', key)
      if string.find(key, ARGV[2], 1, true) == 1 then
        kind, content = 'record', cmsgpack.unpack(content)
        local flat = {}
        for field, value in pairs(content) do
          flat[#flat + 1] = field
          flat[#flat + 1] = value
        end
        content = flat
      end
    elseif kind == 'hash' then content = redis.call('HGETALL', key)
    elseif kind == 'list' then content = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    end
    found[#found + 1] = { key, kind, content, redis.call('PTTL', key) }
  end
until cursor == '0'
return found
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """What one key holds. The time left is not compared: it runs by itself."""

    kind: str
    content: Any
    expires: bool


def take_snapshot(raw: Any, prefix: str) -> Snapshot:
    """Read all keys that begin with ``prefix``, without it, in one atomic step; ``raw`` is a Redis client."""
    pattern = "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix) + "*"
    found: dict[str, Kept] = {}
    for key, kind, content, ttl in raw.eval(_DUMP, 0, pattern, prefix + ":j:"):
        name, type_name = key.decode().removeprefix(prefix), kind.decode()
        if type_name in ("hash", "record"):
            content = dict(zip(content[::2], content[1::2], strict=True))
        elif type_name == "zset":
            content = {m: float(s) for m, s in zip(content[::2], content[1::2], strict=True)}
        # A key that SCAN meets twice is the same key twice: nothing can change inside one script.
        found[name] = Kept(type_name, content, ttl >= 0)
    return found


def describe_difference(before: Snapshot, after: Snapshot) -> str:
    """Say which keys differ and how, for a message."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            lines.append(f"{key}: {old} -> {new}")
    return "\n".join(lines)
