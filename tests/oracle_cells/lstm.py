"""Long short-term memory and its variants, in NumPy."""

from __future__ import annotations

import numpy as np

from oracle_cells.common import Gates, sigmoid


def lstm(weights, inputs, states):
    """CS224N lecture 6; Gers et al. 2000."""
    previous_hidden, previous_cell_state = states
    gates = Gates(weights, inputs, ["input", "forget", "candidate", "output"])
    forget_gate = sigmoid(gates("forget", previous_hidden))
    input_gate = sigmoid(gates("input", previous_hidden))
    output_gate = sigmoid(gates("output", previous_hidden))
    new_content = np.tanh(gates("candidate", previous_hidden))
    cell_state = forget_gate * previous_cell_state + input_gate * new_content
    hidden = output_gate * np.tanh(cell_state)
    return hidden, [hidden, cell_state]


ORACLES = {"lstm": lstm}

CASES: dict[str, tuple[str, dict]] = {}
