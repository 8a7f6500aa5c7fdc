"""Cells of the LSTM family against those of the package torchrecurrent, with their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchrecurrent

from zoo.cells import CELLS, Cell

BATCH, FEATURES, UNITS = 3, 4, 5


@pytest.fixture
def values():
    random = np.random.default_rng(1)
    return random.normal(size=(BATCH, FEATURES)), [random.normal(size=(BATCH, UNITS)) for _ in range(2)]


def make(name: str, randomize, **options) -> tuple[Cell, dict[str, np.ndarray]]:
    """A cell with random weights, and these by name, kernels transposed as PyTorch has them."""
    cell = CELLS[name](UNITS, dtype="float64", **options)
    cell.build((None, FEATURES))
    randomize(cell)
    return cell, {weight.name: np.asarray(weight).T for weight in cell.weights}


def in_torch(cell_class, weights: dict[str, np.ndarray], inputs, states):
    """New hidden and cell state of a torchrecurrent cell; weights that are not given are zero."""
    cell = cell_class(FEATURES, UNITS, dtype=torch.float64).double()
    given = {name: torch.tensor(weight) for name, weight in weights.items()}
    own = cell.state_dict()
    assert set(given) <= set(own)
    cell.load_state_dict({name: given.get(name, torch.zeros_like(weight)) for name, weight in own.items()})
    with torch.no_grad():
        return cell(torch.tensor(inputs), tuple(torch.tensor(state) for state in states))


def fused(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names that torchrecurrent gives to the weights that all cells have."""
    return {
        "weight_ih": weights["input_kernel"],
        "weight_hh": weights["recurrent_kernel"],
        "bias_ih": weights["bias"],
    }


def assert_close(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_lstm_1997_with_tanh(values, randomize):
    inputs, states = values
    cell, weights = make("lstm_1997", randomize, scaled_squashing=False)
    _, new_states = cell(inputs, states)
    assert_close(new_states, in_torch(torchrecurrent.OriginalLSTMCell, fused(weights), inputs, states))


def test_lstm_1997_squashes_as_in_the_paper(values, randomize):
    """The paper's g(v) = 2 tanh(v / 2) and h(v) = tanh(v / 2) are torchrecurrent's tanh by other scales.

    With c twice as large, half of the candidate's weights give g(v) = 2 tanh(v / 2), and h(c) = tanh(c / 2).
    """
    inputs, (hidden, cell_state) = values
    cell, weights = make("lstm_1997", randomize)
    _, new_states = cell(inputs, [hidden, cell_state])
    halves = np.repeat([1.0, 0.5, 1.0], UNITS)  # input, candidate, output
    theirs = {name: (weight.T * halves).T for name, weight in fused(weights).items()}
    new_hidden, half = in_torch(torchrecurrent.OriginalLSTMCell, theirs, inputs, [hidden, cell_state / 2])
    assert_close(new_states, [new_hidden, 2 * half])


def test_peephole_lstm(values, randomize):
    inputs, states = values
    cell, weights = make("peephole_lstm", randomize)
    theirs = {**fused(weights), "weight_ph": weights["peephole"]}
    _, new_states = cell(inputs, states)
    assert_close(new_states, in_torch(torchrecurrent.PeepholeLSTMCell, theirs, inputs, states))


def test_multiplicative_lstm(values, randomize):
    """torchrecurrent adds biases to both factors of m, which the paper has not: zero here."""
    inputs, states = values
    cell, weights = make("multiplicative_lstm", randomize)
    factor = weights["multiplicative_input_kernel"]
    theirs = {
        "weight_ih": np.concatenate([factor, weights["input_kernel"]]),
        "weight_hh": weights["multiplicative_kernel"],
        "weight_mh": weights["recurrent_kernel"],
        "bias_mh": weights["bias"],
    }
    _, new_states = cell(inputs, states)
    assert_close(new_states, in_torch(torchrecurrent.MultiplicativeLSTMCell, theirs, inputs, states))


def test_janet(values, randomize):
    """torchrecurrent keeps h and c apart though they are equal, and learns beta, a constant in the paper."""
    inputs, (hidden, _) = values
    cell, weights = make("janet", randomize, beta=0.7)
    theirs = {**fused(weights), "beta": np.float64(0.7)}
    [new_hidden] = cell(inputs, [hidden])[1]
    expected = in_torch(torchrecurrent.JANETCell, theirs, inputs, [hidden, hidden])
    assert_close([new_hidden, new_hidden], expected)
