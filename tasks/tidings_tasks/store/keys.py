"""The key and channel names that Python itself needs; all others are spelt in ``lua/prelude.lua`` alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

__all__ = ["Keyspace", "Tenant"]


@lru_cache(maxsize=4096)
def _scope(owner: str, org: str | None) -> str:
    return f"{quote(org or '', safe='')}/{quote(owner, safe='')}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose a job is: the token's ``sub``, and its ``org`` where it has one."""

    owner: str
    org: str | None = None

    @property
    def scope(self) -> str:
        """The owner's part of a key: ``<org or empty>/<owner>``, both percent-encoded, so no two tenants meet."""
        return _scope(self.owner, self.org)

    @property
    def org_scope(self) -> str | None:
        """The organisation's part of a key, or None for an owner who is a tenant alone."""
        return quote(self.org, safe="") if self.org else None


@dataclass(frozen=True, slots=True)
class Keyspace:
    """How names are made: ``<prefix>:{sN}`` for shard N of ``shards``. Both are fixed for an installation."""

    prefix: str = "tidings"
    shards: int = 1

    def shard(self, number: int) -> str:
        """The prefix of every key of a shard; its hash tag keeps them in one cluster slot."""
        return f"{self.prefix}:{{s{number}}}"

    def shard_of_tenant(self, tenant: Tenant) -> int:
        """The shard that holds all jobs of a tenant."""
        if self.shards == 1:
            return 0
        digest = hashlib.blake2b((tenant.org or tenant.owner).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.shards

    def wake_list(self, shard: int, queue: str) -> str:
        """The list on which an idle worker waits for a queue."""
        return f"{self.shard(shard)}:wake:{queue}"

    def nudge_list(self, shard: int, worker: str) -> str:
        """The list by which a worker ends its own waiting for queues, to wait for others."""
        return f"{self.shard(shard)}:nudge:{worker}"

    def mailbox(self, shard: int, worker: str) -> str:
        """The list of messages to one worker."""
        return f"{self.shard(shard)}:mb:{worker}"

    def job_channel(self, shard: int, job_id: str) -> str:
        """The sharded channel that carries a job's envelopes."""
        return f"{self.shard(shard)}:c:{job_id}"

    def feed_channel(self, shard: int, feed: str) -> str:
        """The sharded channel that carries a feed's entries."""
        return f"{self.shard(shard)}:fc:{feed}"
