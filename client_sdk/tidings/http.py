"""REST calls of one client: one session, time limits, bounded retries, and problem documents as typed errors."""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import orjson
from pydantic import BaseModel, ValidationError
from yarl import URL

from . import __version__
from .policy import Backoff
from .problems import read_problem
from .protocol.errors import (
    ConnectionLost,
    IdempotencyInFlight,
    InternalError,
    PayloadTooLarge,
    QueueFull,
    RateLimited,
    TidingsError,
    Unauthenticated,
)
from .tokens import TokenSource

__all__ = ["Answer", "Http", "Unreachable", "base_url", "read_answer"]

_Model = TypeVar("_Model", bound=BaseModel)

CONNECT_TIMEOUT_S = 10.0
MAX_PROBLEM_BYTES = 1 << 20
MAX_RETRY_AFTER_S = 15.0
"""A server that asks for more patience than this gets none: the caller sees the error and its `retry_after_s`."""
_GATEWAY = frozenset({502, 503, 504})


class Unreachable(ConnectionLost):
    """No connection to the server came about, so that the request was surely never received."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished exchange: 2xx or 304."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            InternalError: it is not JSON, as when something other than a Tidings server answered.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            kind = self.headers.get("Content-Type", "no type")
            raise InternalError(
                f"the answer is not JSON but {kind}: is this the URL of a Tidings server?"
            ) from error


class Http:
    """Talks to one server with one token source.

    It opens its session on first use, on the running loop, and must be closed with `close()`.

    Args:
        base: From `base_url`.
        tokens: What goes into the Authorization header; a refused one is renewed once a call.
        timeout_s: Bound of one attempt, from connecting to the last byte.
        retries: How often a call that failed for the moment is repeated, at most.
        backoff: Delays between attempts; a shorter `Retry-After` does not shorten them.
    """

    def __init__(
        self, base: URL, tokens: TokenSource, *, timeout_s: float, retries: int, backoff: Backoff
    ) -> None:
        self.base = base
        self.tokens = tokens
        self.timeout_s = timeout_s
        self._retries = retries
        self._backoff = backoff
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, opened on first use."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Without a limit of its own, since each watch on a lower transport holds a connection.
                connector=aiohttp.TCPConnector(limit=0),
                headers={"User-Agent": f"tidings-python/{__version__}"},
                json_serialize=lambda value: orjson.dumps(value).decode(),
            )
        return self._session

    async def close(self) -> None:
        """Close the session and its connections. Safe to repeat."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        form: Callable[[], aiohttp.FormData] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send a request and read the whole answer, repeating it within the bounds above.

        A request is repeated after a temporary error when ``repeatable`` (default: for GET); any other only
        when the server surely did not act on it: no connection came about, or it answered 429.

        ``path`` is percent-encoded already and relative to the base.

        Raises:
            TidingsError: the problem the server answered with, typed; `ConnectionLost` for everything in between.
        """
        may_repeat = method == "GET" if repeatable is None else repeatable
        timeout = aiohttp.ClientTimeout(total=timeout_s or self.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.exchange(
                    method, path, params=params, json=body, form=form, headers=headers, timeout=timeout
                ) as response:
                    return Answer(response.status, response.headers, await response.read())
            except TidingsError as error:
                if attempt > self._retries or not _worth_repeating(error, may_repeat):
                    raise
                wait_s = max(error.retry_after_s or 0.0, self._backoff.delay_s(attempt))
                if wait_s > MAX_RETRY_AFTER_S:
                    raise
                await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Callable[[], aiohttp.FormData] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and hold its answer open; a refused token is renewed once.

        A form is made anew for each attempt, since aiohttp uses one up. Errors of the connection become `ConnectionLost`, also those inside the ``async with`` block.
        """
        token = await self.tokens.current()
        try:
            try:
                response = await self._send(method, path, token, headers, form, options)
            except Unauthenticated:
                if not self.tokens.renewable:
                    raise
                token = await self.tokens.renewed(token)
                response = await self._send(method, path, token, headers, form, options)
            async with response:
                yield response
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            reason = os.strerror(number) if number and number > 0 else str(error.os_error)
            raise Unreachable(f"can't reach {self.base}: {reason}") from error
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable(
                f"can't reach {self.base}: no connection within {CONNECT_TIMEOUT_S:g} s"
            ) from error
        except TimeoutError as error:
            raise ConnectionLost(f"{self.base} did not answer in time ({method} {path})") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ConnectionLost(f"the connection to {self.base} broke ({method} {path}): {error}") from error

    async def _send(
        self,
        method: str,
        path: str,
        token: str,
        headers: Mapping[str, str] | None,
        form: Callable[[], aiohttp.FormData] | None,
        options: Mapping[str, Any],
    ) -> aiohttp.ClientResponse:
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        url = self.base.joinpath(path, encoded=True)
        response = await self.session.request(
            method, url, headers=sent, data=form() if form else None, **options
        )
        if response.status < 400:
            return response
        async with response:
            raise await _error_of(response)


def read_answer(model: type[_Model], answer: Answer) -> _Model:
    """Read a body as ``model``.

    Raises:
        InternalError: it is something else, as from a server that speaks another version.
    """
    try:
        return model.model_validate(answer.json())
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the body"
        raise InternalError(f"the server's answer is no {model.__name__}: {where}: {fault['msg']}") from error


def base_url(text: str) -> URL:
    """Read a server's URL; a path in it is kept as a prefix.

    Raises:
        ValueError: it is not an http(s) URL with a host.
    """
    try:
        url = URL(text.strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is not a URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{text!r} is not the URL of a server: give one like http://127.0.0.1:8000")
    return url.with_query(None).with_fragment(None).with_path(url.path.rstrip("/") or "/")


def _worth_repeating(error: TidingsError, repeatable: bool) -> bool:
    if isinstance(error, (Unreachable, RateLimited, QueueFull)):
        return True
    return repeatable and (error.temporary or isinstance(error, IdempotencyInFlight))


async def _error_of(response: aiohttp.ClientResponse) -> TidingsError:
    retry_after_s = _seconds(response.headers.get("Retry-After"))
    text = await response.content.read(MAX_PROBLEM_BYTES)
    try:
        problem = orjson.loads(text)
    except orjson.JSONDecodeError:
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("code"), str):
        return read_problem(problem, status=response.status, retry_after_s=retry_after_s)
    where = f"{response.method} {response.url.with_query(None)}"
    if response.status in _GATEWAY or response.status == 429:
        return ConnectionLost(f"a gateway answered {response.status} to {where}", retry_after_s=retry_after_s)
    if response.status == 413:
        return PayloadTooLarge(f"{where}: a gateway takes no request of this size")
    return InternalError(
        f"{where} answered {response.status} without a Tidings problem document:"
        " is this the URL of a Tidings server?"
    )


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header, seconds or an HTTP date (RFC 9110, 10.2.3); anything else counts as absent."""
    if retry_after is None:
        return None
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        at = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - time.time())
