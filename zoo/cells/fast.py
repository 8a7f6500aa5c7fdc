"""FastRNN and FastGRNN: small recurrences made trainable by a weighted residual connection."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.cells.weights import independent

# As in the authors' code; a configuration, since an instance would give all cells the same numbers.
SMALL_NORMAL = {"class_name": "RandomNormal", "config": {"stddev": 0.1}}


class LowRank(Cell):
    """A cell with one input and one recurrent matrix, each of which may be a product of two thin ones.

    With `input_rank`, U is input_kernel [features, rank] times `input_factor` [rank, units]; with
    `recurrent_rank`, W is recurrent_kernel [units, rank] times `recurrent_factor` [rank, units]: fewer
    weights to store. For speed W is multiplied out once a sequence. Raises ValueError for ranks below 1.
    """

    def __init__(
        self,
        units: int,
        input_rank: int | None = None,
        recurrent_rank: int | None = None,
        kernel_initializer=SMALL_NORMAL,
        recurrent_initializer=SMALL_NORMAL,
        bias_initializer="ones",
        **kwargs,
    ):
        super().__init__(
            units,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            **kwargs,
        )
        for name, rank in (("input_rank", input_rank), ("recurrent_rank", recurrent_rank)):
            if rank is not None and rank < 1:
                raise ValueError(f"{name} must be at least 1, or None for a full matrix; got {rank}")
        self.input_rank = input_rank
        self.recurrent_rank = recurrent_rank

    def build(self, input_shape):
        features = self.features_of(input_shape)
        self.input_kernel, self.input_factor = self._matrix(
            "input", features, self.input_rank, self.kernel_initializer
        )
        self.recurrent_kernel, self.recurrent_factor = self._matrix(
            "recurrent", self.units, self.recurrent_rank, self.recurrent_initializer
        )
        self.bias = self.add_weight(
            name="bias", shape=(len(self.GATES) * self.units,), initializer=self.initialize_bias
        )

    def _matrix(self, name, rows, rank, initializer):
        kernel = self.add_weight(
            name=f"{name}_kernel", shape=(rows, rank or self.units), initializer=initializer
        )
        if rank is None:
            return kernel, None
        shape = (rank, self.units)
        return kernel, self.add_weight(
            name=f"{name}_factor", shape=shape, initializer=independent(initializer)
        )

    def input_product(self, inputs: tf.Tensor) -> tf.Tensor:
        """U x: [..., features] -> [..., units]."""
        product = self.dense(inputs, self.input_kernel)
        return product if self.input_factor is None else self.dense(product, self.input_factor)

    def step_weights(self):
        kernel = self.cast(self.recurrent_kernel)
        if self.recurrent_factor is not None:
            kernel = tf.matmul(kernel, self.cast(self.recurrent_factor))
        return {"recurrent_kernel": kernel}

    def get_config(self):
        ranks = {"input_rank": self.input_rank, "recurrent_rank": self.recurrent_rank}
        return {**super().get_config(), **ranks}


@keras.saving.register_keras_serializable("zoo")
class FastRNN(LowRank):
    """An Elman network with a weighted residual connection.

        h~ = tanh(W h_prev + U x + b)                       candidate
        h = sigma(alpha) * h~ + sigma(beta) * h_prev

    The scalar weights alpha and beta start at -3 and 3: mostly a copy of the state.

    Source: Kusupati et al. 2018, arXiv:1901.02358, section 3.1; initial values and low ranks as in
    the authors' code (github.com/microsoft/EdgeML).
    """

    def __init__(self, units: int, alpha: float = -3.0, beta: float = 3.0, **kwargs):
        super().__init__(units, **kwargs)
        self.initial_alpha = alpha
        self.initial_beta = beta

    def build(self, input_shape):
        super().build(input_shape)
        constant = keras.initializers.Constant
        self.alpha = self.add_weight(name="alpha", shape=(), initializer=constant(self.initial_alpha))
        self.beta = self.add_weight(name="beta", shape=(), initializer=constant(self.initial_beta))

    def project(self, inputs):
        return self.input_product(inputs) + self.cast(self.bias)

    def step_weights(self):
        return {
            **super().step_weights(),
            "candidate_share": tf.sigmoid(self.cast(self.alpha)),
            "kept_share": tf.sigmoid(self.cast(self.beta)),
        }

    def step(self, projected, states):
        [previous_hidden] = states
        candidate = tf.tanh(projected + self.product(previous_hidden, "recurrent_kernel"))
        hidden = self.weight("candidate_share") * candidate + self.weight("kept_share") * previous_hidden
        return hidden, [hidden]

    def get_config(self):
        return {**super().get_config(), "alpha": self.initial_alpha, "beta": self.initial_beta}


@keras.saving.register_keras_serializable("zoo")
class FastGRNN(LowRank):
    """A gated recurrence whose gate and candidate share their matrices.

        z = sigma(W h_prev + U x + b_z)                     update gate: what is kept
        h~ = tanh(W h_prev + U x + b_h)                     candidate
        h = (sigma(zeta) * (1 - z) + sigma(nu)) * h~ + z * h_prev

    The scalar weights zeta and nu start at 1 and -4. `bias` has the columns of GATES, the kernels have
    `units` columns.

    Source: Kusupati et al. 2018, arXiv:1901.02358, section 3.2; initial values and low ranks as in the
    authors' code (github.com/microsoft/EdgeML).
    """

    GATES = ("update", "candidate")

    def __init__(self, units: int, zeta: float = 1.0, nu: float = -4.0, **kwargs):
        super().__init__(units, **kwargs)
        self.initial_zeta = zeta
        self.initial_nu = nu

    def build(self, input_shape):
        super().build(input_shape)
        constant = keras.initializers.Constant
        self.zeta = self.add_weight(name="zeta", shape=(), initializer=constant(self.initial_zeta))
        self.nu = self.add_weight(name="nu", shape=(), initializer=constant(self.initial_nu))

    def project(self, inputs):
        product = self.input_product(inputs)
        return tf.concat([product, product], axis=-1) + self.cast(self.bias)

    def step_weights(self):
        return {
            **super().step_weights(),
            "scale": tf.sigmoid(self.cast(self.zeta)),
            "offset": tf.sigmoid(self.cast(self.nu)),
        }

    def step(self, projected, states):
        [previous_hidden] = states
        projected_gate, projected_candidate = self.gates(projected)
        recurrent = self.product(previous_hidden, "recurrent_kernel")
        update_gate = tf.sigmoid(projected_gate + recurrent)
        candidate = tf.tanh(projected_candidate + recurrent)
        candidate_share = self.weight("scale") * (1 - update_gate) + self.weight("offset")
        hidden = candidate_share * candidate + update_gate * previous_hidden
        return hidden, [hidden]

    def get_config(self):
        return {**super().get_config(), "zeta": self.initial_zeta, "nu": self.initial_nu}
