"""Runs the store's own scripts in this process: Lua 5.1 as Valkey has it, over ``MemoryValkey``."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from redis.exceptions import ResponseError

from ..store.scripts import Script
from .valkey import MemoryValkey

__all__ = ["LuaMissing", "ScriptRunner"]


class LuaMissing(ImportError):
    """The library that runs Lua is not installed."""


class ScriptRunner:
    """Loads each script once, as the function that it is in Valkey. Not thread-safe.

    Raises:
        LuaMissing: ``lupa`` is not installed.
    """

    def __init__(self, valkey: MemoryValkey) -> None:
        try:
            from lupa import lua51
        except ImportError as error:
            raise LuaMissing("running jobs in memory needs lupa: pip install 'tidings[testing]'") from error
        self._valkey = valkey
        # Bytes on both sides, as Valkey's strings are.
        self._lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False)
        self._null = self._lua.eval(b"newproxy()")
        self._functions: dict[str, Any] = {}
        self._globals = self._lua.globals()
        self._globals[b"redis"] = self._lua.table_from(
            {
                b"call": self._call,
                b"error_reply": self._error_reply,
                b"register_function": self._register,
                b"sha1hex": _sha1hex,
            }
        )
        self._globals[b"server"] = self._globals[b"redis"]
        self._globals[b"cjson"] = self._lua.table_from(
            {b"encode": self._encode_json, b"decode": self._decode_json, b"null": self._null}
        )
        # What a script packs only a script unpacks, so any text that keeps the values will do.
        self._globals[b"cmsgpack"] = self._lua.table_from({b"pack": self._pack, b"unpack": self._unpack})

    def run(self, script: Script, keys: list[str], args: list[bytes | str | int]) -> Any:
        """Run a script and return its reply as the client library would.

        Raises:
            ResponseError: the script refused, or failed.
        """
        function = self._functions.get(script.function)
        if function is None:
            # The first line is for Valkey: "#!lua name=…". The rest registers the function under its name.
            self._lua.execute(script.library.partition("\n")[2].encode())
            function = self._functions[script.function]
        return self._reply(function(*self._tables(keys, args)))

    def evaluate(self, text: str, keys: list[str], args: list[bytes | str | int]) -> Any:
        """Run a script that is no function; see ``run``."""
        self._globals[b"KEYS"], self._globals[b"ARGV"] = self._tables(keys, args)
        return self._reply(self._lua.execute(text.partition("\n")[2].encode()))

    def _tables(self, keys: list[str], args: list[bytes | str | int]) -> tuple[Any, Any]:
        table = self._lua.table_from
        return table([_text(key) for key in keys]), table([_text(arg) for arg in args])

    def _register(self, options: Any) -> None:
        self._functions[options[b"function_name"].decode()] = options[b"callback"]

    def _call(self, name: bytes, *args: bytes | float) -> Any:
        return self._to_lua(self._valkey.call(name.decode(), *[_text(arg) for arg in args]))

    def _to_lua(self, value: Any) -> Any:
        if value is None:
            return False
        if isinstance(value, list):
            return self._lua.table_from([self._to_lua(part) for part in value])
        return value

    def _reply(self, value: Any) -> Any:
        if value is None or value is False:
            return None
        if isinstance(value, bool | int | float):
            return int(value)
        if isinstance(value, bytes):
            return value
        if (refusal := value[b"err"]) is not None:
            raise ResponseError(refusal.decode())
        found = []
        at = 1
        while (part := value[at]) is not None:
            found.append(self._reply(part))
            at += 1
        return found

    def _error_reply(self, text: bytes) -> Any:
        return self._lua.table_from({b"err": text})

    def _encode_json(self, value: Any) -> bytes:
        return orjson.dumps(self._plain(value, "utf-8")).replace(b"/", b"\\/")

    def _decode_json(self, text: bytes) -> Any:
        return self._from_plain(orjson.loads(text), "utf-8")

    def _pack(self, value: Any) -> bytes:
        return orjson.dumps(self._plain(value, "latin-1"))

    def _unpack(self, text: bytes) -> Any:
        return self._from_plain(orjson.loads(text), "latin-1")

    def _plain(self, value: Any, encoding: str) -> Any:
        if isinstance(value, bytes):
            return value.decode(encoding)
        if isinstance(value, bool | int | float):
            return value
        if value is None or value == self._null:
            return None
        pairs: list[tuple[Any, Any]] = list(value.items())
        if pairs and all(isinstance(key, int) for key, _ in pairs):
            return [self._plain(part, encoding) for _, part in sorted(pairs)]
        return {
            key.decode(encoding) if isinstance(key, bytes) else str(key): self._plain(part, encoding)
            for key, part in pairs
        }

    def _from_plain(self, value: Any, encoding: str) -> Any:
        if isinstance(value, str):
            return value.encode(encoding)
        if value is None:
            return self._null
        if isinstance(value, list):
            return self._lua.table_from([self._from_plain(part, encoding) for part in value])
        if isinstance(value, dict):
            return self._lua.table_from(
                {key.encode(encoding): self._from_plain(part, encoding) for key, part in value.items()}
            )
        return value


def _text(value: bytes | str | float) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if value != int(value):
        return b"%.17g" % value
    return b"%d" % value


def _sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
