"""An identity: what a verified token says of its bearer, and what that lets them read and change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidings_tasks.store import JobRecord, Tenant

__all__ = ["ADMIN", "ORG_READ", "Identity"]

ADMIN: Final = "admin"
ORG_READ: Final = "org:read"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. Made only from a verified token. ``expires_at`` is in seconds since the Unix epoch."""

    subject: str
    org: str | None
    scopes: frozenset[str]
    expires_at: float
    token_id: str | None = None

    @property
    def tenant(self) -> Tenant:
        """The owner whose jobs the caller submits and lists."""
        return Tenant(self.subject, self.org)

    def owns(self, owner: str, org: str | None) -> bool:
        """Whether something of this owner and org is the caller's own. The same name in another org is another owner."""
        return owner == self.subject and (org or None) == self.org

    def may_read_of(self, owner: str, org: str | None) -> bool:
        """Whether the caller may see something of this owner: their own, their org's with `org:read`, all with `admin`."""
        in_same_org = bool(self.org) and org == self.org
        return self.owns(owner, org) or (in_same_org and ORG_READ in self.scopes) or ADMIN in self.scopes

    def may_write_of(self, owner: str, org: str | None) -> bool:
        """Whether the caller may change something of this owner: their own, or all with `admin`."""
        return self.owns(owner, org) or ADMIN in self.scopes

    def may_read(self, record: JobRecord) -> bool:
        """Whether the caller may see the job. To all others it must look as if it did not exist."""
        return self.may_read_of(record.spec.owner, record.spec.org)

    def may_write(self, record: JobRecord) -> bool:
        """Whether the caller may cancel, retry or delete the job."""
        return self.may_write_of(record.spec.owner, record.spec.org)
