"""Who is calling: tokens are verified here, and nowhere else."""

from .identity import ADMIN, ORG_READ, Identity
from .tokens import Authenticator, TokenMissing, bearer_token

__all__ = ["ADMIN", "ORG_READ", "Authenticator", "Identity", "TokenMissing", "bearer_token"]
