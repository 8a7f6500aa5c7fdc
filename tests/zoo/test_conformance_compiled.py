"""Every cell gives in graphs, compiled by XLA, saved and at lower precision what it gives in Python.

Traces and compilations take most of a test's time, so each is shared by several checks, and options
of a cell that change its equations are left to the tests in Python.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import BATCH, FEATURES, MASK, TIME, Case, assert_close, random_values
from oracles import FAMILIES

from zoo.cells import CELLS

POLICIES = {"mixed_bfloat16": (tf.bfloat16, 0.05), "mixed_float16": (tf.float16, 0.01)}


# Traces and compilations of the others take minutes: `make test-slow` makes them.
SOON = (
    "elman",
    "scrn",
    "lstm",
    "projected_lstm",
    "slstm",
    "gru",
    "gru_reset_after",
    "min_gru",
    "qrnn",
    "mlstm",
)
COMPILED = [pytest.param(name, marks=() if name in SOON else pytest.mark.slow) for name in CELLS]


@pytest.fixture(params=CELLS)
def case(request) -> Case:
    return Case.named(request.param)


def run_and_differentiate(layer, inputs, states, mask):
    """Training under a mask, its gradients, and inference without a mask."""
    with tf.GradientTape() as tape:
        tape.watch([inputs, *states])
        trained = layer(inputs, initial_state=states, mask=mask, training=True)
        loss = sum(tf.reduce_sum(tf.cast(value, tf.float32) ** 2) for value in trained)
    sources = [inputs, *states, *(weight.value for weight in layer.cell.trainable_variables)]
    gradients = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return {"training": trained, "gradients": gradients, "inference": layer(inputs, initial_state=states)}


def tensors(layer, batch=BATCH, time=TIME, dtype="float64"):
    inputs, states = random_values(layer.cell, batch, time)
    mask = np.resize(MASK, (batch, time))
    return tf.constant(inputs, dtype), [tf.constant(state, dtype) for state in states], tf.constant(mask)


def assert_same(actual, expected, tolerance=1e-10):
    for part, values in expected.items():
        assert_close(actual[part], values, tolerance, part)


@pytest.mark.parametrize("case", COMPILED, indirect=True)
@pytest.mark.slow
def test_one_graph_serves_all_shapes(case):
    layer = case.layer()
    spec = [
        tf.TensorSpec([None, None, FEATURES], tf.float64),
        [tf.TensorSpec([None, size], tf.float64) for size in layer.cell.state_size],
        tf.TensorSpec([None, None], tf.bool),
    ]
    graph = tf.function(lambda *values: run_and_differentiate(layer, *values), input_signature=spec)
    for batch, time in ((BATCH, TIME), (1, 6)):
        values = tensors(layer, batch, time)
        assert_same(graph(*values), run_and_differentiate(layer, *values))

    inputs, states, mask = tensors(layer, time=0)
    nothing = np.zeros((BATCH, 0, layer.cell.output_size))
    for result in (graph(inputs, states, mask), run_and_differentiate(layer, inputs, states, mask)):
        for loop in ("training", "inference"):
            assert_close(result[loop], [nothing, *states], 0, f"{loop} without steps")
        d_inputs, *d_others = result["gradients"]
        assert d_inputs.shape == inputs.shape
        no_gradients = [np.zeros(weight.shape) for weight in layer.cell.trainable_variables]
        assert_close(d_others, [*(2 * state for state in states), *no_gradients], 1e-6, "without steps")


@pytest.mark.parametrize("case", COMPILED, indirect=True)
@pytest.mark.slow
def test_compiled_by_xla_is_the_same(case):
    layer = case.layer(go_backwards=True)
    values = tensors(layer)
    compiled = tf.function(lambda *values: run_and_differentiate(layer, *values), jit_compile=True)
    assert_same(compiled(*values), run_and_differentiate(layer, *values))


def test_single_precision(case):
    layer = case.layer("float32")
    inputs, states = random_values(layer.cell)
    actual = layer(inputs.astype("float32"), initial_state=states, mask=MASK)
    assert {value.dtype for value in actual} == {tf.float32}
    assert_close(actual, case.in_numpy(layer, inputs, states, MASK), 2e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.slow
def test_half_precision_with_states_in_single(case, policy):
    dtype, tolerance = POLICIES[policy]
    exact, layer = case.layer("float32"), case.layer(policy)
    values = tensors(layer, dtype="float32")
    expected, actual = run_and_differentiate(exact, *values), run_and_differentiate(layer, *values)
    for loop in ("training", "inference"):
        outputs, *states = actual[loop]
        assert outputs.dtype == dtype
        assert {state.dtype for state in states} == {tf.float32}
        assert_close([tf.cast(outputs, tf.float32), *states], expected[loop], tolerance, loop)
    for ours, exact_gradient in zip(actual["gradients"], expected["gradients"], strict=True):
        assert ours.dtype == tf.float32
        norm = np.linalg.norm(exact_gradient)
        assert np.linalg.norm(ours - exact_gradient) <= 5 * tolerance * (norm + 0.1)


def test_keras_file_is_the_same(case, tmp_path):
    layer = case.layer()
    inputs = keras.Input((None, FEATURES), dtype="float64")
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    sequences, _ = random_values(layer.cell)
    assert_close(copy(sequences), model(sequences), 0)
    assert json.dumps(copy.get_config()) == json.dumps(model.get_config())


@pytest.mark.parametrize(
    "family", [pytest.param(family, id=family.__name__) for family in FAMILIES if family.ORACLES]
)
@pytest.mark.slow
def test_saved_model_of_a_family_is_the_same(family, tmp_path):
    """One file for all its cells; in a graph session, as the stock server loads it, and in Python."""
    layers = {name: Case.named(name).layer() for name in family.ORACLES}
    write_saved_model(layers, tmp_path)
    in_python = tf.saved_model.load(str(tmp_path)).signatures
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path)).signature_def
        in_session = {name: session_call(session, signatures[name]) for name in layers}
        from_session = {
            (name, shape): in_session[name](signature_inputs(layer, *shape))
            for name, layer in layers.items()
            for shape in ((BATCH, TIME), (1, 6))
        }
    for (name, shape), actual in from_session.items():
        feed = signature_inputs(layers[name], *shape)
        expected = as_signature(layers[name])(**feed)
        for key, values in in_python[name](**feed).items():
            assert_close([values, actual[key]], [expected[key]] * 2, 1e-10, f"{name}: {key} of {shape}")


def write_saved_model(layers, folder):
    archive = keras.export.ExportArchive()
    for name, layer in layers.items():
        archive.track(layer)
        spec = [
            tf.TensorSpec([None, None, FEATURES], tf.float64, "inputs"),
            tf.TensorSpec([None, sum(layer.cell.state_size)], tf.float64, "states"),
            tf.TensorSpec([None, None], tf.bool, "mask"),
        ]
        archive.add_endpoint(name, as_signature(layer), input_signature=spec)
    archive.write_out(str(folder), verbose=False)


def as_signature(layer):
    def serve(inputs, states, mask):
        states = tf.split(states, layer.cell.state_size, axis=-1)
        outputs, *states = layer(inputs, initial_state=states, mask=mask)
        return {"outputs": outputs, "states": tf.concat(states, axis=-1)}

    return serve


def signature_inputs(layer, batch, time):
    inputs, states = random_values(layer.cell, batch, time)
    mask = np.resize(MASK, (batch, time))
    return {"inputs": inputs, "states": np.concatenate(states, axis=-1), "mask": mask}


def session_call(session, signature):
    def call(feed):
        outputs = {key: tensor.name for key, tensor in signature.outputs.items()}
        return session.run(outputs, {signature.inputs[key].name: value for key, value in feed.items()})

    return call
