"""Delays between attempts, and tokens."""

from __future__ import annotations

import asyncio

import pytest

from tidings import Backoff, errors
from tidings.tokens import TokenSource


def test_delays_double_to_their_cap_with_half_of_each_random() -> None:
    """The n-th failure in a row."""
    backoff = Backoff(base_s=1, cap_s=10)
    assert [backoff.delay_s(n, rng=lambda: 1.0) for n in (0, 1, 2, 3, 4, 5, 10_000)] == [
        0,
        1,
        2,
        4,
        8,
        10,
        10,
    ]
    assert [backoff.delay_s(n, rng=lambda: 0.0) for n in (1, 2)] == [0.5, 1]


async def test_a_token_is_asked_for_once_and_kept() -> None:
    """Until it is refused, and then once for all that were refused with it."""
    given = iter(["t1", "t2", "t3"])
    source = TokenSource(lambda: next(given))
    assert [await source.current(), await source.current()] == ["t1", "t1"]
    assert await asyncio.gather(*(source.renewed("t1") for _ in range(5))) == ["t2"] * 5
    source.discard("t1")
    assert await source.current() == "t2"
    source.discard("t2")
    assert await source.current() == "t3"


async def test_a_fixed_token_stays() -> None:
    """There is no other."""
    source = TokenSource("t")
    source.discard("t")
    assert not source.renewable
    assert [await source.current(), await source.renewed("t")] == ["t", "t"]


@pytest.mark.parametrize("answer", ["", "a\nb", None, 7])
async def test_a_callable_that_gives_no_token_is_said_to(answer: object) -> None:
    """Without showing what it gave."""
    source = TokenSource(lambda: answer)  # type: ignore[arg-type, return-value]  # what an untyped caller may do
    with pytest.raises(errors.Unauthenticated, match="a token is a non-empty string"):
        await source.current()
