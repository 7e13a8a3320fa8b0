"""HS256 tokens: what is required of one, and a bounded memory of those that were verified (RFC 7519, RFC 8725)."""

from __future__ import annotations

import hashlib
import math
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import jwt

from tidings.protocol.errors import TokenExpired, Unauthenticated
from tidings_tasks.settings import Settings

from .identity import Identity

__all__ = ["MAX_TOKEN_BYTES", "Authenticator", "TokenMissing", "bearer_token"]

MAX_TOKEN_BYTES: Final = 8192
MAX_NAME_CHARS: Final = 256
MAX_SCOPES: Final = 64
_REMEMBERED_TOKENS = 4096
# Clocks of two hosts differ; `exp` gets no allowance, since its meaning is a promise that access ends.
_CLOCK_SKEW_S = 60.0


class TokenMissing(Unauthenticated):
    """The request says nothing of who is asking; to be told without an error code (RFC 6750 §3.1)."""


def bearer_token(headers: Sequence[str]) -> str:
    """Return the token of the request's ``Authorization`` headers.

    Raises:
        TokenMissing: there is none.
        Unauthenticated: there is more than one, or another scheme than ``Bearer``.
    """
    if not headers:
        raise TokenMissing("send a token in the header `Authorization: Bearer <token>`")
    if len(headers) > 1:
        raise Unauthenticated("send the `Authorization` header once")
    scheme, _, token = headers[0].strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the `Authorization` header must be `Bearer <token>`")
    return token.strip()


class Authenticator:
    """Verifies tokens against the settings' key, issuer and audience. Safe for any number of callers on one loop.

    Args:
        settings: ``jwt_secret`` must be set.
        now: the wall clock, in seconds since the Unix epoch.
    """

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        if settings.jwt_secret is None:
            raise ValueError("JWT_SECRET is not set; the server cannot verify tokens without it")
        self._key = settings.jwt_secret.get_secret_value()
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._now = now
        self._verified: OrderedDict[bytes, Identity] = OrderedDict()

    def verify(self, token: str) -> Identity:
        """Return whose the token is. ``token`` is untrusted, and is kept only as a digest.

        Raises:
            TokenExpired: it was good until its ``exp``.
            Unauthenticated: it is anything else but a good token; the detail says what is wrong with it.
        """
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthenticated(f"a token has at most {MAX_TOKEN_BYTES:,} ASCII characters")
        digest = hashlib.sha256(token.encode()).digest()
        identity = self._verified.get(digest)
        if identity is None:
            identity = self._identify(self._decode(token))
            self._verified[digest] = identity
            if len(self._verified) > _REMEMBERED_TOKENS:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(digest)
        if self._now() >= identity.expires_at:
            self._verified.pop(digest, None)
            raise TokenExpired("the token has expired; get a new one")
        return identity

    def _decode(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != "HS256":
                raise Unauthenticated("the token must be signed with HS256")
            if "crit" in header:
                raise Unauthenticated("the token's header has a `crit` member, which is not supported")
            # Times are judged in _identify, by the injected clock and without PyJWT's coercions.
            return jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["exp", "iat", "sub"]
                    + (["iss"] if self._issuer else [])
                    + (["aud"] if self._audience else []),
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "verify_aud": self._audience is not None,
                    "verify_iss": self._issuer is not None,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"the token lacks the claim `{error.claim}`") from error
        except jwt.InvalidIssuerError as error:
            raise Unauthenticated("the token's `iss` is not the one that is trusted here") from error
        except jwt.InvalidAudienceError as error:
            raise Unauthenticated("the token's `aud` does not name this service") from error
        except jwt.InvalidSignatureError as error:
            raise Unauthenticated("the token's signature is not valid") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthenticated("the token cannot be read; it must be a JWT signed with HS256") from error

    def _identify(self, claims: dict[str, Any]) -> Identity:
        now = self._now()
        expires_at = _read_time(claims, "exp")
        if _read_time(claims, "iat") > now + _CLOCK_SKEW_S:
            raise Unauthenticated("the token's `iat` lies in the future")
        if claims.get("nbf") is not None and _read_time(claims, "nbf") > now + _CLOCK_SKEW_S:
            raise Unauthenticated("the token is not valid yet: its `nbf` lies in the future")
        token_id = claims.get("jti")
        return Identity(
            subject=_read_name(claims, "sub"),
            org=None if claims.get("org") is None else _read_name(claims, "org"),
            scopes=_read_scopes(claims.get("scope")),
            expires_at=expires_at,
            token_id=token_id if isinstance(token_id, str) else None,
        )


def _read_time(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unauthenticated(f"the token's `{name}` must be a number, in seconds since 1970")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise Unauthenticated(f"the token's `{name}` must be a number, in seconds since 1970")
    return seconds


def _read_name(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= MAX_NAME_CHARS
        or not value.strip()
        # Cc: control characters, which would break logs; Cs: lone surrogates, which have no UTF-8.
        or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value)
    ):
        raise Unauthenticated(
            f"the token's `{name}` must be a string of 1 to {MAX_NAME_CHARS} characters, without control characters"
        )
    return value


def _read_scopes(value: object) -> frozenset[str]:
    words = value.split() if isinstance(value, str) else [] if value is None else value
    if (
        not isinstance(words, list)
        or len(words) > MAX_SCOPES
        or not all(isinstance(word, str) for word in words)
    ):
        raise Unauthenticated(
            f"the token's `scope` must be words in one string, or a list of strings, at most {MAX_SCOPES}"
        )
    return frozenset(words)
