"""Simple recurrent networks, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Gates, sigmoid


def elman(weights, inputs, states, activation="sigmoid"):
    """h = sigma(W_h h_prev + W_e e + b_1): CS224N lecture 6."""
    function = {"sigmoid": sigmoid, "tanh": np.tanh}[activation]
    hidden = function(Gates(weights, inputs, ["hidden"])("hidden", states[0]))
    return hidden, [hidden]


ORACLES = {"elman": elman}

CASES: dict[str, tuple[str, dict]] = {"elman_tanh": ("elman", {"activation": "tanh"})}
