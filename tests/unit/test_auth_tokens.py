"""What a token must be to be believed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest

from tidings.protocol.errors import TokenExpired, Unauthenticated
from tidings_server.auth import Authenticator, bearer_token
from tidings_server.auth.tokens import MAX_TOKEN_BYTES
from tidings_tasks.settings import Settings

SECRET = "a-secret-for-tests-that-is-long-enough"
OTHER_SECRET = "another-secret-of-somebody-elses-server"
NOW = 1_800_000_000.0
MISSING = object()


def authenticator(now: float = NOW, **fields: Any) -> Authenticator:
    """An authenticator whose clock stands at ``now``."""
    return Authenticator(Settings.model_validate({"jwt_secret": SECRET} | fields), now=lambda: now)


def claims(**changes: object) -> dict[str, object]:
    """The claims of a good token, changed; MISSING leaves one out."""
    body: dict[str, object] = {"sub": "alice", "iat": NOW - 10, "exp": NOW + 60}
    return {name: value for name, value in (body | changes).items() if value is not MISSING}


def sign(body: dict[str, object], **kwargs: Any) -> str:
    """Sign with the library that issuers use."""
    return jwt.encode(
        body, kwargs.pop("secret", SECRET), algorithm=kwargs.pop("algorithm", "HS256"), **kwargs
    )


def sign_raw(header: bytes, payload: bytes, secret: str = SECRET) -> str:
    """Sign any bytes, as no issuer would."""
    parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    digest = hmac.new(secret.encode(), parts, hashlib.sha256).digest()
    return (parts + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


def test_a_good_token_tells_who_bears_it() -> None:
    """Subject, org, scopes, id and end are taken over."""
    token = sign(claims(org="acme", scope="org:read admin", jti="t1"))
    found = authenticator().verify(token)
    assert (found.subject, found.org, found.token_id) == ("alice", "acme", "t1")
    assert found.scopes == {"org:read", "admin"}
    assert found.expires_at == NOW + 60
    assert (found.tenant.owner, found.tenant.org) == ("alice", "acme")


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (MISSING, set()),
        (None, set()),
        ("", set()),
        ("  org:read   org:read ", {"org:read"}),
        (["admin", "org:read"], {"admin", "org:read"}),
        ([], set()),
    ],
)
def test_scopes_come_as_words_or_as_a_list(scope: object, expected: set[str]) -> None:
    """Both spellings that issuers use are read."""
    assert authenticator().verify(sign(claims(scope=scope))).scopes == expected


@pytest.mark.parametrize("scope", [5, True, {"admin": 1}, ["admin", 5], ["x"] * 65])
def test_a_scope_of_another_shape_is_refused(scope: object) -> None:
    """A claim that cannot be understood is not guessed at."""
    with pytest.raises(Unauthenticated, match="scope"):
        authenticator().verify(sign(claims(scope=scope)))


@pytest.mark.parametrize("name", ["exp", "iat", "sub"])
def test_a_token_without_a_required_claim_is_refused(name: str) -> None:
    """A token without an end, a beginning or an owner is none."""
    with pytest.raises(Unauthenticated, match=f"`{name}`"):
        authenticator().verify(sign(claims(**{name: MISSING})))


def test_a_token_is_good_until_its_very_end() -> None:
    """``exp`` has no allowance: access ends when it says."""
    token = sign(claims())
    assert authenticator(NOW + 59.9).verify(token).subject == "alice"
    for late in (60.0, 60.1, 1e6):
        with pytest.raises(TokenExpired) as caught:
            authenticator(NOW + late).verify(token)
        assert (caught.value.status, caught.value.code) == (401, "token_expired")


def test_a_remembered_token_expires_all_the_same() -> None:
    """The memory of verified tokens does not outlive them."""
    clock = [NOW]
    found = Authenticator(Settings.model_validate({"jwt_secret": SECRET}), now=lambda: clock[0])
    token = sign(claims())
    assert found.verify(token) is found.verify(token)
    clock[0] = NOW + 60
    for _ in range(2):
        with pytest.raises(TokenExpired):
            found.verify(token)


def test_the_memory_is_bounded_and_keeps_no_token() -> None:
    """However many tokens come, a bounded number is kept, and only as digests."""
    found = authenticator()
    tokens = [sign(claims(jti=str(number))) for number in range(4_200)]
    for token in tokens:
        found.verify(token)
    assert len(found._verified) == 4_096
    assert all(isinstance(key, bytes) and len(key) == 32 for key in found._verified)


def test_a_changed_token_is_refused_even_when_the_good_one_is_remembered() -> None:
    """Each part is covered: header, claims and signature."""
    found = authenticator()
    token = sign(claims())
    found.verify(token)
    header, body, signature = token.split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims(sub="mallory")).encode()).rstrip(b"=").decode()
    turned = ("A" if signature[0] != "A" else "B") + signature[1:]
    for bad in (f"{header}.{forged}.{signature}", f"{header}.{body}.{turned}", f"{header}.{body}."):
        with pytest.raises(Unauthenticated):
            found.verify(bad)


def test_only_hs256_with_this_key_is_believed() -> None:
    """No other algorithm, no other key, and never none."""
    none = sign_raw(b'{"alg":"none"}', json.dumps(claims()).encode())
    unsigned = none.rpartition(".")[0] + "."
    long_secret = SECRET * 2
    for bad in (
        none,
        unsigned,
        sign_raw(b'{"alg":"None"}', json.dumps(claims()).encode()),
        sign_raw(b'{"alg":"hs256"}', json.dumps(claims()).encode()),
        sign_raw(b'{"alg":["HS256"]}', json.dumps(claims()).encode()),
        sign_raw(b'{"typ":"JWT"}', json.dumps(claims()).encode()),
        sign(claims(), algorithm="HS384", secret=long_secret),
        sign(claims(), secret=OTHER_SECRET),
    ):
        with pytest.raises(Unauthenticated) as caught:
            authenticator().verify(bad)
        assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize("crit", [b'["exp"]', b'["b64"],"b64":true', b"[]", b'"exp"', b"null"])
def test_a_critical_header_is_refused(crit: bytes) -> None:
    """An extension that must be understood is not understood (RFC 7515 §4.1.11)."""
    token = sign_raw(b'{"alg":"HS256","crit":' + crit + b"}", json.dumps(claims()).encode())
    with pytest.raises(Unauthenticated):
        authenticator().verify(token)


@pytest.mark.parametrize("exp", ["soon", "1800000060", True, None, [1], 1e400, -1e400])
def test_an_end_that_is_no_number_is_refused(exp: object) -> None:
    """A text, a truth value or an infinite time is no end."""
    payload = json.dumps(claims(exp=exp)).encode()
    with pytest.raises(Unauthenticated):
        authenticator().verify(sign_raw(b'{"alg":"HS256"}', payload))


def test_a_token_from_the_future_is_refused() -> None:
    """Clocks may differ by a minute, no more; ``nbf`` is honoured."""
    assert authenticator().verify(sign(claims(iat=NOW + 59)))
    with pytest.raises(Unauthenticated, match="iat"):
        authenticator().verify(sign(claims(iat=NOW + 61)))
    with pytest.raises(Unauthenticated, match="nbf"):
        authenticator().verify(sign(claims(nbf=NOW + 61)))


@pytest.mark.parametrize("name", ["sub", "org"])
@pytest.mark.parametrize("value", ["", " ", "x" * 257, "a\nb", "a\x00b", "a\x85b", 5, ["alice"], "\ud800"])
def test_names_that_would_break_keys_or_logs_are_refused(name: str, value: object) -> None:
    """Owner and org are 1 to 256 characters without control characters."""
    payload = json.dumps(claims(**{name: value})).encode()
    with pytest.raises(Unauthenticated):
        authenticator().verify(sign_raw(b'{"alg":"HS256"}', payload))


@pytest.mark.parametrize("name", ["a", "x" * 256, "auth0|5f7", "用户/ü:{s1}", "me@example.com"])
def test_names_of_any_alphabet_are_taken(name: str) -> None:
    """What identity providers give as names is taken as it is."""
    found = authenticator().verify(sign(claims(sub=name, org=name)))
    assert (found.subject, found.org) == (name, name)


def test_issuer_and_audience_count_once_they_are_configured() -> None:
    """Configured, they are required and compared; otherwise they may be anything."""
    assert authenticator().verify(sign(claims(iss="anyone", aud="anything"))).subject == "alice"
    strict = authenticator(jwt_issuer="https://id.example", jwt_audience="tidings")
    good = claims(iss="https://id.example", aud=["other", "tidings"])
    assert strict.verify(sign(good)).subject == "alice"
    for change in (
        {"iss": MISSING},
        {"aud": MISSING},
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"aud": 5},
    ):
        with pytest.raises(Unauthenticated):
            strict.verify(
                sign_raw(
                    b'{"alg":"HS256"}',
                    json.dumps({k: v for k, v in (good | change).items() if v is not MISSING}).encode(),
                )
            )


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "..",
        "a.b.c",
        "a.b.c.d",
        "é.é.é",
        "\x00" * 10,
        sign_raw(b"[" * 3000, b"{}"),
        sign_raw(b'{"alg":"HS256"}', b"[" * 3000),
        sign_raw(b'{"alg":"HS256"}', b"[1]"),
        sign_raw(b'{"alg":"HS256"}', b"\xff\xfe"),
        sign_raw(b'"HS256"', b"{}"),
        sign_raw(b'{"alg":"HS256","b64":false}', b"{}"),
        "a" * (MAX_TOKEN_BYTES + 1),
    ],
)
def test_rubbish_is_refused_as_unauthenticated(token: str) -> None:
    """Whatever comes, the answer is 401, never another error."""
    with pytest.raises(Unauthenticated):
        authenticator().verify(token)


def test_a_refusal_never_quotes_the_token() -> None:
    """What is wrong is told without the token, which may be somebody's good one with a typing error."""
    token = sign(claims(), secret=OTHER_SECRET)
    with pytest.raises(Unauthenticated) as caught:
        authenticator().verify(token)
    told = json.dumps(caught.value.to_problem())
    assert not any(part in told for part in token.split("."))


def test_there_is_no_authenticator_without_a_key() -> None:
    """No key is no default."""
    with pytest.raises(ValueError, match="JWT_SECRET"):
        Authenticator(Settings())


@pytest.mark.parametrize(
    ("headers", "token"),
    [(["Bearer abc"], "abc"), (["bearer abc"], "abc"), (["BEARER  abc "], "abc")],
)
def test_the_scheme_is_bearer_in_any_case(headers: list[str], token: str) -> None:
    """Schemes are compared without case (RFC 9110 §11.1)."""
    assert bearer_token(headers) == token


@pytest.mark.parametrize(
    "headers", [[], [""], ["Bearer"], ["Bearer  "], ["Basic YTpi"], ["abc"], ["Bearer a", "Bearer b"]]
)
def test_no_token_or_two_are_refused(headers: list[str]) -> None:
    """Exactly one token is looked at."""
    with pytest.raises(Unauthenticated):
        bearer_token(headers)


def test_a_remembered_token_is_not_verified_again() -> None:
    """The signature check is spared as long as the token is good."""
    found = authenticator()
    token = sign(claims())
    first = found.verify(token)
    assert all(found.verify(token) is first for _ in range(10))
