"""``tidings dev``: a whole installation in one terminal, for development."""

from .child import ChildFailed
from .stack import DevStack

__all__ = ["ChildFailed", "DevStack"]
