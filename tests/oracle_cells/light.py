"""Minimal gated units, in NumPy."""

from __future__ import annotations

ORACLES: dict = {}

CASES: dict[str, tuple[str, dict]] = {}
