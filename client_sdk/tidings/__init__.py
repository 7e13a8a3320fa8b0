"""Tidings: background jobs that every browser and Python client can follow live. This is the client."""

from __future__ import annotations

__version__ = "0.1.0"
