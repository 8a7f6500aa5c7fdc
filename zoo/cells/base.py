"""The contract of a recurrent cell.

A cell is one step of a recurrence. It splits the step in two, so that a time loop can do most of
the work for all steps at once:

    project(inputs)              everything that does not depend on the state
    step(projected, states)      the paper's equation, given that
    call(inputs, states)         step(project(inputs), states): what keras.layers.RNN calls

`step` reads its weights by name, with `product` and `weight`, from what `step_weights` gives; so a
time loop can compute them once, and take each kernel's gradient in one product over all steps.

Precision: kernels and products are of the cell's compute dtype. States, and all that `step` sees, are
of its `state_dtype`, which is float32 where the compute dtype is of 16 bits: a state is a sum over
all steps, whose rounding errors would add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import keras
import tensorflow as tf


class StepWeights(Protocol):
    """Where a cell's step finds its weights, and what it drops of the operands of its products."""

    masks: Mapping[str, tf.Tensor]

    def product(self, operand: tf.Tensor, name: str) -> tf.Tensor: ...

    def weight(self, name: str) -> tf.Tensor: ...


class GivenWeights:
    """Step weights that are computed already."""

    def __init__(self, weights: Mapping[str, tf.Tensor], masks: Mapping[str, tf.Tensor] | None = None):
        self.weights = weights
        self.masks = masks or {}

    def product(self, operand: tf.Tensor, name: str) -> tf.Tensor:
        return tf.matmul(operand, self.weights[name])

    def weight(self, name: str) -> tf.Tensor:
        return self.weights[name]


def long_product(left: tf.Tensor, right: tf.Tensor, transpose_a: bool = False) -> tf.Tensor:
    """tf.matmul of matrices with many rows.

    Rows that are a multiple of 8 KiB long start in the same few sets of the cache, and displace each
    other: such a product takes up to twice as long, unless the rows are made longer by a cache line.
    """
    columns = right.shape[-1]
    if columns * right.dtype.size % 8192:
        return tf.matmul(left, right, transpose_a=transpose_a)
    padded = tf.pad(right, [[0, 0], [0, 64 // right.dtype.size]])
    return tf.matmul(left, padded, transpose_a=transpose_a)[:, :columns]


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
        recurrent_dropout: share of the values dropped of what the recurrent kernels multiply, the same
            ones at all steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287).
        zoneout: share of the states' values that stay as they were, others at each step; outside
            training, the expectation of that (Krueger et al. 2017, arXiv:1606.01305).
        weight_drop: share of the recurrent kernels' weights dropped, the same ones at all steps (Wan et
            al. 2013; Merity et al. 2018, arXiv:1708.02182).
        seed: of these three.
    """

    GATES: tuple[str, ...] = ("hidden",)
    STATES: tuple[str, ...] = ("hidden",)

    def __init__(
        self,
        units: int,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        weight_drop: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.autocast = False  # states keep their precision
        self.units = int(units)
        if self.units < 1:
            raise ValueError(f"units must be at least 1, got {units}")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.recurrent_dropout = _share("recurrent_dropout", recurrent_dropout)
        self.zoneout = _share("zoneout", zoneout)
        self.weight_drop = _share("weight_drop", weight_drop)
        self.seed = None if seed is None else int(seed)  # a flag gives 1.0
        if self.recurrent_dropout or self.zoneout or self.weight_drop:
            self.seed_generator = keras.random.SeedGenerator(self.seed)

    @property
    def state_size(self) -> list[int]:
        return [self.units] * len(self.STATES)

    @property
    def output_size(self) -> int:
        return self.units

    @property
    def state_dtype(self) -> str:
        return "float32" if self.compute_dtype in ("float16", "bfloat16") else self.compute_dtype

    def build(self, input_shape: Sequence[int | None]) -> None:
        features = self.features_of(input_shape)
        width = len(self.GATES) * self.units
        self.input_kernel = self.add_weight(
            name="input_kernel", shape=(features, width), initializer=self.kernel_initializer
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, width),
            initializer=per_gate(self.recurrent_initializer, len(self.GATES)),
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer=self.initialize_bias)

    def features_of(self, input_shape: Sequence[int | None]) -> int:
        """The size of the inputs. Raises ValueError if it is not known."""
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                f"{self.name}: the last dimension of the inputs must be known, got {tuple(input_shape)}"
            )
        return features

    def initialize_bias(self, shape, dtype=None) -> tf.Tensor:
        """The initial fused bias; a cell whose gates start differently overrides this."""
        return self.bias_initializer(shape, dtype=dtype)

    def project(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the inputs contribute to every gate: [..., features] -> [..., gates * units]."""
        return self.dense(inputs, self.input_kernel) + self.cast(self.bias)

    def dense(self, inputs: tf.Tensor, kernel) -> tf.Tensor:
        """inputs [..., n] times kernel [n, m], as one product however many dimensions there are."""
        inputs, kernel = self.cast(inputs), self.cast(kernel)
        rows = long_product(tf.reshape(inputs, [-1, inputs.shape[-1]]), kernel)
        products = tf.reshape(rows, tf.concat([tf.shape(inputs)[:-1], [kernel.shape[-1]]], 0))
        return tf.ensure_shape(products, [*inputs.shape[:-1], kernel.shape[-1]])

    def cast(self, value) -> tf.Tensor:
        """A variable or tensor in the precision of products."""
        return tf.cast(tf.convert_to_tensor(value), self.compute_dtype)

    def step_weights(self) -> dict[str, tf.Tensor]:
        """The weights that `step` uses, by name, derived from the layer's variables."""
        return {"recurrent_kernel": self.cast(self.recurrent_kernel)}

    def given_weights(self, training: bool = False, batch_size: Any = None) -> GivenWeights:
        """The step weights of a sequence: in training, with what is dropped for all of its steps."""
        weights = self.step_weights()
        if not training:
            return GivenWeights(weights)
        kernels = [name for name in weights if name.endswith("kernel") and not name.startswith("input")]
        if (self.weight_drop or self.recurrent_dropout) and not kernels:
            raise ValueError(
                f"{type(self).__name__} has no recurrent kernel to drop anything of; use zoneout"
            )
        masks = {}
        for name in kernels:
            if self.weight_drop:
                weights[name] *= self._dropout(tf.shape(weights[name]), self.weight_drop, self.compute_dtype)
            if self.recurrent_dropout:
                shape = [batch_size, weights[name].shape[0]]
                masks[name] = self._dropout(shape, self.recurrent_dropout, self.state_dtype)
        return GivenWeights(weights, masks)

    def _dropout(self, shape, rate, dtype) -> tf.Tensor:
        """0 with probability `rate`, else 1 / (1 - rate)."""
        kept = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) >= rate
        return tf.cast(kept, dtype) / (1 - rate)

    def product(self, operand: tf.Tensor, name: str) -> tf.Tensor:
        """operand [batch, n] times the step weight `name` [n, m], in the states' precision."""
        source = _step_weights.get() or GivenWeights(self.step_weights())
        if name in source.masks:
            operand = operand * source.masks[name]
        return tf.cast(source.product(tf.cast(operand, self.compute_dtype), name), self.state_dtype)

    def weight(self, name: str) -> tf.Tensor:
        """The step weight `name`, for use other than in a product, in the states' precision."""
        source = _step_weights.get() or GivenWeights(self.step_weights())
        return tf.cast(source.weight(name), self.state_dtype)

    def step(self, projected: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """One step: (projected [batch, gates * units], states) -> (output, new states)."""
        raise NotImplementedError(f"{type(self).__name__} gives no step")

    def advance(
        self, projected: tf.Tensor, states: Sequence[tf.Tensor], zoned: Sequence[tf.Tensor] | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """`step`, and zoneout: bool `zoned` [batch, n] says what stays of each state; None: its share."""
        output, new_states = self.step(tf.cast(projected, self.state_dtype), states)
        if not self.zoneout:
            return output, new_states
        output_is_state = output is new_states[0]
        if zoned is None:
            mixed = [new + self.zoneout * (old - new) for new, old in zip(new_states, states, strict=True)]
        else:
            mixed = [
                tf.where(kept, old, new) for kept, new, old in zip(zoned, new_states, states, strict=True)
            ]
        return (mixed[0] if output_is_state else output), mixed

    def zoned(self, leading_shape: Sequence[Any]) -> list[tf.Tensor]:
        """What zoneout keeps in training, bool [*leading_shape, n] for each state; nothing without it."""
        if not self.zoneout:
            return []
        shapes = [tf.concat([leading_shape, [size]], 0) for size in self.state_size]
        return [keras.random.uniform(shape, seed=self.seed_generator) < self.zoneout for shape in shapes]

    def call(self, inputs, states, training=False):
        """One step by itself. In training it draws anew what to drop; `Recurrent` does so once a sequence."""
        batch_size = tf.shape(inputs)[0]
        with step_weights_from(self.given_weights(training, batch_size)):
            output, new_states = self.advance(
                self.project(inputs),
                [tf.cast(state, self.state_dtype) for state in states],
                self.zoned([batch_size]) if training else None,
            )
        # keras.layers.RNN carries states in the precision that it gave them.
        new_states = [tf.cast(new, old.dtype) for new, old in zip(new_states, states, strict=True)]
        return tf.cast(output, self.compute_dtype), new_states

    def get_initial_state(self, batch_size=None) -> list[tf.Tensor]:
        return [tf.zeros([batch_size, size], self.state_dtype) for size in self.state_size]

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
            "recurrent_dropout": self.recurrent_dropout,
            "zoneout": self.zoneout,
            "weight_drop": self.weight_drop,
            "seed": self.seed,
        }


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return value


def per_gate(initializer, gates: int):
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
