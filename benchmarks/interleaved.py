"""Timing of alternatives side by side: in turns, in one run, so that a noisy machine is noisy for all."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

SGEMM_SIZE = 2000  # not a power of two: rows of one share the cache badly
SGEMM_OPERATIONS = 2 * SGEMM_SIZE**3


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


@contextlib.contextmanager
def processes(
    makers: Mapping[str, Callable[[], Callable[[], None]]],
) -> Iterator[dict[str, Callable[[], None]]]:
    """What the makers make, each in a process of its own: no allocator or thread pool serves two.

    Raises EOFError where a process ends by itself.
    """
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        steps = {}
        for name, make in makers.items():
            here, there = context.Pipe()
            process = context.Process(target=_steps_on_demand, args=(make, there), daemon=True)
            process.start()
            there.close()
            stack.callback(process.join)
            stack.callback(here.send, False)

            def step(connection=here):
                connection.send(True)
                connection.recv()

            steps[name] = step
        yield steps


def _steps_on_demand(make, connection):
    step = make()
    while connection.recv():
        step()
        connection.send(None)


def median(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def sgemm() -> Callable[[], None]:
    """A float32 matrix product of SGEMM_OPERATIONS: this machine's limit."""
    matrix = tf.constant(np.random.default_rng(0).standard_normal((SGEMM_SIZE, SGEMM_SIZE)), tf.float32)
    return lambda: tf.matmul(matrix, matrix)[0, 0].numpy()


def machine() -> str:
    return f"{os.cpu_count()} cores, TensorFlow {tf.__version__}, load {os.getloadavg()[0]:.1f}"
