"""Dropout of recurrent connections and weights, and zoneout, against the equations with the drawn masks."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import ORACLES, difference_along, weights_of

from zoo.cells import CELLS
from zoo.recurrence import Recurrent

BATCH, TIME, FEATURES, UNITS = 3, 4, 2, 3
RATE = 0.4
REGULARIZERS = ("recurrent_dropout", "weight_drop", "zoneout")
KINDS = ("elman", "lstm")

regularizers = pytest.mark.parametrize("regularizer", REGULARIZERS)
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def make(randomize) -> Callable:
    """A layer in double precision with random weights; those of one seed draw the same masks."""

    def make(kind, regularizer=None, seed=5, rate=RATE, units=UNITS, **options) -> Recurrent:
        share = {regularizer: rate} if regularizer else {}
        cell = CELLS[kind](units, seed=seed, dtype="float64", **share)
        options = {"return_sequences": True, "return_state": True, **options}
        layer = Recurrent(cell, dtype="float64", **options)
        layer.build((None, None, FEATURES))
        randomize(cell)
        return layer

    return make


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def random_states(layer):
    random = np.random.default_rng(2)
    return [random.normal(size=(BATCH, size)) for size in layer.cell.state_size]


class Drawn:
    """What a layer's next training call will drop, and the equations with it, in NumPy."""

    def __init__(self, layer: Recurrent, kind: str):
        cell = layer.cell
        self.step = ORACLES[kind]
        self.weights = weights_of(cell)
        self.zoned = [mask.numpy() for mask in cell.zoned([TIME, BATCH])]
        given = cell.given_weights(training=True, batch_size=BATCH)
        self.mask = given.masks["recurrent_kernel"].numpy() if given.masks else 1.0  # [batch, units]
        self.kernel_mask = given.weights["recurrent_kernel"].numpy() / self.weights["recurrent_kernel"]

    def run(self, inputs, states):
        """[outputs, *final states]."""
        kernel = self.weights["recurrent_kernel"] * self.kernel_mask
        weights, outputs = {**self.weights, "recurrent_kernel": kernel}, []
        for now in range(inputs.shape[1]):
            hidden, *others = states
            _, new_states = self.step(weights, inputs[:, now], [hidden * self.mask, *others])
            if self.zoned:
                kept = [mask[now] for mask in self.zoned]
                new_states = [np.where(*both) for both in zip(kept, states, new_states, strict=True)]
            states = new_states
            outputs.append(states[0])
        return [np.stack(outputs, axis=1), *states]


def assert_close(actual, expected, tolerance=1e-10):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@kinds
@regularizers
def test_training_drops_what_was_drawn_at_all_steps(make, inputs, kind, regularizer):
    layer = make(kind, regularizer)
    states = random_states(layer)
    drawn = Drawn(make(kind, regularizer), kind)
    expected = drawn.run(inputs, states)
    assert_close(layer(inputs, initial_state=states, training=True), expected)
    plain = make(kind)(inputs, initial_state=states)
    assert np.abs(plain[0] - expected[0]).max() > 0.01


@kinds
@regularizers
@pytest.mark.parametrize("recompute_every", [0, 2])
def test_gradients_are_finite_differences_with_the_drawn_masks(
    make, inputs, kind, regularizer, recompute_every
):
    layer = make(kind, regularizer, recompute_every=recompute_every)
    states = random_states(layer)
    drawn = Drawn(make(kind, regularizer), kind)
    readout = np.random.default_rng(3).normal(size=(BATCH, TIME, UNITS))

    def loss():
        outputs, *final_states = drawn.run(inputs, states)
        return np.sum(outputs * readout) + np.sum(final_states[-1] ** 2)

    arrays = [inputs, *states, *(drawn.weights[weight.name] for weight in layer.cell.trainable_variables)]
    directions = [np.random.default_rng(4).normal(size=array.shape) for array in arrays]
    expected = [
        difference_along(direction, loss, array) for direction, array in zip(directions, arrays, strict=True)
    ]
    given = [tf.constant(inputs), *(tf.constant(state) for state in states)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs, *final_states = layer(given[0], initial_state=given[1:], training=True)
        value = tf.reduce_sum(outputs * readout) + tf.reduce_sum(final_states[-1] ** 2)
    weights = [weight.value for weight in layer.cell.trainable_variables]
    gradients = tape.gradient(value, [*given, *weights])
    along = [np.sum(gradient * direction) for gradient, direction in zip(gradients, directions, strict=True)]
    np.testing.assert_allclose(along, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["elman", "lstm", "gru"])
@pytest.mark.parametrize("regularizer", ["recurrent_dropout", "weight_drop"])
def test_nothing_is_dropped_outside_training(make, inputs, kind, regularizer):
    layer, plain = make(kind, regularizer), make(kind)
    assert_close(layer(inputs), plain(inputs), 0)
    assert_close(layer(inputs, training=False), plain(inputs), 0)


@kinds
def test_outside_training_zoneout_is_its_expectation(make, inputs, kind):
    layer = make(kind, "zoneout")
    states, outputs = random_states(layer), []
    initial_states = states
    for now in range(TIME):
        _, new_states = ORACLES[kind](weights_of(layer.cell), inputs[:, now], states)
        states = [RATE * old + (1 - RATE) * new for old, new in zip(states, new_states, strict=True)]
        outputs.append(states[0])
    expected = [np.stack(outputs, axis=1), *states]
    assert_close(layer(inputs, initial_state=initial_states), expected)


@pytest.mark.parametrize("kind", ["elman", "lstm", "gru"])
def test_zoneout_step_by_step_and_in_keras_is_the_sequence(make, inputs, kind):
    layer = make(kind, "zoneout")
    states = random_states(layer)
    expected = layer(inputs, initial_state=states)
    reference = keras.layers.RNN(layer.cell, return_sequences=True, return_state=True, dtype="float64")
    assert_close(reference(inputs, initial_state=states), expected)
    outputs = []
    for now in range(TIME):
        output, states = layer.cell(tf.constant(inputs[:, now]), states)
        outputs.append(output)
    assert_close([tf.stack(outputs, axis=1), *states], expected)


@regularizers
def test_shares_and_scales(make, regularizer):
    """Kept values are scaled so that the expectation stays; what zoneout keeps is not."""
    units, batch = 30, 200
    cell = make("elman", regularizer, units=units, rate=0.25).cell
    given = cell.given_weights(training=True, batch_size=batch)
    if regularizer == "zoneout":
        [mask] = cell.zoned([3, batch])
        assert mask.dtype == tf.bool
        assert np.mean(mask) == pytest.approx(0.25, abs=0.02)
        assert (mask[0] != mask[1]).numpy().any()
        return
    kernel_mask = given.weights["recurrent_kernel"] / cell.recurrent_kernel
    mask = given.masks["recurrent_kernel"] if regularizer == "recurrent_dropout" else kernel_mask
    assert mask.shape == ((batch, units) if regularizer == "recurrent_dropout" else (units, units))
    np.testing.assert_allclose(np.unique(np.round(mask, 10)), [0, 4 / 3], rtol=1e-9)
    assert np.mean(mask == 0) == pytest.approx(0.25, abs=0.06)  # four standard deviations of 900 draws


@kinds
@regularizers
def test_each_call_draws_anew_unless_seeded_alike(make, inputs, kind, regularizer):
    layer, same, other = (make(kind, regularizer, seed=seed) for seed in (5, 5, 6))
    first, second = (layer(inputs, training=True)[0] for _ in range(2))
    assert_close([same(inputs, training=True)[0]], [first], 0)
    for different in (second, other(inputs, training=True)[0]):
        assert np.abs(different - first).max() > 0.01


@kinds
def test_zoneout_leaves_masked_steps_alone(make, inputs, kind):
    layer = make(kind, "zoneout")
    mask = np.array([[True, False, True, False]] * BATCH)
    outputs, *_ = layer(inputs, mask=mask, training=True)
    np.testing.assert_array_equal(outputs[:, 1], outputs[:, 0])
    np.testing.assert_array_equal(outputs[:, 3], outputs[:, 2])


@regularizers
def test_compiled_as_not(make, inputs, regularizer):
    layer, same = make("lstm", regularizer), make("lstm", regularizer)
    compiled = tf.function(lambda values: layer(values, training=True))(tf.constant(inputs))
    assert_close(compiled, same(inputs, training=True))


@regularizers
@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range(regularizer, rate):
    with pytest.raises(ValueError, match=f"{regularizer} must be at least 0 and below 1, got"):
        CELLS["lstm"](2, **{regularizer: rate})


@pytest.mark.parametrize("regularizer", ["recurrent_dropout", "weight_drop"])
def test_cells_without_recurrent_kernels_say_so(make, regularizer):
    with pytest.raises(ValueError, match="IndRNN has no recurrent kernel to drop anything of; use zoneout"):
        make("indrnn", regularizer)(np.zeros((BATCH, TIME, FEATURES)), training=True)
