"""Long short-term memory whose weights or states depend on the input or on another network, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Gates, sigmoid
from oracle_cells.lstm import GATES, lstm, standardized


def multiplicative_lstm(weights, inputs, states):
    """Krause et al. 2016: the intermediate state m in the place of h_prev."""
    previous_hidden, previous_cell_state = states
    multiplicative_input = inputs @ weights["multiplicative_input_kernel"]
    multiplicative = multiplicative_input * (previous_hidden @ weights["multiplicative_kernel"])
    return lstm(weights, inputs, [multiplicative, previous_cell_state])


def mogrifier_lstm(weights, inputs, states, rounds=5, rank=0):
    """Melis et al. 2019, equations 1 and 2: x^i and h^i of odd and of even i."""
    previous_hidden, previous_cell_state = states

    def matrix(name):
        if rank:
            return weights[f"{name}_left_kernel"] @ weights[f"{name}_right_kernel"]
        return weights[f"{name}_kernel"]

    x, h = {-1: inputs}, {0: previous_hidden}
    for i in range(1, rounds + 1):
        if i % 2:
            x[i] = 2 * sigmoid(h[i - 1] @ matrix(f"round_{i}")) * x[i - 2]
        else:
            h[i] = 2 * sigmoid(x[i - 1] @ matrix(f"input_round_{i}")) * h[i - 2]
    return lstm(weights, x[max(x)], [h[max(h)], previous_cell_state])


def hyper_lstm(weights, inputs, states, layer_norm=False, current_embedding=False, **sizes):
    """Ha et al. 2016, equations 9 to 13."""
    previous_hidden, previous_cell_state, previous_hyper_hidden, previous_hyper_cell_state = states

    def normalized(vectors, name, columns=slice(None)):
        if not layer_norm:
            return vectors
        gain, bias = weights[f"{name}_gain"][columns], weights[f"{name}_bias"][columns]
        return standardized(vectors) * gain + bias

    def columns_of(position, size):
        return slice(position * size, (position + 1) * size)

    hyper_units, units = previous_hyper_hidden.shape[1], previous_hidden.shape[1]
    hyper_inputs = np.concatenate([previous_hidden, inputs], axis=1)
    hyper = {}
    for position, gate in enumerate(GATES):  # equation 10
        columns = columns_of(position, hyper_units)
        hyper[gate] = normalized(
            previous_hyper_hidden @ weights["hyper_recurrent_kernel"][:, columns]
            + hyper_inputs @ weights["hyper_kernel"][:, columns]
            + weights["hyper_bias"][columns],
            "hyper_gate",
            columns,
        )
    hyper_cell_state = sigmoid(hyper["forget"]) * previous_hyper_cell_state
    hyper_cell_state = hyper_cell_state + sigmoid(hyper["input"]) * np.tanh(hyper["candidate"])
    hyper_hidden = sigmoid(hyper["output"]) * np.tanh(normalized(hyper_cell_state, "hyper_cell"))

    embedded = hyper_hidden if current_embedding else previous_hyper_hidden
    size = weights["scale_kernel"].shape[0]
    main = {}
    for position, gate in enumerate(GATES):
        columns = columns_of(position, units)
        scales = []
        for kind in (0, 1):  # d_h and d_x, equations 11 and 12
            z_columns = columns_of(4 * kind + position, size)
            z = embedded @ weights["scale_embedding_kernel"][:, z_columns]
            z = z + weights["scale_embedding_bias"][z_columns]
            scales.append(z @ weights["scale_kernel"][:, columns_of(4 * kind + position, units)])
        z_b = embedded @ weights["bias_embedding_kernel"][:, columns_of(position, size)]
        bias = z_b @ weights["bias_kernel"][:, columns] + weights["bias"][columns]
        main[gate] = normalized(
            scales[0] * (previous_hidden @ weights["recurrent_kernel"][:, columns])
            + scales[1] * (inputs @ weights["input_kernel"][:, columns])
            + bias,
            "gate",
            columns,
        )
    cell_state = sigmoid(main["forget"]) * previous_cell_state
    cell_state = cell_state + sigmoid(main["input"]) * np.tanh(main["candidate"])
    hidden = sigmoid(main["output"]) * np.tanh(normalized(cell_state, "cell"))
    return hidden, [hidden, cell_state, hyper_hidden, hyper_cell_state]


def slstm(weights, inputs, states, heads=1, forget_gate="sigmoid"):
    """Beck et al. 2024, equations 8 to 17, a head at a time; a first step has no past to compare with."""
    previous_hidden, previous_cell_state, previous_normalizer, previous_stabilizer = states
    units = previous_hidden.shape[1]
    size = units // heads

    def in_head(gate, head):
        first = GATES.index(gate) * units + head * size
        head_weights = {
            name: weights[name][..., first : first + size]
            for name in ("recurrent_kernel", "input_kernel", "bias")
        }
        own = previous_hidden[:, head * size : (head + 1) * size]
        return Gates(head_weights, inputs, [gate])(gate, own)

    i, f, z, o = (np.concatenate([in_head(gate, head) for head in range(heads)], axis=1) for gate in GATES)
    log_forget = f if forget_gate == "exponential" else np.log(sigmoid(f))
    stabilizer = np.where(previous_normalizer == 0, i, np.maximum(log_forget + previous_stabilizer, i))
    stable_input = np.exp(i - stabilizer)
    stable_forget = np.exp(log_forget + previous_stabilizer - stabilizer)
    cell_state = stable_forget * previous_cell_state + stable_input * np.tanh(z)
    normalizer = stable_forget * previous_normalizer + stable_input
    hidden = sigmoid(o) * (cell_state / normalizer)
    return hidden, [hidden, cell_state, normalizer, stabilizer]


ORACLES = {
    "multiplicative_lstm": multiplicative_lstm,
    "mogrifier_lstm": mogrifier_lstm,
    "hyper_lstm": hyper_lstm,
    "slstm": slstm,
}

SMALL = {"hyper_units": 3, "hyper_embedding": 2}

CASES: dict[str, tuple[str, dict]] = {
    "mogrifier_lstm_even_rounds": ("mogrifier_lstm", {"rounds": 2}),
    "mogrifier_lstm_low_rank": ("mogrifier_lstm", {"rounds": 3, "rank": 1}),
    "hyper_lstm": ("hyper_lstm", SMALL),
    "hyper_lstm_layer_norm": ("hyper_lstm", {"layer_norm": True, **SMALL}),
    "hyper_lstm_current_embedding": ("hyper_lstm", {"current_embedding": True, **SMALL}),
    "slstm_exponential": ("slstm", {"forget_gate": "exponential"}),
    "slstm_heads": ("slstm", {"heads": 2}),
}
