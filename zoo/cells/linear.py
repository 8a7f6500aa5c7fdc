"""Cells that are linear in their state: what their gates see are the inputs, never the state.

All steps of a sequence can then be evaluated at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.linear_scan import held, last, linear_scan


class LinearCell(Cell):
    """A cell whose state_t = decay_t * state_(t-1) + increment_t, elementwise.

    A subclass gives `decay_and_increment`, and `output` where the output is not the state. From these
    follow `coefficients`, `step`, and `parallel`, which evaluates all steps of a sequence at once; a cell
    that is linear in another way gives the last two itself. There is no recurrent kernel, so that
    `recurrent_initializer` has no effect.
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.add_input_weights(self.features_of(input_shape), len(self.GATES), len(self.GATES))

    def add_input_weights(self, features: int, inputs: int, biases: int) -> None:
        """input_kernel [features, inputs * units] and bias [biases * units]."""
        self.input_kernel = self.add_weight(
            name="input_kernel", shape=(features, inputs * self.units), initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(
            name="bias", shape=(biases * self.units,), initializer=self.initialize_bias
        )

    def step_weights(self) -> dict[str, tf.Tensor]:
        return {}

    def fused_bias(self) -> tf.Tensor:
        """The biases of all columns of `input_kernel`."""
        return self.cast(self.bias)

    def project(self, inputs):
        return self.dense(inputs, self.input_kernel) + self.fused_bias()

    def projections(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        """`project`, taken apart: [..., units] each.

        By a product each: of a long sequence they are too large to be computed as one and copied apart.
        """
        count = self.input_kernel.shape[-1] // self.units
        kernels = tf.split(self.cast(self.input_kernel), count, axis=-1)
        biases = tf.split(self.fused_bias(), count)
        return [self.dense(inputs, kernel) + bias for kernel, bias in zip(kernels, biases, strict=True)]

    def coefficients(self, projected: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(decay, increment) [..., units] of the state, given what `project` gave."""
        return self.decay_and_increment(self.apart(projected))

    def apart(self, projected: tf.Tensor) -> list[tf.Tensor]:
        """The projections [..., units] that are side by side in [..., n * units]."""
        return tf.split(projected, projected.shape[-1] // self.units, axis=-1)

    def decay_and_increment(self, projections: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """(decay, increment) of the state, given projections; all [..., units]."""
        raise NotImplementedError(f"{type(self).__name__} gives no decay and increment")

    def output(self, projections: Sequence[tf.Tensor], state: tf.Tensor) -> tf.Tensor:
        """The output of steps, given their projections and states; all [..., units]."""
        return state

    def step(self, projected, states):
        [previous_state] = states
        projections = self.apart(projected)
        decay, increment = self.decay_and_increment(projections)
        state = decay * previous_state + increment
        return self.output(projections, state), [state]

    def parallel(
        self, inputs: tf.Tensor, states: Sequence[tf.Tensor], mask: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """All steps at once: what a loop of `step` gives, zoneout aside.

        Args:
            inputs: [time, batch, features].
            states: the initial ones, [batch, n] each.
            mask: bool [time, batch], False where states and output stay as they were.

        Returns:
            outputs [time, batch, units], the last output, and the final states.
        """
        [initial] = states
        return self.evaluate(self.in_state_precision(self.projections(inputs)), initial, mask)

    def in_state_precision(self, tensors):
        return [tf.cast(tensor, self.state_dtype) for tensor in tensors]

    def evaluate(self, projections, initial, mask):
        """`parallel`, given projections [time, batch, units] each."""
        decay, increment = self.decay_and_increment(projections)
        if mask is not None:
            is_step = mask[:, :, tf.newaxis]
            decay = tf.where(is_step, decay, tf.ones_like(decay))
            increment = tf.where(is_step, increment, tf.zeros_like(increment))
        hidden = linear_scan(decay, increment, initial)
        no_output = tf.zeros_like(initial)
        outputs = held(self.output(projections, hidden), mask, no_output)
        return outputs, last(outputs, no_output), [last(hidden, initial)]


class Minimal(LinearCell):
    """What MinGRU and MinLSTM share: with `positive`, candidates are made positive by g."""

    def __init__(self, units: int, positive: bool = False, **kwargs):
        super().__init__(units, **kwargs)
        self.positive = positive

    def written(self, candidate: tf.Tensor) -> tf.Tensor:
        if not self.positive:
            return candidate
        return tf.where(candidate >= 0, candidate + 0.5, tf.sigmoid(candidate))

    def get_config(self):
        return {**super().get_config(), "positive": self.positive}


@keras.saving.register_keras_serializable("zoo")
class MinGRU(Minimal):
    """The gated recurrent unit without a state in its gates.

        z = sigma(U_z x + b_z)              update gate: what is rewritten
        h~ = U_h x + b_h                    candidate
        h = (1 - z) * h_prev + z * h~

    With `positive` the candidate is g(U_h x + b_h), where g(x) is x + 0.5 for x >= 0 and sigma(x) below
    (appendix B): the authors evaluate it in logarithms, which takes positive states. Here there is no
    need to.

    Source: Feng et al. 2024, arXiv:2410.01201, section 3.1.
    """

    GATES = ("update", "candidate")

    def decay_and_increment(self, projections):
        update_gate, candidate = projections
        update_gate = tf.sigmoid(update_gate)
        return 1 - update_gate, update_gate * self.written(candidate)


@keras.saving.register_keras_serializable("zoo")
class MinLSTM(Minimal):
    """Long short-term memory without a state in its gates.

        f = sigma(U_f x + b_f)              forget gate: what is kept
        i = sigma(U_i x + b_i)              input gate: what is written
        h~ = U_h x + b_h                    candidate
        h = f / (f + i) * h_prev + i / (f + i) * h~

    The share f / (f + i) is computed as sigma(log f - log i), since both gates can vanish.
    `positive` is that of MinGRU.

    Source: Feng et al. 2024, arXiv:2410.01201, section 3.2.
    """

    GATES = ("forget", "input", "candidate")

    def decay_and_increment(self, projections):
        forget_gate, input_gate, candidate = projections
        forget_share = tf.sigmoid(tf.math.log_sigmoid(forget_gate) - tf.math.log_sigmoid(input_gate))
        return forget_share, (1 - forget_share) * self.written(candidate)


class InputPassing(LinearCell):
    """A cell whose equations use the input itself, too, beside what gates make of it.

    The input has to be of the size of the state. Where it is not, P x takes its place, with the
    `passed_kernel` P [features, units]. Projections are those of the gates, and this.
    """

    def build(self, input_shape):
        super().build(input_shape)
        features = self.features_of(input_shape)
        self.passed_kernel = None
        if features != self.units:
            self.passed_kernel = self.add_weight(
                name="passed_kernel", shape=(features, self.units), initializer=self.kernel_initializer
            )

    def project(self, inputs):
        return tf.concat([super().project(inputs), self.passed(inputs)], axis=-1)

    def projections(self, inputs):
        return [*super().projections(inputs), self.passed(inputs)]

    def passed(self, inputs: tf.Tensor) -> tf.Tensor:
        """The inputs in the size of the state."""
        return self.cast(inputs) if self.passed_kernel is None else self.dense(inputs, self.passed_kernel)


@keras.saving.register_keras_serializable("zoo")
class SRU(InputPassing):
    """The simple recurrent unit.

        x~ = U x                                candidate
        f = sigma(U_f x + b_f)                  forget gate: what is kept
        r = sigma(U_r x + b_r)                  reset gate: how much of the output is memory
        c = f * c_prev + (1 - f) * x~
        h = r * g(c) + (1 - r) * x              a highway around the memory

    g is `activation`. The state is cell_state c. The highway of inputs that are not of size `units`
    carries P x, as in the authors' code.

    Source: Lei et al. 2017, arXiv:1709.02755, versions 1 and 2. In later versions the gates see c_prev,
    so that c is no longer linear in it.
    """

    GATES = ("candidate", "forget", "reset")
    STATES = ("cell_state",)

    def __init__(self, units: int, activation="tanh", **kwargs):
        super().__init__(units, **kwargs)
        self.activation = keras.activations.get(activation)

    def add_input_weights(self, features, inputs, biases):
        super().add_input_weights(features, inputs, biases - 1)  # the candidate has none

    def fused_bias(self):
        return tf.pad(self.cast(self.bias), [[self.units, 0]])

    def decay_and_increment(self, projections):
        candidate, forget_gate, _, _ = projections
        forget_gate = tf.sigmoid(forget_gate)
        return forget_gate, (1 - forget_gate) * candidate

    def output(self, projections, state):
        _, _, reset_gate, passed = projections
        reset_gate = tf.sigmoid(reset_gate)
        return reset_gate * self.activation(state) + (1 - reset_gate) * passed

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable("zoo")
class RGLRU(InputPassing):
    """The real-gated linear recurrent unit of Griffin.

        r = sigma(W_a x + b_a)                  recurrence gate
        i = sigma(W_x x + b_x)                  input gate
        a = sigma(Lambda)^(c r)                 c = 8
        h = a * h_prev + sqrt(1 - a^2) * (i * x)

    computed with log a = c r log sigma(Lambda). `decay_logit` is Lambda [units], which starts such that
    sigma(Lambda)^c is uniform in [0.9, 0.999]. In Griffin's block the cell follows a linear layer
    and a convolution over time, which are not part of it; where inputs are not of size `units`, x is P x.

    Source: De et al. 2024, arXiv:2402.19427, equations 1 to 4 and section 2.4.
    """

    GATES = ("recurrence", "input")
    SHARPNESS = 8.0  # c
    SLOWEST, FASTEST = 0.999, 0.9  # sigma(Lambda)^c at first

    def __init__(self, units: int, kernel_initializer="lecun_normal", **kwargs):
        super().__init__(units, kernel_initializer=kernel_initializer, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        self.decay_logit = self.add_weight(
            name="decay_logit", shape=(self.units,), initializer=self.initialize_decay_logit
        )

    def initialize_decay_logit(self, shape, dtype=None):
        decay = keras.random.uniform(shape, self.FASTEST, self.SLOWEST, dtype=dtype, seed=self.seed)
        log_decay = tf.math.log(decay) / self.SHARPNESS
        return log_decay - tf.math.log(-tf.math.expm1(log_decay))  # the inverse of log sigma

    def step_weights(self):
        # Not rounded to the precision of products: a decay next to 1 would become 1.
        return {"log_decay": self.SHARPNESS * tf.math.log_sigmoid(tf.convert_to_tensor(self.decay_logit))}

    def decay_and_increment(self, projections):
        recurrence_gate, input_gate, passed = projections
        log_decay = tf.sigmoid(recurrence_gate) * self.weight("log_decay")
        # The square root has no slope at 0, where a gate that vanishes ends up.
        remaining = tf.maximum(-tf.math.expm1(2 * log_decay), 1e-37)
        return tf.exp(log_decay), tf.sqrt(remaining) * (tf.sigmoid(input_gate) * passed)
