"""Random lengths of truncated back-propagation through time."""

from __future__ import annotations

import functools
import math

import numpy as np

FULL_CHANCE = 0.95  # else half the length
DEVIATION = 5.0
SHORTEST = 5


def random_steps(lane_length: int, sequence_length: int) -> int:
    """Steps an epoch; the same in all epochs."""
    mean = sequence_length * (FULL_CHANCE + (1 - FULL_CHANCE) / 2)
    return math.ceil(lane_length / mean)


@functools.lru_cache(maxsize=4)
def random_cuts(lane_length: int, sequence_length: int, seed: int, epoch: int) -> np.ndarray:
    """Where the windows of an epoch begin, and where the last one ends: int [steps + 1].

        length = max(5, N(base, 5)),   base = sequence_length with probability 0.95, else half of it

    Source: Merity et al. 2017, arXiv:1708.02182, section 4.1. Differs from the paper: lengths are stretched
    alike, of a long text by a few in a thousand, so that `random_steps` windows are the whole lane.
    """
    random = np.random.default_rng([seed, epoch])
    steps = random_steps(lane_length, sequence_length)
    base = np.where(random.random(steps) < FULL_CHANCE, sequence_length, sequence_length / 2)
    ends = np.cumsum(np.maximum(SHORTEST, random.normal(base, DEVIATION)))
    return np.rint(np.concatenate([[0], ends]) * lane_length / ends[-1]).astype(np.int64)
