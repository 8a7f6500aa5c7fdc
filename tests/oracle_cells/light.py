"""Light relatives of the gated recurrent unit, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Gates, sigmoid
from oracle_cells.gru import layer_norm as normalize


def ugrnn(weights, inputs, states):
    """Collins et al. 2016, the UGRNN."""
    [previous_hidden] = states
    gates = Gates(weights, inputs, ["update", "candidate"])
    update_gate = sigmoid(gates("update", previous_hidden))
    new_content = np.tanh(gates("candidate", previous_hidden))
    hidden = update_gate * previous_hidden + (1 - update_gate) * new_content
    return hidden, [hidden]


def light_gru(weights, inputs, states, layer_norm=True):
    """Ravanelli et al. 2018, with layer normalization (or none) in the place of batch normalization."""
    [previous_hidden] = states
    units = previous_hidden.shape[1]
    projected = inputs @ weights["input_kernel"]
    if layer_norm:
        projected = normalize(projected, weights["input_gain"])
    gates = projected + weights["bias"] + previous_hidden @ weights["recurrent_kernel"]
    update_gate = sigmoid(gates[:, :units])
    new_content = np.maximum(0, gates[:, units:])
    hidden = update_gate * previous_hidden + (1 - update_gate) * new_content
    return hidden, [hidden]


def ran(weights, inputs, states, activation="tanh"):
    """Lee et al. 2017, equation 1."""
    previous_hidden, previous_cell_state = states
    units = previous_hidden.shape[1]
    input_columns, forget_columns = slice(0, units), slice(units, 2 * units)

    def gate(columns):
        recurrent = previous_hidden @ weights["recurrent_kernel"][:, columns]
        return sigmoid(recurrent + inputs @ weights["input_kernel"][:, columns] + weights["bias"][columns])

    content = inputs @ weights["input_kernel"][:, 2 * units :]
    cell_state = gate(input_columns) * content + gate(forget_columns) * previous_cell_state
    hidden = {"tanh": np.tanh, "linear": lambda x: x}[activation](cell_state)
    return hidden, [hidden, cell_state]


def minimal_rnn(weights, inputs, states):
    """Chen 2017, with a one-layer perceptron Phi."""
    [previous_hidden] = states
    latent_bias, update_bias = np.split(weights["bias"], 2)
    latent = np.tanh(inputs @ weights["input_kernel"] + latent_bias)
    update_gate = sigmoid(
        previous_hidden @ weights["recurrent_kernel"] + latent @ weights["latent_kernel"] + update_bias
    )
    hidden = update_gate * previous_hidden + (1 - update_gate) * latent
    return hidden, [hidden]


def atr(weights, inputs, states):
    """Zhang et al. 2018."""
    [previous_hidden] = states
    p = inputs @ weights["input_kernel"] + weights["bias"]
    q = previous_hidden @ weights["recurrent_kernel"]
    hidden = sigmoid(p + q) * p + sigmoid(p - q) * previous_hidden
    return hidden, [hidden]


ORACLES = {"ugrnn": ugrnn, "light_gru": light_gru, "ran": ran, "minimal_rnn": minimal_rnn, "atr": atr}

CASES: dict[str, tuple[str, dict]] = {
    "light_gru_plain": ("light_gru", {"layer_norm": False}),
    "ran_linear": ("ran", {"activation": "linear"}),
}
