"""Converted layers against those of Keras and PyTorch, and the way there and back."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import safetensors.torch
import torch

from zoo.cells import CELLS
from zoo.convert import from_keras, from_torch, load_torch, save_torch, to_keras, to_torch
from zoo.recurrence import Recurrent

BATCH, TIME, FEATURES, UNITS = 4, 3, 3, 5

# Cells that PyTorch has: options of the zoo's cell, PyTorch's module and its options.
TORCH = {
    "elman_tanh": ("elman", {"activation": "tanh"}, torch.nn.RNN, {}),
    "elman_relu": ("elman", {"activation": "relu"}, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": ("lstm", {}, torch.nn.LSTM, {}),
    "projected_lstm": ("projected_lstm", {"projection": 2}, torch.nn.LSTM, {"proj_size": 2}),
    "gru_reset_after": ("gru_reset_after", {}, torch.nn.GRU, {}),
}
KERAS = {
    "elman_tanh": ("elman", {"activation": "tanh"}, keras.layers.SimpleRNN, {}),
    "elman_sigmoid": ("elman", {}, keras.layers.SimpleRNN, {"activation": "sigmoid"}),
    "lstm": ("lstm", {}, keras.layers.LSTM, {}),
    "gru": ("gru", {}, keras.layers.GRU, {"reset_after": False}),
    "gru_reset_after": ("gru_reset_after", {}, keras.layers.GRU, {}),
}
STACKS = pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (2, 1), (2, 2)])
OUTPUTS = pytest.mark.parametrize(
    ("layers", "directions", "dtype"),
    [(1, 1, "float64"), (1, 2, "float64"), (2, 1, "float64"), (2, 2, "float64"), (2, 2, "float32")],
)
TOLERANCES = {"float32": 1e-6, "float64": 1e-13, "bfloat16": 0.02}


@pytest.fixture
def inputs():
    return np.random.default_rng(5).normal(size=(BATCH, TIME, FEATURES))


def run(layers, inputs, dtype):
    for layer in layers:
        inputs = layer(inputs.astype(dtype) if isinstance(inputs, np.ndarray) else inputs)
    return np.asarray(inputs)


def torch_module(kind, layers, directions, dtype="float32", **more):
    _, _, module, options = TORCH[kind]
    torch.manual_seed(7)
    return module(
        FEATURES,
        UNITS,
        layers,
        batch_first=True,
        bidirectional=directions == 2,
        dtype=getattr(torch, dtype),
        **options,
        **more,
    )


def torch_layers(kind, state, **options):
    nonlinearity = TORCH[kind][3].get("nonlinearity", "tanh")
    return from_torch(state, nonlinearity=nonlinearity, **options)


def torch_outputs(module, inputs, dtype):
    with torch.no_grad():
        return module(torch.from_numpy(inputs.astype(dtype)))[0].numpy()


def keras_layers(kind, layers, directions, randomize, dtype="float32", **more):
    """Layers of Keras, built, with values of their own in all weights."""
    _, _, make, options = KERAS[kind]
    made, features = [], FEATURES
    for index in range(layers):
        layer = make(UNITS, return_sequences=True, dtype=dtype, **options, **more)
        if directions == 2:
            layer = keras.layers.Bidirectional(layer, dtype=dtype)
        layer.build((None, None, features))
        made.append(randomize(layer, seed=index))
        features = UNITS * directions
    return made


def zoo_layers(cell, options, layers, directions, randomize, dtype="float32"):
    """Layers of the zoo, built, with zeros of both signs among their weights."""
    made, features = [], FEATURES
    for index in range(layers):
        layer = Recurrent(CELLS[cell](UNITS, dtype=dtype, **options), return_sequences=True, dtype=dtype)
        output_size = layer.cell.output_size
        if directions == 2:
            layer = keras.layers.Bidirectional(layer, dtype=dtype)
        layer.build((None, None, features))
        randomize(layer, seed=index)
        for weight in layer.weights:
            values = weight.numpy()
            values.flat[:2] = 0.0, -0.0
            values.flat[-2:] = -0.0, 0.0
            weight.assign(values)
        made.append(layer)
        features = output_size * directions
    return made


def arrays(layers):
    return [weight.numpy() for layer in layers for weight in layer.weights]


def assert_same_bytes(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


@OUTPUTS
@pytest.mark.parametrize("kind", TORCH)
def test_layers_from_pytorch_give_its_outputs(kind, layers, directions, dtype, inputs):
    module = torch_module(kind, layers, directions, dtype)
    converted = torch_layers(kind, module.state_dict())
    assert len(converted) == layers
    expected = torch_outputs(module, inputs, dtype)
    np.testing.assert_allclose(run(converted, inputs, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


@OUTPUTS
@pytest.mark.parametrize("kind", TORCH)
def test_pytorch_gives_the_outputs_of_layers(kind, layers, directions, dtype, inputs, randomize):
    cell, options, *_ = TORCH[kind]
    ours = zoo_layers(cell, options, layers, directions, randomize, dtype)
    module = torch_module(kind, layers, directions, dtype)
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in to_torch(ours).items()})
    expected = run(ours, inputs, dtype)
    np.testing.assert_allclose(torch_outputs(module, inputs, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


@STACKS
@pytest.mark.parametrize("kind", TORCH)
def test_to_pytorch_and_back_gives_the_same_bytes(kind, layers, directions, randomize):
    cell, options, *_ = TORCH[kind]
    ours = zoo_layers(cell, options, layers, directions, randomize)
    state = to_torch(ours)
    back = torch_layers(kind, state)
    assert_same_bytes(arrays(back), arrays(ours))
    again = to_torch(back)
    assert list(again) == list(state)
    assert_same_bytes(again.values(), state.values())


@pytest.mark.parametrize("kind", TORCH)
def test_of_pytorchs_two_biases_the_sum_is_kept(kind):
    state = {name: tensor.numpy() for name, tensor in torch_module(kind, 2, 2).state_dict().items()}
    back = to_torch(torch_layers(kind, state))
    assert set(back) == set(state)
    shared = 2 * UNITS if kind == "gru_reset_after" else None  # b_hn stays
    for name, tensor in state.items():
        if name.startswith("bias_ih"):
            tensor[:shared] += state[name.replace("_ih", "_hh")][:shared]
        if name.startswith("bias_hh"):
            tensor[:shared] = 0
    assert_same_bytes([back[name] for name in state], state.values())


def test_pytorchs_biases_may_be_missing(inputs):
    module = torch_module("gru_reset_after", 2, 2, bias=False)
    converted = from_torch(module.state_dict())
    expected = torch_outputs(module, inputs, "float32")
    np.testing.assert_allclose(run(converted, inputs, "float32"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_files(dtype, tmp_path, randomize):
    path = tmp_path / "model.safetensors"
    options = (
        {"recurrent_initializer": "glorot_uniform"} if dtype == "bfloat16" else {}
    )  # no orthogonal there
    layers = zoo_layers("gru_reset_after", options, 2, 2, randomize, dtype)
    save_torch(path, layers, "encoder.")
    assert_same_bytes(arrays(load_torch(path, "encoder.")), arrays(layers))
    theirs = safetensors.torch.load_file(path)
    assert set(theirs) == {f"encoder.{name}" for name in torch_module("gru_reset_after", 2, 2).state_dict()}
    assert {str(tensor.dtype) for tensor in theirs.values()} == {f"torch.{dtype}"}


def test_a_module_inside_a_model(tmp_path):
    lstm, other = torch_module("lstm", 2, 1), torch_module("gru_reset_after", 1, 1)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(torch.nn.ModuleDict({"lstm": lstm, "lstm2": other}).state_dict(), path)
    assert_same_bytes(arrays(load_torch(path, "lstm.")), arrays(from_torch(lstm.state_dict())))


@OUTPUTS
@pytest.mark.parametrize("kind", KERAS)
def test_layers_from_keras_give_its_outputs(kind, layers, directions, dtype, inputs, randomize):
    theirs = keras_layers(kind, layers, directions, randomize, dtype)
    converted = from_keras(theirs)
    expected = run(theirs, inputs, dtype)
    np.testing.assert_allclose(run(converted, inputs, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


@OUTPUTS
@pytest.mark.parametrize("kind", KERAS)
def test_layers_to_keras_give_our_outputs(kind, layers, directions, dtype, inputs, randomize):
    cell, options, *_ = KERAS[kind]
    ours = zoo_layers(cell, options, layers, directions, randomize, dtype)
    converted = to_keras(ours)
    expected = run(ours, inputs, dtype)
    np.testing.assert_allclose(run(converted, inputs, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


@STACKS
@pytest.mark.parametrize("kind", KERAS)
def test_to_keras_and_back_gives_the_same_bytes(kind, layers, directions, randomize):
    cell, options, *_ = KERAS[kind]
    ours = zoo_layers(cell, options, layers, directions, randomize)
    theirs = to_keras(ours)
    back = from_keras(theirs)
    assert_same_bytes(arrays(back), arrays(ours))
    assert_same_bytes(arrays(to_keras(back)), arrays(theirs))


@pytest.mark.parametrize("kind", KERAS)
def test_keras_to_us_and_back_gives_the_same_bytes(kind, randomize):
    theirs = keras_layers(kind, 2, 2, randomize)
    for layer in theirs if kind == "gru_reset_after" else []:
        for cell in (layer.forward_layer.cell, layer.backward_layer.cell):
            bias = cell.bias.numpy()
            bias[1, : 2 * UNITS] = 0  # what counts in the sum only
            cell.bias.assign(bias)
    assert_same_bytes(arrays(to_keras(from_keras(theirs))), arrays(theirs))


def test_from_keras_to_pytorch(randomize, inputs):
    theirs = keras_layers("gru_reset_after", 2, 2, randomize)
    module = torch_module("gru_reset_after", 2, 2)
    state = to_torch(from_keras(theirs))
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    expected = run(theirs, inputs, "float32")
    np.testing.assert_allclose(torch_outputs(module, inputs, "float32"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KERAS)
def test_layers_of_keras_without_biases(kind, inputs, randomize):
    theirs = keras_layers(kind, 1, 1, randomize, use_bias=False)
    expected = run(theirs, inputs, "float32")
    np.testing.assert_allclose(run(from_keras(theirs), inputs, "float32"), expected, rtol=0, atol=1e-6)


def test_a_sequential_of_keras(inputs, randomize):
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), merge_mode="ave"),
            keras.layers.GRU(4),
        ]
    )
    converted = keras.Sequential([keras.Input((None, FEATURES)), *from_keras(randomize(model))])
    expected = np.asarray(model(inputs))
    np.testing.assert_allclose(converted(inputs), expected, rtol=0, atol=1e-6)
    back = keras.Sequential([keras.Input((None, FEATURES)), *to_keras(converted)])
    np.testing.assert_allclose(back(inputs), expected, rtol=0, atol=1e-6)


OPTIONS = [
    {"return_sequences": False},
    {"return_state": True},
    {"go_backwards": True},
    {"stateful": True},
    {"zero_output_for_mask": True, "return_sequences": True},
    {"name": "encoder", "dtype": "mixed_bfloat16"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_options_stay(options, inputs, randomize):
    theirs = keras.layers.LSTM(UNITS, **options)
    theirs.build((BATCH, None, FEATURES))
    randomize(theirs)
    theirs.reset_state()
    [ours] = from_keras(theirs)
    [back] = to_keras(ours)
    mask = np.arange(TIME) < np.array([[3], [2], [3], [1]])
    for _ in range(2):  # stateful layers go on
        expected = keras.tree.flatten(theirs(inputs, mask=mask))
        for layer in (ours, back):
            found = keras.tree.flatten(layer(inputs, mask=mask))
            assert [x.dtype for x in found[:1]] == [x.dtype for x in expected[:1]]
            for x, y in zip(found, expected, strict=True):
                tolerance = TOLERANCES[theirs.compute_dtype]
                np.testing.assert_allclose(np.float32(x), np.float32(y), rtol=0, atol=tolerance)
    assert ours.get_config()["name"] == back.get_config()["name"] == theirs.name


def fitting(**changes):
    """The state dict of an LSTM with other tensors in the place of some; None takes one away."""
    state = {**torch_module("lstm", 2, 2).state_dict(), **changes}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"weight_ih_l0 is missing"),
        ({"rnn.weight_ih_l0": np.zeros([4, 3])}, r"weight_ih_l0 is missing; .* rnn\.weight_ih_l0"),
        (fitting(weight_hh_l1=None), r"^weight_hh_l1 is missing"),
        (fitting(bias_hh_l0_reverse=None), r"^bias_hh_l0_reverse is missing"),
        (fitting(weight_ih_l1_reverse=None), r"^weight_ih_l1_reverse is missing"),
        (fitting(weight_ih_l0=np.zeros([19, 3])), r"^weight_ih_l0 has shape \(19, 3\), expected \(20, any\)"),
        (fitting(weight_ih_l1=np.zeros([20, 5])), r"^weight_ih_l1 has shape \(20, 5\), expected \(20, 10\)"),
        (fitting(weight_hh_l1=np.zeros([20])), r"^weight_hh_l1 has shape \(20,\), expected \(any, any\)"),
        (fitting(weight_hh_l1=np.zeros([10, 5])), r"^weight_hh_l1 has shape \(10, 5\), which is that of no"),
        (fitting(weight_hr_l0=np.zeros([5, 6])), r"^weight_hh_l0 has shape \(20, 5\), which is that of no"),
        (fitting(bias_ih_l0=np.zeros([1, 20])), r"^bias_ih_l0 has shape \(1, 20\), expected \(20\)"),
        (fitting(weight_ix_l0=np.zeros([4])), r"^weight_hh_l2 is missing; left are: weight_ix_l0"),
    ],
)
def test_tensors_at_fault_are_named(state, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_torch(state)
    assert "\n" not in str(caught.value)


def test_the_prefix_is_part_of_the_tensors_name():
    state = {f"encoder.{name}": tensor for name, tensor in fitting(weight_hh_l1=None).items()}
    with pytest.raises(ValueError, match=r"^encoder\.weight_hh_l1 is missing"):
        from_torch(state, "encoder.")


def test_unknown_nonlinearity():
    with pytest.raises(ValueError, match="nonlinearity must be one of tanh, relu; got 'sigmoid'"):
        from_torch(torch_module("elman_tanh", 1, 1).state_dict(), nonlinearity="sigmoid")


def test_a_damaged_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"model\.safetensors is no \.safetensors file, or damaged"):
        load_torch(path)
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        load_torch(tmp_path / "missing.safetensors")


def recurrent(cell, units=UNITS, features=FEATURES, options=None, **kwargs):
    layer = Recurrent(CELLS[cell](units, **(options or {})), return_sequences=True, **kwargs)
    layer.build((None, None, features))
    return layer


def both(layer, features=FEATURES, **kwargs):
    layer = keras.layers.Bidirectional(layer, **kwargs)
    layer.build((None, None, features))
    return layer


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: recurrent("gru", name="a"), r"^a: PyTorch has .*; no gru$"),
        (lambda: recurrent("elman", name="a"), r"^a: PyTorch has tanh or relu; no sigmoid$"),
        (lambda: recurrent("lstm", name="a", go_backwards=True), r"^a: .* goes? backwards"),
        (lambda: Recurrent(CELLS["lstm"](2), name="a"), r"^a has no weights yet"),
        (lambda: keras.layers.Dense(2, name="a"), r"^a: expected a Recurrent, .*; got Dense$"),
        (
            lambda: both(recurrent("lstm"), merge_mode="sum", name="a"),
            r"^a: .* merge_mode='concat' only; got 'sum'",
        ),
        (
            lambda: [recurrent("lstm", name="a"), recurrent("gru_reset_after", features=UNITS, name="b")],
            r"^b is gru_reset_after of 5 units.*, but a is lstm of 5 units",
        ),
        (
            lambda: [recurrent("lstm", name="a"), recurrent("lstm", 4, UNITS, name="b")],
            r"^b is lstm of 4 units.*, but a is lstm of 5 units",
        ),
        (
            lambda: [recurrent("lstm", name="a"), both(recurrent("lstm", features=UNITS, name="b"), UNITS)],
            r"^forward_b is lstm .* 2 direction\(s\), but a is .* 1 direction\(s\)$",
        ),
        (
            lambda: [recurrent("lstm", name="a"), recurrent("lstm", features=4, name="b")],
            r"^b takes 4 features, expected 5$",
        ),
        (
            lambda: [
                recurrent("elman", options={"activation": "tanh"}, name="a"),
                recurrent("elman", features=UNITS, options={"activation": "relu"}, name="b"),
            ],
            r"^b is relu elman .*, but a is tanh elman",
        ),
        (lambda: [], "no layers"),
    ],
)
def test_layers_that_pytorch_has_not(layers, message):
    with pytest.raises(ValueError, match=message) as caught:
        to_torch(layers())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (keras.layers.Dense(2, name="a"), r"^a: expected a SimpleRNN, LSTM or GRU, .*; got Dense$"),
        (keras.layers.LSTM(2, name="a"), r"^a has no weights yet"),
        (keras.layers.LSTM(2, activation="relu", name="a"), r"^a: .* activation='tanh' only; got 'relu'$"),
        (
            keras.layers.GRU(2, recurrent_activation="hard_sigmoid", name="a"),
            r"^a: the zoo has recurrent_activation='sigmoid' only; got 'hard_sigmoid'$",
        ),
    ],
)
def test_layers_of_keras_that_the_zoo_has_not(layer, message):
    with pytest.raises(ValueError, match=message):
        from_keras(layer)


def test_cells_that_keras_has_not():
    with pytest.raises(ValueError, match=r"^a: Keras has elman, lstm, gru, gru_reset_after; no mgu$"):
        to_keras(recurrent("mgu", name="a"))
