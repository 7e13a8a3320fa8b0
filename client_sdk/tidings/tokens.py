"""Where a client's bearer token comes from: a string, or a callable that is asked again when it has run out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from .protocol.errors import Unauthenticated

__all__ = ["Token", "TokenSource"]

Token = str | Callable[[], str | Awaitable[str]]

_CALL_TIMEOUT_S = 30.0


class TokenSource:
    """Keeps the current token of one client and renews it once for all who were refused with it.

    A callable may be a plain function, which must not block, or return an awaitable. It is called on the
    client's event loop, one call at a time, and may take 30 s. The token itself never shows in a repr or error.
    """

    def __init__(self, token: Token) -> None:
        self._source = token
        self._token = _checked(token) if isinstance(token, str) else None
        self._asking = asyncio.Lock()

    @property
    def renewable(self) -> bool:
        """Whether a refused token can be replaced."""
        return not isinstance(self._source, str)

    async def current(self) -> str:
        """Return the token to use now.

        Raises:
            Unauthenticated: the callable failed, took too long, or gave no usable token.
        """
        return self._token if self._token is not None else await self.renewed(None)

    async def renewed(self, refused: str | None) -> str:
        """Return a token newer than ``refused``: another caller's fresh one, or else one from the callable."""
        async with self._asking:
            if self._token is not None and self._token != refused:
                return self._token
            if isinstance(self._source, str):
                return self._source
            self._token = await self._ask(self._source)
            return self._token

    def discard(self, refused: str | None) -> None:
        """Forget ``refused`` if it is the current token, so that the next use asks for a new one."""
        if self.renewable and self._token == refused:
            self._token = None

    @staticmethod
    async def _ask(source: Callable[[], str | Awaitable[str]]) -> str:
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                answer = source()
                token = await answer if inspect.isawaitable(answer) else answer
                return _checked(token)
        except Exception as error:  # the callable is the application's: anything can come out of it
            raise Unauthenticated(
                f"no token: the token callable raised {type(error).__name__}: {error}"
            ) from error


def _checked(token: object) -> str:
    if not isinstance(token, str) or not token or not token.isascii() or any(c <= " " for c in token):
        raise ValueError("a token is a non-empty string without blanks or line ends, such as a JWT")
    return token
