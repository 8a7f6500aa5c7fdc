"""Simple recurrent networks, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Gates, sigmoid

FUNCTIONS = {"sigmoid": sigmoid, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}


def elman(weights, inputs, states, activation="sigmoid"):
    """h = sigma(W_h h_prev + W_e e + b_1): CS224N lecture 6."""
    function = FUNCTIONS[activation]
    hidden = function(Gates(weights, inputs, ["hidden"])("hidden", states[0]))
    return hidden, [hidden]


def jordan(weights, inputs, states, activation="sigmoid"):
    """Jordan 1986 with mu = 0: two layers of units, the second fed back to the first."""
    function = FUNCTIONS[activation]
    hidden = function(Gates(weights, inputs, ["hidden"])("hidden", states[0]))
    output = function(hidden @ weights["output_kernel"] + weights["output_bias"])
    return output, [output]


def irnn(weights, inputs, states):
    """Le et al. 2015: rectified linear units."""
    return elman(weights, inputs, states, "relu")


def indrnn(weights, inputs, states, activation="relu"):
    """Li et al. 2018, unit by unit: h_n = sigma(w_n x + u_n h_n,prev + b_n)."""
    function = FUNCTIONS[activation]
    units = [
        function(inputs @ input_weights + recurrent_weight * previous_hidden + bias)
        for input_weights, recurrent_weight, previous_hidden, bias in zip(
            weights["input_kernel"].T, weights["recurrent_weight"], states[0].T, weights["bias"], strict=True
        )
    ]
    hidden = np.stack(units, axis=1)
    return hidden, [hidden]


def antisymmetric(weights, inputs, states, epsilon=0.01, gamma=0.01, gated=False):
    """Chang et al. 2019, in the paper's columns: W_h h with W_h the transposed kernel."""
    [previous_hidden] = states
    square = weights["recurrent_kernel"].T
    rotation = square - square.T - gamma * np.eye(len(square))
    recurrent = (rotation @ previous_hidden.T).T
    projected = inputs @ weights["input_kernel"] + weights["bias"]
    if gated:
        update, candidate = np.split(projected, 2, axis=1)
        change = sigmoid(recurrent + update) * np.tanh(recurrent + candidate)
    else:
        change = np.tanh(recurrent + projected)
    hidden = previous_hidden + epsilon * change
    return hidden, [hidden]


def matrix(weights, name, rank):
    """A matrix of full rank, or the product of its two factors."""
    return weights[f"{name}_kernel"] @ weights[f"{name}_factor"] if rank else weights[f"{name}_kernel"]


def fast_rnn(weights, inputs, states, input_rank=None, recurrent_rank=None):
    """Kusupati et al. 2018, section 3.1."""
    [previous_hidden] = states
    projected = inputs @ matrix(weights, "input", input_rank)
    recurrent = previous_hidden @ matrix(weights, "recurrent", recurrent_rank)
    candidate = np.tanh(projected + recurrent + weights["bias"])
    hidden = sigmoid(weights["alpha"]) * candidate + sigmoid(weights["beta"]) * previous_hidden
    return hidden, [hidden]


def fast_grnn(weights, inputs, states, input_rank=None, recurrent_rank=None):
    """Kusupati et al. 2018, section 3.2."""
    [previous_hidden] = states
    gate_bias, candidate_bias = np.split(weights["bias"], 2)
    projected = inputs @ matrix(weights, "input", input_rank)
    recurrent = previous_hidden @ matrix(weights, "recurrent", recurrent_rank)
    gate = sigmoid(projected + recurrent + gate_bias)
    candidate = np.tanh(projected + recurrent + candidate_bias)
    share = sigmoid(weights["zeta"]) * (1 - gate) + sigmoid(weights["nu"])
    hidden = share * candidate + gate * previous_hidden
    return hidden, [hidden]


def scrn(weights, inputs, states, alpha=0.95, context_units=None):
    """Mikolov et al. 2014, equations 4 to 6; the output layer multiplies h and s."""
    previous_hidden, previous_context = states
    context = (1 - alpha) * (inputs @ weights["context_input_kernel"]) + alpha * previous_context
    hidden = sigmoid(
        context @ weights["context_kernel"]
        + inputs @ weights["input_kernel"]
        + previous_hidden @ weights["recurrent_kernel"]
        + weights["bias"]
    )
    return np.concatenate([hidden, context], axis=1), [hidden, context]


def rhn(weights, inputs, states, depth=10, coupled=True):
    """Zilly et al. 2016, equations 6 to 9."""
    [state] = states
    names = ["transform", "candidate"] if coupled else ["transform", "carry", "candidate"]
    width = len(names) * state.shape[1]
    for layer in range(depth):
        columns = slice(layer * width, (layer + 1) * width)
        fused = state @ weights["recurrent_kernel"][:, columns] + weights["bias"][columns]
        if layer == 0:
            fused = fused + inputs @ weights["input_kernel"]
        gates = dict(zip(names, np.split(fused, len(names), axis=1), strict=True))
        transform = sigmoid(gates["transform"])
        carry = 1 - transform if coupled else sigmoid(gates["carry"])
        state = np.tanh(gates["candidate"]) * transform + state * carry
    return state, [state]


ORACLES = {
    "elman": elman,
    "jordan": jordan,
    "irnn": irnn,
    "indrnn": indrnn,
    "antisymmetric": antisymmetric,
    "fast_rnn": fast_rnn,
    "fast_grnn": fast_grnn,
    "scrn": scrn,
    "rhn": rhn,
}

CASES: dict[str, tuple[str, dict]] = {
    "elman_tanh": ("elman", {"activation": "tanh"}),
    "jordan_tanh": ("jordan", {"activation": "tanh"}),
    "indrnn_tanh": ("indrnn", {"activation": "tanh"}),
    "antisymmetric_gated": ("antisymmetric", {"gated": True, "epsilon": 0.5, "gamma": 0.2}),
    "fast_rnn_low_rank": ("fast_rnn", {"input_rank": 1, "recurrent_rank": 2}),
    "fast_grnn_low_rank": ("fast_grnn", {"input_rank": 2, "recurrent_rank": 1}),
    "scrn_small_context": ("scrn", {"context_units": 3, "alpha": 0.5}),
    # In the place of the default depth of 10, which takes a compiler ten times as long as other cells.
    "rhn": ("rhn", {"depth": 3}),
    "rhn_shallow": ("rhn", {"depth": 1}),
    "rhn_uncoupled": ("rhn", {"depth": 2, "coupled": False}),
}
