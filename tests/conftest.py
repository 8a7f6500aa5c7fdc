"""What the tests of all packages share."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def randomize() -> Callable:
    """Gives all weights of a layer new values, biases too; deterministic."""

    def randomize(layer, seed: int = 0, scale: float = 0.7):
        random = np.random.default_rng(seed)
        for weight in layer.weights:
            weight.assign(random.normal(scale=scale, size=weight.shape))
        return layer

    return randomize
