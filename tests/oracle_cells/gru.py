"""Gated recurrent units, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Gates, sigmoid


def gru(weights, inputs, states):
    """CS224N lecture 6; Cho et al. 2014."""
    [previous_hidden] = states
    gates = Gates(weights, inputs, ["update", "reset", "candidate"])
    update_gate = sigmoid(gates("update", previous_hidden))
    reset_gate = sigmoid(gates("reset", previous_hidden))
    new_content = np.tanh(gates("candidate", reset_gate * previous_hidden))
    hidden = (1 - update_gate) * previous_hidden + update_gate * new_content
    return hidden, [hidden]


def gru_reset_after(weights, inputs, states):
    """cuDNN's documentation of CUDNN_GRU, with i = 1 - u: the reset gate multiplies R h' + b_R."""
    [previous_hidden] = states
    gates = Gates(weights, inputs, ["update", "reset", "candidate"])
    update_gate = sigmoid(gates("update", previous_hidden))
    reset_gate = sigmoid(gates("reset", previous_hidden))
    units = previous_hidden.shape[1]
    recurrent = previous_hidden @ weights["recurrent_kernel"][:, 2 * units :] + weights["recurrent_bias"]
    projected = inputs @ weights["input_kernel"][:, 2 * units :] + weights["bias"][2 * units :]
    new_content = np.tanh(projected + reset_gate * recurrent)
    hidden = (1 - update_gate) * previous_hidden + update_gate * new_content
    return hidden, [hidden]


def layer_norm(values, gain, epsilon=1e-5):
    """Ba et al. 2016, equation 4, without the bias."""
    normalized = [(row - np.mean(row)) / np.sqrt(np.var(row) + epsilon) for row in values]
    return gain * np.array(normalized)


def layer_norm_gru(weights, inputs, states):
    """Ba et al. 2016, supplement, the GRU's equations; the biases of the gates' two terms are one."""
    [previous_hidden] = states
    units = previous_hidden.shape[1]
    gates, candidate = slice(0, 2 * units), slice(2 * units, None)
    input_kernel, recurrent_kernel = weights["input_kernel"], weights["recurrent_kernel"]
    input_gain, recurrent_gain = weights["input_gain"], weights["recurrent_gain"]
    fused = layer_norm(previous_hidden @ recurrent_kernel[:, gates], recurrent_gain[gates])
    fused += layer_norm(inputs @ input_kernel[:, gates], input_gain[gates]) + weights["bias"][gates]
    update_gate, reset_gate = sigmoid(fused[:, :units]), sigmoid(fused[:, units:])
    recurrent = layer_norm(previous_hidden @ recurrent_kernel[:, candidate], recurrent_gain[candidate])
    projected = layer_norm(inputs @ input_kernel[:, candidate], input_gain[candidate])
    new_content = np.tanh(
        projected + weights["bias"][candidate] + reset_gate * (recurrent + weights["recurrent_bias"])
    )
    hidden = (1 - update_gate) * previous_hidden + update_gate * new_content
    return hidden, [hidden]


def mgu(weights, inputs, states):
    """Zhou et al. 2016, table 1."""
    [previous_hidden] = states
    gates = Gates(weights, inputs, ["forget", "candidate"])
    forget_gate = sigmoid(gates("forget", previous_hidden))
    new_content = np.tanh(gates("candidate", forget_gate * previous_hidden))
    hidden = (1 - forget_gate) * previous_hidden + forget_gate * new_content
    return hidden, [hidden]


ORACLES = {
    "gru": gru,
    "gru_reset_after": gru_reset_after,
    "layer_norm_gru": layer_norm_gru,
    "mgu": mgu,
}

CASES: dict[str, tuple[str, dict]] = {}
