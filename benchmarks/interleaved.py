"""Timing of alternatives side by side: in turns, in one process, so that a noisy machine is noisy for all."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf


def measure(steps: Mapping[str, Callable[[], None]], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` a name; a round calls each once."""
    for step in steps.values():
        for _ in range(warm_up):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def sgemm(size: int = 2048) -> Callable[[], None]:
    """A float32 matrix product of 2 * size^3 floating-point operations: this machine's limit."""
    matrix = tf.constant(np.random.default_rng(0).standard_normal((size, size)), tf.float32)
    return lambda: tf.matmul(matrix, matrix)[0, 0].numpy()


def machine() -> str:
    return f"{os.cpu_count()} cores, TensorFlow {tf.__version__}, load {os.getloadavg()[0]:.1f}"
