"""Recurrences that are linear in their state, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Array, sigmoid
from oracle_cells.gru import layer_norm


def gates_of(weights, inputs, names) -> dict[str, Array]:
    """U x + b of each gate, from the fused kernel."""
    fused = inputs @ weights["input_kernel"] + weights["bias"]
    return dict(zip(names, np.split(fused, len(names), axis=-1), strict=True))


def positive_part(x: Array) -> Array:
    """g of Feng et al. 2024, appendix B."""
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru(weights, inputs, states, positive=False):
    """Feng et al. 2024, section 3.1."""
    [previous_hidden] = states
    gates = gates_of(weights, inputs, ["update", "candidate"])
    update_gate = sigmoid(gates["update"])
    candidate = positive_part(gates["candidate"]) if positive else gates["candidate"]
    hidden = (1 - update_gate) * previous_hidden + update_gate * candidate
    return hidden, [hidden]


def min_lstm(weights, inputs, states, positive=False):
    """Feng et al. 2024, section 3.2."""
    [previous_hidden] = states
    gates = gates_of(weights, inputs, ["forget", "input", "candidate"])
    forget_gate, input_gate = sigmoid(gates["forget"]), sigmoid(gates["input"])
    candidate = positive_part(gates["candidate"]) if positive else gates["candidate"]
    forget_share = forget_gate / (forget_gate + input_gate)
    input_share = input_gate / (forget_gate + input_gate)
    hidden = forget_share * previous_hidden + input_share * candidate
    return hidden, [hidden]


def passed(weights, inputs):
    """The inputs, brought to the size of the state where they are not of it."""
    return inputs @ weights["passed_kernel"] if "passed_kernel" in weights else inputs


def sru(weights, inputs, states, activation="tanh"):
    """Lei et al. 2017, version 1, equations 3 to 7."""
    [previous_cell_state] = states
    function = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[activation]
    candidate, forget_gate, reset_gate = np.split(inputs @ weights["input_kernel"], 3, axis=-1)
    forget_bias, reset_bias = np.split(weights["bias"], 2)
    forget_gate = sigmoid(forget_gate + forget_bias)
    reset_gate = sigmoid(reset_gate + reset_bias)
    cell_state = forget_gate * previous_cell_state + (1 - forget_gate) * candidate
    output = reset_gate * function(cell_state) + (1 - reset_gate) * passed(weights, inputs)
    return output, [cell_state]


def qrnn(weights, inputs, states, window=2, pooling="fo"):
    """Bradbury et al. 2016, equations 1 to 5.

    Sums of products wait in the window; the convolution itself is in test_linear_cells.py.
    """
    previous_cell_state, waiting = states
    width = weights["bias"].shape[0]
    products = np.split(inputs @ weights["input_kernel"], window, axis=-1)  # by distance in time
    waiting = np.split(waiting, window - 1, axis=-1) if window > 1 else []
    names = {"f": "zf", "fo": "zfo", "ifo": "zfoi"}[pooling]
    fused = products[0] + weights["bias"] + (waiting[0] if waiting else 0)
    gates = dict(zip(names, np.split(fused, len(names), axis=-1), strict=True))
    next_waiting = [
        products[distance] + (waiting[distance] if distance < window - 1 else 0)
        for distance in range(1, window)
    ]
    candidate, forget_gate = np.tanh(gates["z"]), sigmoid(gates["f"])
    input_gate = sigmoid(gates["i"]) if pooling == "ifo" else 1 - forget_gate
    cell_state = forget_gate * previous_cell_state + input_gate * candidate
    output = cell_state if pooling == "f" else sigmoid(gates["o"]) * cell_state
    next_waiting = np.concatenate([np.zeros((len(inputs), 0)), *next_waiting], axis=-1)
    assert next_waiting.shape[-1] == (window - 1) * width
    return output, [cell_state, next_waiting]


def rg_lru(weights, inputs, states):
    """De et al. 2024, equations 1 to 4."""
    [previous_hidden] = states
    gates = gates_of(weights, inputs, ["recurrence", "input"])
    recurrence_gate, input_gate = sigmoid(gates["recurrence"]), sigmoid(gates["input"])
    decay = sigmoid(weights["decay_logit"]) ** (8 * recurrence_gate)
    hidden = decay * previous_hidden + np.sqrt(1 - decay**2) * (input_gate * passed(weights, inputs))
    return hidden, [hidden]


def mlstm(weights, inputs, states, heads=1, forget_gate="sigmoid", normalize=False):
    """Beck et al. 2024, equations 19 to 27, with the stabilizer of equations 15 to 17.

    The stabilizer only says in what units memory and normalizer are written down. Here they are
    brought to those of the paper's equations, without a stabilizer, and back again.
    """
    rows, units = len(inputs), weights["bias"].shape[0] // 4
    size = units // heads
    memory = states[0].reshape(rows, heads, size, size)
    normalizer = states[1].reshape(rows, heads, size)
    gates = gates_of(weights, inputs, ["query", "key", "value", "output"])
    exponents = inputs @ weights["gate_kernel"] + weights["gate_bias"]
    outputs, new_states = np.zeros((rows, units)), [state.copy() for state in states]
    for row in range(rows):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            query, value = gates["query"][row, part], gates["value"][row, part]
            key = gates["key"][row, part] / np.sqrt(size)
            input_gate = np.exp(exponents[row, head])
            forget_gate_value = {"sigmoid": sigmoid, "exponential": np.exp}[forget_gate](
                exponents[row, heads + head]
            )
            unit = np.exp(states[2][row, head])
            new_memory = forget_gate_value * unit * memory[row, head] + input_gate * np.outer(value, key)
            new_normalizer = forget_gate_value * unit * normalizer[row, head] + input_gate * key
            read = new_memory @ query / max(abs(new_normalizer @ query), 1)
            if normalize:
                read = layer_norm(read[np.newaxis], weights["output_gain"][part])[0]
            outputs[row, part] = sigmoid(gates["output"][row, part]) * read
            new_unit = max(forget_gate_value * unit, input_gate)
            new_states[0].reshape(rows, heads, size, size)[row, head] = new_memory / new_unit
            new_states[1].reshape(rows, heads, size)[row, head] = new_normalizer / new_unit
            new_states[2][row, head] = np.log(new_unit)
    return outputs, new_states


ORACLES = {
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "sru": sru,
    "qrnn": qrnn,
    "rg_lru": rg_lru,
    "mlstm": mlstm,
}

CASES: dict[str, tuple[str, dict]] = {
    "min_gru_positive": ("min_gru", {"positive": True}),
    "min_lstm_positive": ("min_lstm", {"positive": True}),
    "sru_relu": ("sru", {"activation": "relu"}),
    "qrnn_f_without_window": ("qrnn", {"pooling": "f", "window": 1}),
    "qrnn_ifo": ("qrnn", {"pooling": "ifo", "window": 3}),
    "mlstm_two_heads": ("mlstm", {"heads": 2}),
    "mlstm_normalized": ("mlstm", {"normalize": True}),
    "mlstm_exponential": ("mlstm", {"forget_gate": "exponential"}),
}
