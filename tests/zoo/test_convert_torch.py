"""Layers converted from and to PyTorch against its modules, and the way there and back."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import safetensors.torch
import torch
from converted import (
    INPUTS,
    OUTPUTS,
    STACKS,
    TOLERANCES,
    TORCH,
    UNITS,
    arrays,
    assert_same_bytes,
    both,
    keras_layers,
    recurrent,
    run,
    torch_layers,
    torch_module,
    torch_outputs,
    zoo_layers,
)

from zoo.cells import CELLS
from zoo.convert import assign_weights, from_keras, from_torch, load_torch, save_torch, to_torch
from zoo.recurrence import Recurrent
from zoo.wrappers import Stack


@OUTPUTS
@pytest.mark.parametrize("kind", TORCH)
def test_layers_from_pytorch_give_its_outputs(kind, layers, directions, dtype):
    module = torch_module(kind, layers, directions, dtype)
    converted = torch_layers(kind, module.state_dict())
    assert len(converted) == layers
    expected = torch_outputs(module, INPUTS, dtype)
    np.testing.assert_allclose(run(converted, INPUTS, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


@OUTPUTS
@pytest.mark.parametrize("kind", TORCH)
def test_pytorch_gives_the_outputs_of_layers(kind, layers, directions, dtype, randomize):
    cell, options, *_ = TORCH[kind]
    ours = zoo_layers(cell, options, layers, directions, randomize, dtype)
    module = torch_module(kind, layers, directions, dtype)
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in to_torch(ours).items()})
    expected = run(ours, INPUTS, dtype)
    np.testing.assert_allclose(torch_outputs(module, INPUTS, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


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


def test_pytorchs_biases_may_be_missing():
    module = torch_module("gru_reset_after", 2, 2, bias=False)
    converted = from_torch(module.state_dict())
    expected = torch_outputs(module, INPUTS, "float32")
    np.testing.assert_allclose(run(converted, INPUTS, "float32"), expected, rtol=0, atol=1e-6)


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


def test_from_keras_to_pytorch(randomize):
    theirs = keras_layers("gru_reset_after", 2, 2, randomize)
    module = torch_module("gru_reset_after", 2, 2)
    state = to_torch(from_keras(theirs))
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    expected = run(theirs, INPUTS, "float32")
    np.testing.assert_allclose(torch_outputs(module, INPUTS, "float32"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("directions", [1, 2])
def test_a_stack_to_pytorch_and_back(directions, randomize):
    cells = [CELLS["lstm"](UNITS) for _ in range(2)]
    stack = Stack(cells, bidirectional=directions == 2)
    stack.build(INPUTS.shape)
    randomize(stack)
    state = to_torch(stack)
    module = torch_module("lstm", 2, directions)
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    expected, _ = stack(INPUTS.astype("float32"))
    np.testing.assert_allclose(torch_outputs(module, INPUTS, "float32"), expected, rtol=0, atol=1e-6)

    other = Stack([CELLS["lstm"](UNITS) for _ in range(2)], bidirectional=directions == 2)
    other.build(INPUTS.shape)
    assign_weights(other, from_torch(state))
    np.testing.assert_array_equal(other(INPUTS.astype("float32"))[0], expected)


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
        (lambda: Stack([CELLS["lstm"](2)], skip="residual", name="a"), r"^a: layers with skip='residual'"),
        (lambda: Stack([CELLS["lstm"](2)]), r"^layer_0 has no weights yet"),
    ],
)
def test_layers_that_pytorch_has_not(layers, message):
    with pytest.raises(ValueError, match=message) as caught:
        to_torch(layers())
    assert "\n" not in str(caught.value)
