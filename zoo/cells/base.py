"""The contract of a recurrent cell.

A cell is one step of a recurrence. It splits the step in two, so that a time loop can do most of
the work for all steps at once:

    project(inputs)              everything that does not depend on the state
    step(projected, states)      the paper's equation, given that
    call(inputs, states)         step(project(inputs), states): what keras.layers.RNN calls

`step` reads its weights by name, with `product` and `weight`, from what `step_weights` gives; so a
time loop can compute them once, and take each kernel's gradient in one product over all steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import keras
import tensorflow as tf


class StepWeights(Protocol):
    """Where a cell's step finds its weights."""

    def product(self, operand: tf.Tensor, name: str) -> tf.Tensor: ...

    def weight(self, name: str) -> tf.Tensor: ...


class GivenWeights:
    """Step weights that are computed already."""

    def __init__(self, weights: dict[str, tf.Tensor]):
        self.weights = weights

    def product(self, operand: tf.Tensor, name: str) -> tf.Tensor:
        return tf.matmul(operand, self.weights[name])

    def weight(self, name: str) -> tf.Tensor:
        return self.weights[name]


_step_weights: ContextVar[StepWeights | None] = ContextVar("step_weights", default=None)


@contextmanager
def step_weights_from(source: StepWeights) -> Iterator[None]:
    """Within, a cell's step takes its weights from `source` instead of `cell.step_weights()`."""
    token = _step_weights.set(source)
    try:
        yield
    finally:
        _step_weights.reset(token)


class Cell(keras.layers.Layer):
    """One step of a recurrence, as a Keras layer.

    A subclass names its gates and states, and gives `step`. Its kernels are fused: the columns of
    `input_kernel` [features, gates * units], `recurrent_kernel` [units, gates * units] and `bias`
    [gates * units] belong to the gates in the order of GATES.

    Args:
        units: size of the hidden state.
        kernel_initializer, recurrent_initializer, bias_initializer: Keras initializers; the
            recurrent one is applied to each gate's square block by itself.
    """

    GATES: tuple[str, ...] = ("hidden",)
    STATES: tuple[str, ...] = ("hidden",)

    def __init__(
        self,
        units: int,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be at least 1, got {units}")
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    @property
    def state_size(self) -> list[int]:
        return [self.units] * len(self.STATES)

    @property
    def output_size(self) -> int:
        return self.units

    def build(self, input_shape: Sequence[int | None]) -> None:
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                f"{self.name}: the last dimension of the inputs must be known, got {input_shape}"
            )
        width = len(self.GATES) * self.units
        self.input_kernel = self.add_weight(
            name="input_kernel", shape=(features, width), initializer=self.kernel_initializer
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, width),
            initializer=_per_gate(self.recurrent_initializer, len(self.GATES)),
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer=self.initialize_bias)

    def initialize_bias(self, shape, dtype=None) -> tf.Tensor:
        """The initial fused bias; a cell whose gates start differently overrides this."""
        return self.bias_initializer(shape, dtype=dtype)

    def project(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the inputs contribute to every gate: [..., features] -> [..., gates * units]."""
        return keras.ops.matmul(inputs, self.input_kernel) + self.bias

    def step_weights(self) -> dict[str, tf.Tensor]:
        """The weights that `step` uses, by name, derived from the layer's variables."""
        return {"recurrent_kernel": tf.convert_to_tensor(self.recurrent_kernel)}

    def product(self, operand: tf.Tensor, name: str) -> tf.Tensor:
        """operand [batch, n] times the step weight `name` [n, m]."""
        return (_step_weights.get() or GivenWeights(self.step_weights())).product(operand, name)

    def weight(self, name: str) -> tf.Tensor:
        """The step weight `name`, for use other than in a product."""
        return (_step_weights.get() or GivenWeights(self.step_weights())).weight(name)

    def step(self, projected: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """One step: (projected [batch, gates * units], states) -> (output, new states)."""
        raise NotImplementedError(f"{type(self).__name__} gives no step")

    def call(self, inputs, states, training=False):
        return self.step(self.project(inputs), states)

    def get_initial_state(self, batch_size=None) -> list[tf.Tensor]:
        return [tf.zeros([batch_size, size], self.compute_dtype) for size in self.state_size]

    def gates(self, fused: tf.Tensor) -> list[tf.Tensor]:
        """Split [batch, gates * units] into one [batch, units] tensor a gate, in the order of GATES."""
        return tf.split(fused, len(self.GATES), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _per_gate(initializer, gates: int):
    """Initialize [units, gates * units] block by block: orthogonal is meant for square matrices.

    A Keras initializer gives the same numbers whenever it is called, so that each block needs a seed
    of its own: gates that start alike would learn alike.
    """
    seed = getattr(initializer, "seed", None)
    if isinstance(seed, int):
        config = initializer.get_config()
        initializers = [type(initializer).from_config({**config, "seed": seed + n}) for n in range(gates)]
    else:
        initializers = [initializer] * gates

    def initialize(shape, dtype=None):
        rows, width = shape
        return tf.concat([block((rows, width // gates), dtype=dtype) for block in initializers], axis=-1)

    return initialize
