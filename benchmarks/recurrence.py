"""How fast does each cell run over time, beside stock Keras and PyTorch?

    python benchmarks/recurrence.py [--cells=lstm,gru] [--sizes=650/20/35] [--json=FILE]

For each cell and size (units/batch/steps; as many features as units), in turns in one run:
`Recurrent(cell)`, `keras.layers.RNN(cell)`, Keras's own layer and PyTorch's where there is one. Of long
sequences, cells that are linear in their state are compared with their own sequential loop instead.

Prints medians of forward and of forward + backward (the gradients of weights and inputs), how many
times as fast `Recurrent` is as the others, and what share it reaches of this machine's sgemm rate: a
step counts 2 * batch operations for each element of the cell's kernels, three times that with backward.
PyTorch is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))  # before this folder, which has a serving.py
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from interleaved import SGEMM_OPERATIONS, machine, measure, median, sgemm

from zoo.cells import CELLS, Cell
from zoo.convert.keras_layers import KERAS_LAYERS
from zoo.recurrence import Recurrent, scan

try:
    import torch
except ImportError:
    torch = None

TORCH_MODULES = {"elman": "RNN", "lstm": "LSTM", "gru_reset_after": "GRU"}
CELL_OPTIONS = {"elman": {"activation": "tanh"}}  # as Keras and PyTorch have it
MODES = ("forward", "forward + backward")
ALTERNATIVES = ("keras RNN", "keras", "pytorch", "own loop")


class Size(NamedTuple):
    units: int
    batch: int
    steps: int

    @classmethod
    def parse(cls, text: str) -> Size:
        try:
            return cls(*map(int, text.split("/")))
        except (TypeError, ValueError):
            raise ValueError(f"expected a size as units/batch/steps, got {text!r}") from None

    def __str__(self) -> str:
        return "/".join(map(str, self))


SIZES = [Size(200, 20, 35), Size(650, 20, 35), Size(256, 32, 100), Size(1024, 64, 35)]
LONG = Size(256, 8, 1024)  # where evaluation in parallel matters

Step = Callable[[], None]


def of_tensorflow(
    run: Callable, weights: Sequence, shapes: Sequence[tuple[int, ...]], backward: bool
) -> Step:
    """One call of `run(inputs, training)`; with `backward`, the gradients of inputs and weights, too."""
    random = np.random.default_rng(0)
    inputs, d_outputs = (tf.constant(random.standard_normal(shape), tf.float32) for shape in shapes)
    variables = [weight.value for weight in weights]

    @tf.function
    def step(inputs):
        if not backward:
            results = [run(inputs, False)]
        else:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = run(inputs, True)
            results = tape.gradient(outputs, [inputs, *variables], output_gradients=d_outputs)
        return results[0][0, 0, 0], results

    return lambda: step(inputs)[0].numpy()


def of_torch(name: str, size: Size, backward: bool) -> Step:
    module = getattr(torch.nn, name)(size.units, size.units)
    inputs, d_outputs = torch.randn(2, size.steps, size.batch, size.units)
    inputs.requires_grad_(backward)

    def step():
        module.zero_grad()
        inputs.grad = None
        with torch.set_grad_enabled(backward):
            outputs, _ = module(inputs)
        if backward:
            outputs.backward(d_outputs)

    return step


def own_loop(cell: Cell) -> Callable:
    """A cell step by step, however else `Recurrent` evaluates it."""

    def run(inputs, training):
        batch_size = tf.shape(inputs)[0]
        outputs, *_ = scan(
            cell,
            cell.given_weights(training, batch_size),
            [tf.transpose(inputs, [1, 0, 2])],
            cell.get_initial_state(batch_size),
            training=training,
        )
        return tf.transpose(outputs, [1, 0, 2])

    return run


def contenders(name: str, size: Size, backward: bool) -> tuple[dict[str, Step], Cell]:
    """What is timed for a cell, by name, the zoo's first; and the cell."""
    cell = CELLS[name](size.units, **CELL_OPTIONS.get(name, {}))
    cell.build((None, size.units))
    shape = (size.batch, size.steps, size.units)
    shapes = (shape, (*shape[:-1], cell.output_size))

    def of_layer(layer):
        layer.build(shape)
        weights = layer.trainable_weights
        return of_tensorflow(lambda x, training: layer(x, training=training), weights, shapes, backward)

    steps = {"zoo": of_layer(Recurrent(cell, return_sequences=True))}
    if size == LONG:
        return {
            **steps,
            "own loop": of_tensorflow(own_loop(cell), cell.trainable_weights, shapes, backward),
        }, cell
    steps["keras RNN"] = of_layer(keras.layers.RNN(cell, return_sequences=True))
    if name in KERAS_LAYERS:
        steps["keras"] = of_layer(KERAS_LAYERS[name](size.units, return_sequences=True))
    if torch and name in TORCH_MODULES:
        steps["pytorch"] = of_torch(TORCH_MODULES[name], size, backward)
    return steps, cell


def timed(name: str, size: Size, mode: str, rounds: int, seconds: float) -> dict:
    """Median seconds of each contender, and the zoo's share of the sgemm rate."""
    backward = mode != "forward"
    steps, cell = contenders(name, size, backward)
    steps["sgemm"] = sgemm()
    first = measure(steps, rounds=1, warm_up=1)
    more = int(np.clip(seconds / sum(median(first).values()), 3, rounds)) - 1
    others = measure(steps, more, warm_up=0)
    medians = median({name: first[name] + others[name] for name in steps})
    rate = SGEMM_OPERATIONS / medians.pop("sgemm")
    elements = sum(int(np.prod(weight.shape)) for weight in cell.trainable_weights if len(weight.shape) > 1)
    operations = 2 * size.batch * size.steps * elements * (3 if backward else 1)
    return {
        "cell": name,
        "size": str(size),
        "mode": mode,
        "rounds": 1 + more,
        "seconds": medians,
        "sgemm_share": operations / medians["zoo"] / rate,
    }


def line(results: Sequence[dict]) -> str:
    """A row of the table: a cell's medians and ratios in each mode."""
    text = f"{results[0]['cell']:20}"
    for result in results:
        zoo = result["seconds"]["zoo"]
        ratios = (result["seconds"].get(name) for name in ALTERNATIVES)
        text += f"{zoo * 1e3:10.1f}{result['sgemm_share']:7.0%}"
        text += "".join(f"{'':>10}" if value is None else f"{value / zoo:9.2f}x" for value in ratios)
    return text


def heading(size: Size) -> str:
    columns = f"{'ms':>10}{'sgemm':>7}" + "".join(f"{name:>10}" for name in ALTERNATIVES)
    width = len(columns)
    modes = "".join(f"{mode:>{width}}" for mode in MODES)
    return f"\n{size!s:20}{modes}\n{'':20}{columns * len(MODES)}"


def geometric_means(results: Sequence[dict]) -> str:
    """The last row: how many times as fast as keras.layers.RNN(cell), or as its own loop, over all cells."""
    parts = []
    for mode in MODES:
        for name in ("keras RNN", "own loop"):
            ratios = [
                result["seconds"][name] / result["seconds"]["zoo"]
                for result in results
                if result["mode"] == mode and name in result["seconds"]
            ]
            if ratios:
                mean, lowest = np.exp(np.mean(np.log(ratios))), min(ratios)
                parts.append(f"{mode} {mean:.2f}x {name}, at least {lowest:.2f}x")
    return f"geometric mean of {len({result['cell'] for result in results})} cells: {'; '.join(parts)}"


def run_size(size: Size, names: Sequence[str], rounds: int, seconds: float) -> list[dict]:
    """Times cells one by one and prints their table."""
    print(heading(size), flush=True)
    results = []
    for name in names:
        print(f"{size} {name}", file=sys.stderr, flush=True)
        row = []
        for mode in MODES:
            row.append(timed(name, size, mode, rounds, seconds))
            keras.backend.clear_session()
            gc.collect()  # graphs and their functions refer to each other
        print(line(row), flush=True)
        results += row
    print(geometric_means(results), flush=True)
    return results


def listed(text: str, known: Sequence[str]) -> list[str]:
    """The names between commas. Raises ValueError for one that is unknown."""
    names = text.split(",") if text else list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown cell {name!r}; expected one of: {', '.join(known)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", default="", help="names in zoo.cells.CELLS, between commas; default: all")
    sizes = ",".join(map(str, [*SIZES, LONG]))
    parser.add_argument("--sizes", default=sizes, help=f"units/batch/steps, between commas; default: {sizes}")
    parser.add_argument("--rounds", type=int, default=15, help="at most, of each cell, size and mode")
    parser.add_argument("--seconds", type=float, default=2.0, help="for these rounds; but at least 3 are run")
    parser.add_argument("--json", default="", help="a file for the figures")
    arguments = parser.parse_args()
    try:
        names = listed(arguments.cells, list(CELLS))
        chosen = [Size.parse(size) for size in arguments.sizes.split(",")]
    except ValueError as error:
        parser.error(str(error))
    versions = (
        f"{machine()}, {tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()} threads"
    )
    if torch:
        versions += f"; PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    print(versions)
    print("Recurrent(cell): medians, share of the sgemm rate, and how many times as fast as the others")
    results: list[dict] = []
    for size in chosen:
        linear = [name for name in names if hasattr(CELLS[name], "parallel")]
        cells = linear if size == LONG else names
        if cells:
            results += run_size(size, cells, arguments.rounds, arguments.seconds)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": versions, "results": results}, indent=1))


if __name__ == "__main__":
    main()
