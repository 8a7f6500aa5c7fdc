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


ORACLES = {"gru": gru}

CASES: dict[str, tuple[str, dict]] = {}
