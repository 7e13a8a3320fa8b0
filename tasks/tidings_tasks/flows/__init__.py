"""Flows: jobs that follow on each other. ``chain`` and ``group`` put steps together, ``Flow.submit`` sets them going."""

from .building import Flow, Result, Step, chain, group

__all__ = ["Flow", "Result", "Step", "chain", "group"]
