"""The equations again, in NumPy and as the lecture and the papers print them, gate by gate.

Nothing here is shared with the zoo: the tests compare its layers with these. A cell is a function

    step(weights, inputs [batch, features], states, **options) -> (output, new states)

of the cell's weights by name. The columns of the fused kernels are read in the order that the
contract of a cell gives its gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class _Gates:
    """W h_prev + U x + b of each gate, from the fused kernels."""

    def __init__(self, weights: dict[str, Array], inputs: Array, names: Sequence[str]):
        self.names = list(names)
        self.weights = weights
        self.inputs = inputs

    def __call__(self, gate: str, hidden: Array) -> Array:
        units = self.weights["recurrent_kernel"].shape[0]
        columns = slice(self.names.index(gate) * units, (self.names.index(gate) + 1) * units)
        input_kernel, recurrent_kernel, bias = (
            self.weights[name][..., columns] for name in ("input_kernel", "recurrent_kernel", "bias")
        )
        return hidden @ recurrent_kernel + self.inputs @ input_kernel + bias


def elman(weights, inputs, states, activation="sigmoid"):
    """h = sigma(W_h h_prev + W_e e + b_1): CS224N lecture 6."""
    function = {"sigmoid": sigmoid, "tanh": np.tanh}[activation]
    hidden = function(_Gates(weights, inputs, ["hidden"])("hidden", states[0]))
    return hidden, [hidden]


def lstm(weights, inputs, states):
    """CS224N lecture 6; Gers et al. 2000."""
    previous_hidden, previous_cell_state = states
    gates = _Gates(weights, inputs, ["input", "forget", "candidate", "output"])
    forget_gate = sigmoid(gates("forget", previous_hidden))
    input_gate = sigmoid(gates("input", previous_hidden))
    output_gate = sigmoid(gates("output", previous_hidden))
    new_content = np.tanh(gates("candidate", previous_hidden))
    cell_state = forget_gate * previous_cell_state + input_gate * new_content
    hidden = output_gate * np.tanh(cell_state)
    return hidden, [hidden, cell_state]


def gru(weights, inputs, states):
    """CS224N lecture 6; Cho et al. 2014."""
    [previous_hidden] = states
    gates = _Gates(weights, inputs, ["update", "reset", "candidate"])
    update_gate = sigmoid(gates("update", previous_hidden))
    reset_gate = sigmoid(gates("reset", previous_hidden))
    new_content = np.tanh(gates("candidate", reset_gate * previous_hidden))
    hidden = (1 - update_gate) * previous_hidden + update_gate * new_content
    return hidden, [hidden]


ORACLES: dict[str, Callable] = {"elman": elman, "gru": gru, "lstm": lstm}

# Each cell once as it comes, and once for each option that changes its equations.
CASES: dict[str, tuple[str, dict]] = {
    **{name: (name, {}) for name in ORACLES},
    "elman_tanh": ("elman", {"activation": "tanh"}),
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


def difference_gradient(function: Callable[[], float], array: Array, epsilon=1e-5) -> Array:
    """The gradient of `function()` with respect to `array` by central differences; varies it in place."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        value = array[index]
        array[index] = value + epsilon
        above = function()
        array[index] = value - epsilon
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * epsilon)
    return gradient


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits, temperature=1.0):
    powers = np.exp((np.float64(logits) - np.max(logits)) / temperature)
    return powers / powers.sum()


def sampling_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    """What the next token should follow, from the papers on top-k and nucleus sampling."""
    probabilities = softmax(logits, temperature)
    ranked = sorted(range(len(logits)), key=lambda token: -probabilities[token])
    if top_k:
        ranked = ranked[:top_k]
    mass = probabilities[ranked].sum()
    kept, reached = [], 0.0
    for token in ranked:
        if reached >= top_p * mass:
            break
        kept.append(token)
        reached += probabilities[token]
    cut = np.zeros_like(probabilities)
    cut[kept] = probabilities[kept]
    return cut / cut.sum()
