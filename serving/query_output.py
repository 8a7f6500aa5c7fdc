"""What zoo-query prints: for people, and then a line of JSON for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags


def show(text: str, end: str = "\n") -> None:
    """What people read; a script wants only the last line."""
    if not flags.FLAGS.json:
        print(text, end=end, flush=True)


def finish(result: Mapping[str, Any]) -> None:
    """The line of JSON."""
    print(json.dumps(_plain(result)), flush=True)


def _plain(value: Any) -> Any:
    """With what JSON has no form for in another: bytes as text, and null for what is not finite.

    The log probability of the impossible is infinite.
    """
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value
