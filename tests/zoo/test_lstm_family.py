"""How cells of the LSTM family start, what they do at their limits, and what they refuse."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.layer_options import parse_options
from zoo.cells import CELLS, LSTM, LSTM1997, SLSTM, HyperLSTM, MogrifierLSTM
from zoo.cells.blocks import block_diagonal
from zoo.cells.lstm import ForgetGated
from zoo.recurrence import Recurrent

FEATURES, UNITS = 3, 4

FORGET_GATED = pytest.mark.parametrize(
    "name", [name for name, cell in CELLS.items() if issubclass(cell, ForgetGated)]
)


def built(cell):
    cell.build((None, FEATURES))
    return cell


def biases(cell) -> dict[str, np.ndarray]:
    """The initial biases by gate."""
    return dict(zip(cell.GATES, np.split(built(cell).bias.numpy(), len(cell.GATES)), strict=True))


@FORGET_GATED
@pytest.mark.parametrize("forget_bias", [0.0, 1.0, -2.5])
def test_only_the_forget_gate_starts_at_the_forget_bias(name, forget_bias):
    for gate, bias in biases(CELLS[name](UNITS, forget_bias=forget_bias)).items():
        np.testing.assert_array_equal(bias, np.full(UNITS, forget_bias if gate == "forget" else 0.0))


@FORGET_GATED
def test_chrono_initialization_by_flag(name):
    """exp(b_f), about the steps that a memory lasts at first, is uniform from 1 to T_max - 1."""
    units = 4000
    cell = CELLS[name](units, seed=1, **parse_options("cell_options", "chrono=784"))
    start = cell.initialize_bias((len(cell.GATES) * units,), dtype="float32").numpy()
    by_gate = dict(zip(cell.GATES, np.split(start, len(cell.GATES)), strict=True))
    forget = by_gate.pop("forget")
    times = np.exp(forget)
    assert times.min() >= 1
    assert times.max() <= 783
    quarters = np.array([0.25, 0.5, 0.75])
    np.testing.assert_allclose(np.quantile(times, quarters), 1 + 782 * quarters, rtol=0.1)
    if "input" in by_gate:
        np.testing.assert_array_equal(by_gate.pop("input"), -forget)
    for bias in by_gate.values():
        np.testing.assert_array_equal(bias, np.zeros(units))


def test_chrono_biases_are_drawn_from_the_seed():
    first, again, other = (biases(LSTM(UNITS, chrono=50, seed=seed))["forget"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("chrono", [1, -3])
def test_chrono_of_less_than_two_steps_is_refused(chrono):
    with pytest.raises(ValueError, match="chrono must be 0 or at least 2"):
        LSTM(UNITS, chrono=chrono)


@FORGET_GATED
def test_options_survive_a_round_trip(name):
    cell = CELLS[name](UNITS, chrono=50, forget_bias=0.25)
    config = CELLS[name].from_config(cell.get_config()).get_config()
    assert (config["chrono"], config["forget_bias"]) == (50, 0.25)
    assert config == cell.get_config()


def test_weight_dropped_lstm_drops_half_of_the_recurrent_weights_in_training():
    cell = built(CELLS["weight_dropped_lstm"](50, seed=1))
    plain, dropped = (cell.given_weights(training).weights["recurrent_kernel"] for training in (False, True))
    assert list(cell.given_weights(True).weights) == ["recurrent_kernel"]
    kept = dropped.numpy() != 0
    assert 0.48 < kept.mean() < 0.52
    np.testing.assert_allclose(dropped.numpy()[kept], 2 * plain.numpy()[kept], rtol=1e-6)


def test_without_a_forget_gate_nothing_is_forgotten():
    cell = built(LSTM1997(UNITS, bias_initializer=keras.initializers.Constant(-100.0)))
    memory = tf.random.normal([2, UNITS])
    states = [tf.zeros([2, UNITS]), memory]
    for _ in range(20):
        _, states = cell(tf.ones([2, FEATURES]), states)
    np.testing.assert_array_equal(states[1], memory)


def test_mogrifier_without_rounds_is_lstm(randomize):
    mogrifier = randomize(built(MogrifierLSTM(UNITS, rounds=0, dtype="float64")))
    lstm = built(LSTM(UNITS, dtype="float64"))
    lstm.set_weights(mogrifier.get_weights())
    random = np.random.default_rng(1)
    inputs, states = random.normal(size=(2, FEATURES)), list(random.normal(size=(2, 2, UNITS)))
    np.testing.assert_allclose(mogrifier(inputs, states)[0], lstm(inputs, states)[0], rtol=1e-12)


def test_hyper_lstm_starts_as_an_lstm_of_a_tenth_of_its_weights():
    hyper = built(HyperLSTM(UNITS, hyper_units=5, hyper_embedding=3, dtype="float64"))
    lstm = built(LSTM(UNITS, dtype="float64"))
    input_kernel, recurrent_kernel, bias = hyper.get_weights()[:3]
    lstm.set_weights([0.1 * input_kernel, 0.1 * recurrent_kernel, bias])
    random = np.random.default_rng(1)
    inputs, states = random.normal(size=(2, FEATURES)), list(random.normal(size=(2, 2, UNITS)))
    hyper_states = list(random.normal(size=(2, 2, 5)))
    # 0.1 / 3 is rounded to single precision.
    np.testing.assert_allclose(hyper(inputs, states + hyper_states)[0], lstm(inputs, states)[0], rtol=1e-6)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_exponential_gates_stay_finite(forget_gate, scale):
    """c / n averages candidates, so that |h| < 1 even where exp(scale) is beyond the range of floats."""
    cell = SLSTM(UNITS, forget_gate=forget_gate, kernel_initializer=keras.initializers.RandomNormal(0, scale))
    layer = Recurrent(cell, return_sequences=True)
    inputs = tf.random.stateless_normal([2, 50, FEATURES], seed=[1, 2])
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training=True)
        loss = tf.reduce_sum(outputs**2)
    assert np.abs(outputs).max() <= 1
    for gradient in tape.gradient(loss, [weight.value for weight in layer.trainable_variables]):
        assert np.isfinite(gradient).all()


def test_block_diagonal_kernel():
    """Blocks of [2, 1] and of two repeats: each part of what is multiplied has its own columns in both."""
    compact = tf.constant([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    expected = [[1, 0, 3, 0], [5, 0, 7, 0], [0, 2, 0, 4], [0, 6, 0, 8]]
    np.testing.assert_array_equal(block_diagonal(compact, blocks=2, repeats=2), expected)


def test_a_head_starts_orthogonal_in_each_gate():
    kernel = built(SLSTM(6, heads=2)).recurrent_kernel.numpy()
    assert kernel.shape == (3, 24)
    blocks = np.split(kernel, 8, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(3), atol=1e-5)
    assert len({block.tobytes() for block in blocks}) == 8


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slstm", {"zoneout": 0.1}, "SLSTM has no zoneout"),
        ("slstm", {"heads": 3}, "units must be a multiple of heads, got 4 and 3"),
        ("slstm", {"forget_gate": "tanh"}, "forget_gate must be one of sigmoid, exponential"),
        ("projected_lstm", {"projection": 0}, "projection must be at least 1"),
        ("mogrifier_lstm", {"rounds": -1}, "rounds and rank must be at least 0"),
        ("hyper_lstm", {"hyper_units": 0}, "hyper_units and hyper_embedding must be at least 1"),
    ],
)
def test_options_that_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        CELLS[name](4, **options)
