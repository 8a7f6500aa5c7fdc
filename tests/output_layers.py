"""The output layers as small language models have them."""

from __future__ import annotations

import pytest

from zoo.heads import HEADS

# Of a vocabulary of nine or more.
OPTIONS = {
    "adaptive": "cutoffs=3/6",
    "sampled": "samples=4",
    "nce": "samples=4",
    "blackout": "samples=4",
    "mixture": "components=2",
    "maxent": "order=4,buckets=50",
}

# All of them, and quickly one of each way to compute.
QUICK = ("adaptive", "blackout", "mixture", "maxent")
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HEADS]
