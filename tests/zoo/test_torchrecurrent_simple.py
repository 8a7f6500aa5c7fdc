"""Cells of the Elman and GRU families against those of the package torchrecurrent, with their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchrecurrent

from zoo.cells import CELLS

BATCH, FEATURES, UNITS = 3, 4, 5


@pytest.fixture
def values():
    random = np.random.default_rng(1)
    return random.normal(size=(BATCH, FEATURES)), [random.normal(size=(BATCH, UNITS)) for _ in range(2)]


@pytest.fixture
def run(values, randomize):
    """(new states of a cell with random weights, its weights by name, kernels transposed as in PyTorch)."""

    def run(name: str, **options):
        cell = CELLS[name](UNITS, dtype="float64", **options)
        cell.build((None, FEATURES))
        randomize(cell)
        inputs, states = values
        _, new_states = cell(inputs, states[: len(cell.STATES)])
        return new_states, {weight.name: np.asarray(weight).T for weight in cell.weights}

    return run


@pytest.fixture
def in_torch(values):
    """New states of a torchrecurrent cell; weights that are not given are zero."""

    def in_torch(cell_class, weights: dict[str, np.ndarray], **options) -> list[torch.Tensor]:
        cell = cell_class(FEATURES, UNITS, **options).double()
        own = cell.state_dict()
        assert set(weights) <= set(own)
        given = {name: torch.tensor(weight).reshape(own[name].shape) for name, weight in weights.items()}
        cell.load_state_dict(
            {name: given.get(name, torch.zeros_like(weight)) for name, weight in own.items()}
        )
        inputs, states = (torch.tensor(values[0]), [torch.tensor(state) for state in values[1]])
        with torch.no_grad():
            if cell.uses_double_state():
                return list(cell(inputs, tuple(states)))
            return [cell(inputs, states[0])]

    return in_torch


def fused(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names that torchrecurrent gives to the weights that most cells have."""
    return {
        "weight_ih": weights["input_kernel"],
        "weight_hh": weights["recurrent_kernel"],
        "bias_ih": weights["bias"],
    }


def assert_close(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "their_class"),
    [
        ("antisymmetric", {"epsilon": 0.5, "gamma": 0.2}, torchrecurrent.AntisymmetricRNNCell),
        ("mgu", {}, torchrecurrent.MGUCell),
        ("atr", {}, torchrecurrent.ATRCell),
    ],
)
def test_same_order_of_gates(name, options, their_class, run, in_torch):
    new_states, weights = run(name, **options)
    assert_close(new_states, in_torch(their_class, fused(weights), **options))


def test_light_gru_without_normalization(run, in_torch):
    """torchrecurrent leaves out the normalization, which the paper holds to be needed."""
    new_states, weights = run("light_gru", layer_norm=False)
    assert_close(new_states, in_torch(torchrecurrent.LiGRUCell, fused(weights)))


def test_gated_antisymmetric(run, in_torch):
    """torchrecurrent's recurrent bias is added to the candidate only; zero here, as in the paper."""
    options = {"epsilon": 0.5, "gamma": 0.2}
    new_states, weights = run("antisymmetric", gated=True, **options)
    assert_close(new_states, in_torch(torchrecurrent.GatedAntisymmetricRNNCell, fused(weights), **options))


def test_indrnn(run, in_torch):
    """torchrecurrent's default is tanh; the paper's network is rectified."""
    new_states, weights = run("indrnn")
    theirs = {
        "weight_ih": weights["input_kernel"],
        "vector_u": weights["recurrent_weight"],
        "bias_ih": weights["bias"],
    }
    assert_close(new_states, in_torch(torchrecurrent.IndRNNCell, theirs, nonlinearity="relu"))


def test_fast_rnn(run, in_torch):
    """torchrecurrent starts alpha at 3 and beta at -3, the authors' code the other way round."""
    new_states, weights = run("fast_rnn")
    theirs = {**fused(weights), "alpha": weights["alpha"], "beta": weights["beta"]}
    assert_close(new_states, in_torch(torchrecurrent.FastRNNCell, theirs))


def test_fast_grnn(run, in_torch):
    """torchrecurrent's `nonlinearity` is that of the gate, tanh by default; the paper's gate is a sigmoid."""
    new_states, weights = run("fast_grnn")
    theirs = {**fused(weights), "zeta": weights["zeta"], "nu": weights["nu"]}
    assert_close(new_states, in_torch(torchrecurrent.FastGRNNCell, theirs, nonlinearity="sigmoid"))


def test_scrn(run, in_torch):
    """torchrecurrent learns alpha, and feeds an output y = tanh(U h + V s) back in the place of h.

    In the paper y is what the network predicts, and h is fed back. With U = 1 and V = 0, y is tanh(h).
    """
    [hidden, context], weights = run("scrn", alpha=0.7)
    theirs = {
        "weight_ih": np.concatenate([weights["context_input_kernel"], weights["input_kernel"]]),
        "weight_hh": np.concatenate([weights["recurrent_kernel"], np.eye(UNITS)]),
        "weight_ch": np.concatenate([weights["context_kernel"], np.zeros((UNITS, UNITS))]),
        "bias_hh": np.concatenate([weights["bias"], np.zeros(UNITS)]),
        "alpha": np.float64(0.7),
    }
    assert_close([np.tanh(hidden), context], in_torch(torchrecurrent.SCRNCell, theirs))


def test_ugrnn(run, in_torch):
    new_states, weights = run("ugrnn")
    candidate_first = {
        name: np.concatenate(np.split(weight, 2)[::-1]) for name, weight in fused(weights).items()
    }
    assert_close(new_states, in_torch(torchrecurrent.UGRNNCell, candidate_first))


def test_ran(run, in_torch):
    new_states, weights = run("ran")
    content_first = np.roll(weights["input_kernel"], UNITS, axis=0)
    theirs = {**fused(weights), "weight_ih": content_first}
    assert_close(new_states, in_torch(torchrecurrent.RANCell, theirs))


def test_minimal_rnn(run, in_torch):
    new_states, weights = run("minimal_rnn")
    latent_bias, update_bias = np.split(weights["bias"], 2)
    theirs = {
        **fused(weights),
        "weight_mm": weights["latent_kernel"],
        "bias_ih": latent_bias,
        "bias_hh": update_bias,
    }
    assert_close(new_states, in_torch(torchrecurrent.MinimalRNNCell, theirs))
