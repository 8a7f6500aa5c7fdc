"""Long short-term memory and its variants, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Gates, sigmoid

GATES = ["input", "forget", "candidate", "output"]


def lstm(weights, inputs, states):
    """CS224N lecture 6; Gers et al. 2000."""
    previous_hidden, previous_cell_state = states
    gates = Gates(weights, inputs, GATES)
    forget_gate = sigmoid(gates("forget", previous_hidden))
    input_gate = sigmoid(gates("input", previous_hidden))
    output_gate = sigmoid(gates("output", previous_hidden))
    new_content = np.tanh(gates("candidate", previous_hidden))
    cell_state = forget_gate * previous_cell_state + input_gate * new_content
    hidden = output_gate * np.tanh(cell_state)
    return hidden, [hidden, cell_state]


def lstm_1997(weights, inputs, states, scaled_squashing=True):
    """Hochreiter and Schmidhuber 1997, appendix A.1: g has the range [-2, 2], h the range [-1, 1]."""
    previous_hidden, previous_cell_state = states
    gates = Gates(weights, inputs, ["input", "candidate", "output"])
    g, h = np.tanh, np.tanh
    if scaled_squashing:
        g, h = (lambda x: 4 / (1 + np.exp(-x)) - 2), (lambda x: 2 / (1 + np.exp(-x)) - 1)
    written = sigmoid(gates("input", previous_hidden)) * g(gates("candidate", previous_hidden))
    cell_state = previous_cell_state + written
    hidden = sigmoid(gates("output", previous_hidden)) * h(cell_state)
    return hidden, [hidden, cell_state]


def peephole_lstm(weights, inputs, states):
    """Gers et al. 2002; Greff et al. 2015, section 2."""
    previous_hidden, previous_cell_state = states
    gates = Gates(weights, inputs, GATES)
    units = previous_hidden.shape[1]
    input_peephole, forget_peephole, output_peephole = weights["peephole"].reshape(3, units)
    input_gate = sigmoid(gates("input", previous_hidden) + input_peephole * previous_cell_state)
    forget_gate = sigmoid(gates("forget", previous_hidden) + forget_peephole * previous_cell_state)
    new_content = np.tanh(gates("candidate", previous_hidden))
    cell_state = input_gate * new_content + forget_gate * previous_cell_state
    output_gate = sigmoid(gates("output", previous_hidden) + output_peephole * cell_state)
    hidden = output_gate * np.tanh(cell_state)
    return hidden, [hidden, cell_state]


def coupled_lstm(weights, inputs, states):
    """Greff et al. 2015, CIFG: the input gate is 1 less the forget gate."""
    previous_hidden, previous_cell_state = states
    gates = Gates(weights, inputs, ["forget", "candidate", "output"])
    forget_gate = sigmoid(gates("forget", previous_hidden))
    input_gate = 1 - forget_gate
    new_content = np.tanh(gates("candidate", previous_hidden))
    cell_state = forget_gate * previous_cell_state + input_gate * new_content
    hidden = sigmoid(gates("output", previous_hidden)) * np.tanh(cell_state)
    return hidden, [hidden, cell_state]


def projected_lstm(weights, inputs, states, projection=None):
    """Sak et al. 2014, equations 7 to 13 without peepholes: r_t = W_rm m_t is what recurs."""
    del projection  # the sizes of the weights say it
    previous_hidden, previous_cell_state = states
    units = previous_cell_state.shape[1]
    # Gates reads off the number of columns of a gate from the rows of the recurrent kernel.
    fused = previous_hidden @ weights["recurrent_kernel"] + inputs @ weights["input_kernel"] + weights["bias"]
    gates = {gate: fused[:, n * units : (n + 1) * units] for n, gate in enumerate(GATES)}
    cell_state = sigmoid(gates["forget"]) * previous_cell_state
    cell_state = cell_state + sigmoid(gates["input"]) * np.tanh(gates["candidate"])
    hidden = (sigmoid(gates["output"]) * np.tanh(cell_state)) @ weights["projection_kernel"]
    return hidden, [hidden, cell_state]


def standardized(vectors):
    """Ba et al. 2016, equation 3, with an epsilon as the variance can be 0."""
    deviations = vectors - vectors.mean(axis=-1, keepdims=True)
    return deviations / np.sqrt((deviations**2).mean(axis=-1, keepdims=True) + 1e-5)


def layer_norm_lstm(weights, inputs, states):
    """Ba et al. 2016, equations 20 to 22."""
    previous_hidden, previous_cell_state = states
    recurrent = standardized(previous_hidden @ weights["recurrent_kernel"]) * weights["recurrent_gain"]
    projected = standardized(inputs @ weights["input_kernel"]) * weights["input_gain"]
    fused = recurrent + projected + weights["bias"]
    input_gate, forget_gate, candidate, output_gate = np.split(fused, 4, axis=-1)
    cell_state = sigmoid(forget_gate) * previous_cell_state + sigmoid(input_gate) * np.tanh(candidate)
    normalized = standardized(cell_state) * weights["cell_gain"] + weights["cell_bias"]
    hidden = sigmoid(output_gate) * np.tanh(normalized)
    return hidden, [hidden, cell_state]


def weight_dropped_lstm(weights, inputs, states, weight_drop=0.0):
    """Merity et al. 2018: LSTM when nothing is dropped."""
    assert not weight_drop
    return lstm(weights, inputs, states)


def janet(weights, inputs, states, beta=1.0):
    """Van der Westhuizen and Lasenby 2018, equation 4."""
    [previous_hidden] = states
    gates = Gates(weights, inputs, ["forget", "candidate"])
    s = gates("forget", previous_hidden)
    new_content = np.tanh(gates("candidate", previous_hidden))
    hidden = sigmoid(s) * previous_hidden + (1 - sigmoid(s - beta)) * new_content
    return hidden, [hidden]


ORACLES = {
    "lstm_1997": lstm_1997,
    "lstm": lstm,
    "peephole_lstm": peephole_lstm,
    "coupled_lstm": coupled_lstm,
    "projected_lstm": projected_lstm,
    "layer_norm_lstm": layer_norm_lstm,
    "weight_dropped_lstm": weight_dropped_lstm,
    "janet": janet,
}

CASES: dict[str, tuple[str, dict]] = {
    "weight_dropped_lstm": ("weight_dropped_lstm", {"weight_drop": 0.0}),
    "lstm_1997_tanh": ("lstm_1997", {"scaled_squashing": False}),
    "projected_lstm_3": ("projected_lstm", {"projection": 3}),
    "janet_beta": ("janet", {"beta": 0.3}),
}
