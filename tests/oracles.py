"""The equations again, in NumPy and as the lecture and the papers print them, gate by gate.

Nothing here is shared with the zoo: the tests compare its layers with these. A cell is a function

    step(weights, inputs [batch, features], states, **options) -> (output, new states)

of the cell's weights by name. The columns of the fused kernels are read in the order that the
contract of a cell gives its gates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from oracle_cells import conditioned, elman, gru, light, linear, lstm
from oracle_cells.common import sigmoid as sigmoid

Array = np.ndarray


FAMILIES = (elman, lstm, conditioned, gru, light, linear)

ORACLES: dict[str, Callable] = {
    name: oracle for family in FAMILIES for name, oracle in family.ORACLES.items()
}

# Each cell once as it comes, and once for each option that changes its equations.
CASES: dict[str, tuple[str, dict]] = {
    **{name: (name, {}) for name in ORACLES},
    **{name: case for family in FAMILIES for name, case in family.CASES.items()},
}


def weights_of(layer) -> dict[str, Array]:
    """A layer's weights by name, in float64."""
    return {weight.name: np.asarray(weight, np.float64) for weight in layer.weights}


def run(step, inputs: Array, states: Sequence[Array], mask: Array | None = None, go_backwards=False):
    """A recurrence over time: inputs [batch, time, features] -> (outputs, last output, final states).

    Row by row and step by step; a masked step does nothing but repeat the output (zero at first).
    """
    batch, time = inputs.shape[:2]
    rows = []
    for row in range(batch):
        row_states, output, outputs = [state[row : row + 1] for state in states], None, []
        for now in reversed(range(time)) if go_backwards else range(time):
            if mask is None or mask[row, now]:
                output, row_states = step(inputs[row : row + 1, now], row_states)
            outputs.append(output)
        rows.append((outputs, output, row_states))
    size = next(output.shape[1] for _, output, _ in rows if output is not None)
    filled = [
        [np.zeros((1, size)) if output is None else output for output in outputs] for outputs, _, _ in rows
    ]
    outputs = np.array(filled)[:, :, 0]  # [batch, time, units]
    final_states = [np.concatenate(parts) for parts in zip(*(states for _, _, states in rows), strict=True)]
    return outputs, outputs[:, -1], final_states


def difference_along(direction: Array, function: Callable[[], float], array: Array, epsilon=1e-4) -> float:
    """The derivative of `function()` as `array` moves along a direction, by central differences of order 4.

    Every element of the gradient counts in it, at the price of four evaluations. Varies the array in place.
    """
    values = array.copy()

    def at(steps: int) -> float:
        array[...] = values + steps * epsilon * direction
        return function()

    slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * epsilon)
    array[...] = values
    return slope


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits, temperature=1.0):
    powers = np.exp((np.float64(logits) - np.max(logits)) / temperature)
    return powers / powers.sum()


def sampling_distribution(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0):
    """What the next token should follow, from the papers on each way of sampling, one after the other."""
    left = softmax(logits, temperature)
    if top_k:
        left = _keep(left, sorted(range(len(left)), key=lambda token: -left[token])[:top_k])
    left = _smallest_set(left, top_p, key=lambda token: -left[token])
    left = _keep(left, [token for token in range(len(left)) if left[token] >= min_p * left.max()])
    with np.errstate(divide="ignore"):
        surprise = -np.log(left)
    entropy = sum(p * -np.log(p) for p in left if p > 0)
    return _smallest_set(left, typical_p, key=lambda token: abs(surprise[token] - entropy))


def _smallest_set(probabilities, share, key):
    """The tokens that `key` puts first, until they have the share; all for a share of 1."""
    kept, reached = [], 0.0
    for token in sorted(range(len(probabilities)), key=key):
        if reached < share or share == 1:
            kept.append(token)
        reached += probabilities[token]
    return _keep(probabilities, kept)


def _keep(probabilities, tokens):
    kept = np.zeros_like(probabilities)
    kept[tokens] = probabilities[tokens]
    return kept / kept.sum()


def pooled(name: str, weights: dict[str, np.ndarray], outputs: np.ndarray, bidirectional: bool) -> np.ndarray:
    """The encoding of one sequence, [units'], of its outputs [time, units]."""
    if name == "final":
        return np.concatenate([outputs[-1], outputs[0]]) if bidirectional else outputs[-1]
    if name == "attention":
        return softmax(np.tanh(outputs @ weights["hidden_kernel"]) @ weights["score_kernel"][:, 0]) @ outputs
    return {"maximum": np.max, "mean": np.mean}[name](outputs, axis=0)


def stacked(stack, inputs: Array) -> Array:
    """The outputs of a Stack of GRUs, LSTMs or Elman networks, for one sequence [time, features]."""
    return stack_states(stack, inputs)[0]


def stack_states(stack, inputs: Array, initial=None) -> tuple[Array, dict[str, Array]]:
    """`stacked`, and the final states by name; `initial` are the first ones, each [size]."""
    names = {"GRU": "gru", "LSTM": "lstm", "Elman": "elman"}
    outputs, final = inputs[np.newaxis], {}
    for index in range(len(stack.cells)):
        read, directions = outputs, []
        for place, recurrent in stack.recurrents.items():
            if place.split("/")[0] != f"layer_{index}":
                continue
            cell = recurrent.cell
            step = functools.partial(ORACLES[names[type(cell).__name__]], weights_of(cell))
            keys = [f"{place}/{state}" for state in cell.STATES]
            states = [
                np.zeros((1, size)) if initial is None else initial[key][np.newaxis]
                for key, size in zip(keys, cell.state_size, strict=True)
            ]
            ordered = read[:, ::-1] if recurrent.go_backwards else read
            written, _, last = run(step, ordered, states)
            directions.append(written[:, ::-1] if recurrent.go_backwards else written)
            final |= {key: state[0] for key, state in zip(keys, last, strict=True)}
        outputs = np.concatenate(directions, axis=-1)
        if stack.skip == "residual" and read.shape == outputs.shape:
            outputs = read + outputs
    return outputs[0], final
