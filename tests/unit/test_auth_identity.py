"""Who may see and change what."""

from __future__ import annotations

import pytest

from tidings_server.auth import Identity

END = 2e9


def identity(subject: str = "alice", org: str | None = None, *scopes: str) -> Identity:
    """A caller."""
    return Identity(subject, org, frozenset(scopes), END)


@pytest.mark.parametrize(
    ("caller", "owner", "org", "may_read", "may_write"),
    [
        (identity("alice"), "alice", None, True, True),
        (identity("alice", "acme"), "alice", "acme", True, True),
        (identity("alice"), "bob", None, False, False),
        # The same name in another org is another person.
        (identity("alice", "acme"), "alice", None, False, False),
        (identity("alice"), "alice", "acme", False, False),
        (identity("alice", "acme"), "alice", "globex", False, False),
        (identity("alice", "acme"), "bob", "acme", False, False),
        (identity("alice", "acme", "org:read"), "bob", "acme", True, False),
        (identity("alice", "acme", "org:read"), "bob", "globex", False, False),
        # Those without an org are not each other's org.
        (identity("alice", None, "org:read"), "bob", None, False, False),
        (identity("root", None, "admin"), "bob", "acme", True, True),
        (identity("root", None, "admin"), "system", None, True, True),
        (identity("alice", "acme", "Admin", "org:write"), "bob", "acme", False, False),
    ],
)
def test_what_a_caller_may_do(
    caller: Identity, owner: str, org: str | None, may_read: bool, may_write: bool
) -> None:
    """Own things always; the org's with ``org:read``; all with ``admin``."""
    assert caller.may_read_of(owner, org) is may_read
    assert caller.may_write_of(owner, org) is may_write
