"""The commands of Valkey that the store's scripts use, on plain dictionaries, with a clock that the caller moves."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Clock", "MemoryValkey"]


class Clock:
    """What time it is, in ms since the Unix epoch. It stands still unless it is moved."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def advance(self, ms: int) -> None:
        """Move on, and never back."""
        self.now_ms += max(0, ms)


class MemoryValkey:
    """Keys and values. Names, values and replies are bytes, integers and lists, as a script sees them. Not thread-safe.

    Args:
        on_new: called with each key that begins to hold a string.
    """

    def __init__(self, clock: Clock, on_new: Callable[[bytes], None] = lambda key: None) -> None:
        self._clock = clock
        self._on_new = on_new
        self._run_id = secrets.token_hex(20)
        self._values: dict[bytes, Any] = {}
        self._expiry_ms: dict[bytes, int] = {}
        self._commands: dict[str, Callable[..., Any]] = {
            name[4:].upper(): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    @property
    def commands(self) -> frozenset[str]:
        """The names of all commands there are."""
        return frozenset(self._commands)

    def items(self) -> list[tuple[bytes, Any]]:
        """Everything that is kept: strings as bytes, lists, hashes and sorted sets as dictionaries."""
        return [(key, self._values[key]) for key in list(self._values) if self._do_exists(key)]

    def expires(self, key: bytes) -> bool:
        """Whether a key has a time at which it goes."""
        return key in self._expiry_ms

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._expiry_ms.clear()

    def call(self, name: str, *args: bytes) -> Any:
        """Run a command.

        Raises:
            NotImplementedError: there is no such command here; scripts have begun to use it.
        """
        command = self._commands.get(name.upper())
        if command is None:
            raise NotImplementedError(f"the in-memory store lacks the command {name}; add it to {__name__}")
        return command(*args)

    def _get(self, key: bytes, kind: Callable[[], Any]) -> Any:
        """Return the value of a key, or an empty one of this kind that is not kept."""
        expiry_ms = self._expiry_ms.get(key)
        if expiry_ms is not None and expiry_ms <= self._clock.now_ms:
            self._do_del(key)
        found = self._values.get(key)
        return kind() if found is None else found

    def _keep(self, key: bytes, value: Any) -> None:
        if value:
            self._values[key] = value
        else:
            self._do_del(key)

    # Keys

    def _do_del(self, *keys: bytes) -> int:
        for key in keys:
            self._expiry_ms.pop(key, None)
        return sum(self._values.pop(key, None) is not None for key in keys)

    _do_unlink = _do_del

    def _do_exists(self, *keys: bytes) -> int:
        return sum(self._get(key, lambda: None) is not None for key in keys)

    def _do_pexpire(self, key: bytes, ms: bytes) -> int:
        if not self._do_exists(key):
            return 0
        self._expiry_ms[key] = self._clock.now_ms + int(ms)
        return 1

    # Strings

    def _do_get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._get(key, lambda: None)
        return found

    def _do_mget(self, *keys: bytes) -> list[bytes | None]:
        return [self._do_get(key) for key in keys]

    def _do_set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        if not self._do_del(key):
            self._on_new(key)
        self._values[key] = value
        if options:
            option, ms = options
            _require(option.upper() == b"PX", "SET", options)
            self._expiry_ms[key] = self._clock.now_ms + int(ms)
        return b"OK"

    def _do_mset(self, *pairs: bytes) -> bytes:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._do_set(key, value)
        return b"OK"

    def _do_incrby(self, key: bytes, by: bytes) -> int:
        made = int(self._do_get(key) or 0) + int(by)
        self._values[key] = b"%d" % made
        return made

    def _do_incr(self, key: bytes) -> int:
        return self._do_incrby(key, b"1")

    # Hashes

    def _do_hget(self, key: bytes, field: bytes) -> bytes | None:
        found: bytes | None = self._get(key, dict).get(field)
        return found

    def _do_hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        return [self._do_hget(key, field) for field in fields]

    def _do_hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in self._get(key, dict).items() for part in pair]

    def _do_hset(self, key: bytes, *pairs: bytes) -> int:
        value = self._get(key, dict)
        before = len(value)
        value.update(zip(pairs[::2], pairs[1::2], strict=True))
        self._keep(key, value)
        return len(value) - before

    def _do_hsetnx(self, key: bytes, field: bytes, value: bytes) -> int:
        return 0 if self._do_hexists(key, field) else self._do_hset(key, field, value)

    def _do_hexists(self, key: bytes, field: bytes) -> int:
        return int(field in self._get(key, dict))

    def _do_hlen(self, key: bytes) -> int:
        return len(self._get(key, dict))

    def _do_hkeys(self, key: bytes) -> list[bytes]:
        return list(self._get(key, dict))

    def _do_hdel(self, key: bytes, *fields: bytes) -> int:
        value = self._get(key, dict)
        gone = sum(value.pop(field, None) is not None for field in fields)
        self._keep(key, value)
        return gone

    def _do_hstrlen(self, key: bytes, field: bytes) -> int:
        return len(self._do_hget(key, field) or b"")

    def _do_hincrby(self, key: bytes, field: bytes, by: bytes) -> int:
        made = int(self._do_hget(key, field) or 0) + int(by)
        self._do_hset(key, field, b"%d" % made)
        return made

    # Lists

    def _do_llen(self, key: bytes) -> int:
        return len(self._get(key, list))

    def _do_rpush(self, key: bytes, *values: bytes) -> int:
        self._keep(key, self._get(key, list) + list(values))
        return self._do_llen(key)

    def _do_lpush(self, key: bytes, *values: bytes) -> int:
        self._keep(key, [*reversed(values), *self._get(key, list)])
        return self._do_llen(key)

    def _do_lpop(self, key: bytes) -> bytes | None:
        value = self._get(key, list)
        first: bytes | None = value[0] if value else None
        self._keep(key, value[1:])
        return first

    def _do_lset(self, key: bytes, at: bytes, value: bytes) -> bytes:
        self._get(key, list)[int(at)] = value
        return b"OK"

    def _do_lindex(self, key: bytes, at: bytes) -> bytes | None:
        entries: list[bytes] = self._get(key, list)
        place = int(at)
        return entries[place] if -len(entries) <= place < len(entries) else None

    def _do_lrange(self, key: bytes, first: bytes, last: bytes) -> list[bytes]:
        return _slice(self._get(key, list), first, last)

    def _do_ltrim(self, key: bytes, first: bytes, last: bytes) -> bytes:
        self._keep(key, self._do_lrange(key, first, last))
        return b"OK"

    # Sorted sets: a dictionary of scores, put into order when it is asked for

    def _sorted(self, key: bytes) -> list[tuple[float, bytes]]:
        return sorted((score, member) for member, score in self._get(key, dict).items())

    def _do_zcard(self, key: bytes) -> int:
        return len(self._get(key, dict))

    def _do_zadd(self, key: bytes, *args: bytes) -> int:
        value = self._get(key, dict)
        before = len(value)
        options = {arg.upper() for arg in args[:2] if arg.upper() in (b"XX", b"NX", b"GT", b"LT")}
        _require(options <= {b"XX", b"NX"}, "ZADD", options)
        pairs = args[len(options) :]
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            if (b"XX" in options and member not in value) or (b"NX" in options and member in value):
                continue
            value[member] = float(score)
        self._keep(key, value)
        return len(value) - before

    def _do_zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = self._get(key, dict).get(member)
        return None if score is None else _number(score)

    def _do_zrank(self, key: bytes, member: bytes) -> int | None:
        members = [found for _, found in self._sorted(key)]
        return members.index(member) if member in members else None

    def _do_zrem(self, key: bytes, *members: bytes) -> int:
        return self._do_hdel(key, *members)

    def _do_zcount(self, key: bytes, low: bytes, high: bytes) -> int:
        return len(self._between(key, low, high))

    def _between(self, key: bytes, low: bytes, high: bytes) -> list[tuple[float, bytes]]:
        (least, above), (most, below) = _bound(low), _bound(high)
        return [
            (score, member)
            for score, member in self._sorted(key)
            if (score > least if above else score >= least) and (score < most if below else score <= most)
        ]

    def _do_zrangebyscore(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> list[bytes]:
        return _reply(_limit(self._between(key, low, high), options), options)

    def _do_zremrangebyscore(self, key: bytes, low: bytes, high: bytes) -> int:
        return self._do_zrem(key, *(member for _, member in self._between(key, low, high)))

    def _do_zremrangebyrank(self, key: bytes, first: bytes, last: bytes) -> int:
        return self._do_zrem(key, *(member for _, member in _slice(self._sorted(key), first, last)))

    def _do_zrevrange(self, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
        return _reply(_slice(self._sorted(key)[::-1], first, last), options)

    def _do_zrange(self, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
        names = {option.upper() for option in options}
        is_reversed = b"REV" in names
        if b"BYLEX" not in names and b"BYSCORE" not in names:
            entries = self._sorted(key)
            return _reply(_slice(entries[::-1] if is_reversed else entries, first, last), options)
        low, high = (last, first) if is_reversed else (first, last)
        if b"BYSCORE" in names:
            entries = self._between(key, low, high)
        else:
            entries = [entry for entry in self._sorted(key) if _is_between(entry[1], low, high)]
        return _reply(_limit(entries[::-1] if is_reversed else entries, options), options)

    # The rest

    def _do_time(self) -> list[bytes]:
        return [b"%d" % (self._clock.now_ms // 1000), b"%d" % (self._clock.now_ms % 1000 * 1000)]

    def _do_info(self, _section: bytes) -> bytes:
        return f"run_id:{self._run_id}\r\n".encode()

    def _do_pubsub(self, _what: bytes, *channels: bytes) -> list[bytes | int]:
        # Nobody listens: whoever runs jobs in memory reads the log when they have run.
        return [part for channel in channels for part in (channel, 0)]

    def _do_spublish(self, _channel: bytes, _text: bytes) -> int:
        return 0


def _require(is_met: bool, command: str, options: object) -> None:
    if not is_met:
        raise NotImplementedError(f"the in-memory store lacks {options} of {command}; add it to {__name__}")


def _number(value: float) -> bytes:
    return b"%d" % value if value == int(value) else repr(value).encode()


def _slice(values: Sequence[Any], first: bytes, last: bytes) -> list[Any]:
    length = len(values)
    start, end = int(first), int(last)
    start = max(0, start + length) if start < 0 else start
    end = end + length if end < 0 else end
    return list(values[start : end + 1]) if end >= start else []


def _bound(text: bytes) -> tuple[float, bool]:
    """Read a bound of scores: the number, and whether it is itself left out."""
    return (float(text[1:]), True) if text.startswith(b"(") else (float(text), False)


def _is_between(member: bytes, low: bytes, high: bytes) -> bool:
    is_above = low == b"-" or (member > low[1:] if low.startswith(b"(") else member >= low[1:])
    return is_above and (high == b"+" or (member < high[1:] if high.startswith(b"(") else member <= high[1:]))


def _limit(entries: list[Any], options: Sequence[bytes]) -> list[Any]:
    names = [option.upper() for option in options]
    if b"LIMIT" not in names:
        return entries
    at = names.index(b"LIMIT")
    offset, count = int(options[at + 1]), int(options[at + 2])
    return entries[offset:] if count < 0 else entries[offset : offset + count]


def _reply(entries: list[tuple[float, bytes]], options: Sequence[bytes]) -> list[bytes]:
    if b"WITHSCORES" in {option.upper() for option in options}:
        return [part for score, member in entries for part in (member, _number(score))]
    return [member for _, member in entries]
