"""Node, with the packages that `make` keeps in `.venv/node`: the protocol authors' own client, and the type checker."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Node", "NodeMissing"]

_MODULES = Path(__file__).parents[2] / ".venv" / "node" / "node_modules"


class NodeMissing(Exception):
    """Node or a package for it is not here; the message says which."""


@dataclass(frozen=True)
class Node:
    """Where Node is, and the environment in which it finds the packages by ``require``."""

    program: str
    modules: Path

    @classmethod
    def find(cls) -> Self:
        """Find it.

        Raises:
            NodeMissing: it is not here.
        """
        program = shutil.which("node")
        if program is None:
            raise NodeMissing("there is no `node` on PATH")
        if not (_MODULES / "socket.io-client").is_dir():
            raise NodeMissing("socket.io-client is not in .venv/node: run `make test`")
        return cls(program, _MODULES)

    @property
    def env(self) -> dict[str, str]:
        """The environment for the process."""
        return os.environ | {"NODE_PATH": str(self.modules)}
