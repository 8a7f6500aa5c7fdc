"""Every cell gives the same numbers however it is run, and they are those of its equations in NumPy."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest
import tensorflow as tf
from cases import BATCH, MASK, TIME, assert_close, in_keras, random_values, zero_states
from oracles import ORACLES, difference_along, run, weights_of

import zoo.cells
from zoo.cells import CELLS, Cell

DIRECTIONS = pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
MASKS = {"unmasked": None, "masked": MASK}
# Training keeps what the fast backward pass needs, or recomputes it, in loops of their own.
LOOPS = {"inference": (False, 0), "training": (True, 0), "recomputing": (True, 3)}


def test_every_cell_has_a_name_and_an_oracle():
    for module in pkgutil.iter_modules(zoo.cells.__path__, "zoo.cells."):
        importlib.import_module(module.name)
    assert leaves(Cell) <= set(CELLS.values())
    assert set(CELLS) == set(ORACLES)


def leaves(cell_class) -> set[type]:
    """The classes of the zoo that no other derives from."""
    derived = [kind for kind in cell_class.__subclasses__() if kind.__module__.startswith("zoo.cells.")]
    return set().union(*map(leaves, derived)) if derived else {cell_class}


@DIRECTIONS
def test_sequence_is_the_equations_step_by_step(case, go_backwards):
    layer = case.layer(go_backwards=go_backwards)
    inputs, states = random_values(layer.cell)
    for masked, mask in MASKS.items():
        expected = case.in_numpy(layer, inputs, states, mask)
        in_kerass_loop = in_keras(layer)(inputs, initial_state=states, mask=mask)
        assert_close(in_kerass_loop, expected, message=f"keras.layers.RNN {masked}")
        for loop, (training, layer.recompute_every) in LOOPS.items():
            actual = layer(inputs, initial_state=states, mask=mask, training=training)
            assert_close(actual, expected, message=f"{loop} {masked}")
            if mask is not None:
                passed_on = [state[4] for state in actual[1:]]
                np.testing.assert_array_equal(actual[0][4], np.zeros(actual[0][4].shape))
                assert_close(passed_on, [state[4] for state in states], 0, f"{loop}, all-masked row")


def test_states_start_at_zero(case):
    layer = case.layer()
    inputs, _ = random_values(layer.cell)
    initial = layer.cell.get_initial_state(BATCH)
    assert_close(initial, zero_states(layer.cell), 0)
    assert_close(layer(inputs), case.in_numpy(layer, inputs, zero_states(layer.cell)))


@DIRECTIONS
def test_a_row_alone_without_padding_is_the_same(case, go_backwards):
    layer = case.layer(go_backwards=go_backwards)
    inputs, states = random_values(layer.cell)
    batched = layer(inputs, initial_state=states, mask=MASK)
    for row in range(BATCH):
        alone = inputs[row : row + 1, MASK[row]]
        outputs, *final = layer(alone, initial_state=[state[row : row + 1] for state in states])
        assert_close(final, [state[row : row + 1] for state in batched[1:]], message=f"states of row {row}")
        # Outputs are in the order of their making.
        made = MASK[row][::-1] if go_backwards else MASK[row]
        assert_close([outputs[0]], [batched[0][row][made]], message=f"outputs of row {row}")


def test_step_by_step_is_the_sequence(case):
    layer = case.layer()
    inputs, states = random_values(layer.cell)
    expected = layer(inputs, initial_state=states)
    states = [tf.constant(state) for state in states]
    for now in range(TIME):
        output, states = layer.cell(tf.constant(inputs[:, now]), states)
        assert_close([output], [expected[0][:, now]], message=f"step {now}")
    assert_close(states, expected[1:], message="final states")


def read_out(values):
    """A loss in which every output and every state has a weight of its own."""
    random = np.random.default_rng(2)
    parts = [value * random.normal(size=value.shape) for value in values]
    return sum(part.sum() if isinstance(part, np.ndarray) else tf.reduce_sum(part) for part in parts)


def gradients(layer, inputs, states, mask, training):
    inputs, states = tf.constant(inputs), [tf.constant(state) for state in states]
    weights = [weight.value for weight in layer.cell.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([inputs, *states])
        loss = read_out(layer(inputs, initial_state=states, mask=mask, training=training))
    return tape.gradient(loss, [inputs, *states, *weights])


@pytest.mark.parametrize(
    ("mask", "go_backwards"), [(None, False), (MASK, True)], ids=["unmasked", "masked backwards"]
)
@pytest.mark.slow
def test_gradients_are_finite_differences_of_the_equations(case, mask, go_backwards):
    layer = case.layer(go_backwards=go_backwards)
    inputs, states = random_values(layer.cell)
    weights = weights_of(layer.cell)
    variables = {variable.name: weights[variable.name] for variable in layer.cell.trainable_variables}
    named = {"inputs": inputs, **dict(zip(layer.cell.STATES, states, strict=True)), **variables}

    def loss():
        outputs, _, final_states = run(case.step(weights), inputs, states, mask, go_backwards)
        return read_out([outputs, *final_states])

    random = np.random.default_rng(3)
    directions = [random.normal(size=array.shape) for array in named.values()]
    expected = [
        difference_along(direction, loss, array)
        for direction, array in zip(directions, named.values(), strict=True)
    ]
    for loop, (training, layer.recompute_every) in LOOPS.items():
        found = gradients(layer, inputs, states, mask, training)
        for name, gradient, direction, slope in zip(named, found, directions, expected, strict=True):
            assert gradient is not None, f"{loop}: no gradient of {name}"
            assert gradient.shape == direction.shape, f"{loop}: {name}"
            actual = np.sum(gradient * direction)
            np.testing.assert_allclose(actual, slope, rtol=1e-6, atol=1e-6, err_msg=f"{loop}: {name}")
