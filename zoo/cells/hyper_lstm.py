"""Long short-term memory whose weights another one scales."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import per_gate
from zoo.cells.blocks import block_diagonal
from zoo.cells.lstm import LSTM
from zoo.cells.normalization import layer_norm


@keras.saving.register_keras_serializable("zoo")
class HyperLSTM(LSTM):
    """Long short-term memory whose weights a smaller one, the hypernetwork, changes at each step.

        h^, c^ = LSTM of [h_prev; x] with its own states h^_prev, c^_prev       hypernetwork

    and for each gate y of i, f, c~, o, with embeddings z of size `hyper_embedding`

        z_h = A_h h^_prev + a_h,  z_x = A_x h^_prev + a_x,  z_b = A_b h^_prev
        d_h = D_h z_h,            d_x = D_x z_x,            d_b = D_b z_b
        y = LN(d_h * (W h_prev) + d_x * (U x) + d_b + b)    rows of W and U scaled

    before the logistic function or tanh, and c and h as in LSTM, with h = o * tanh(LN(c)). LN, for each
    gate by itself and with a gain and a bias, is there with `layer_norm=True` only, in the hypernetwork
    as well. With `current_embedding=True`, z is computed of h^ instead of h^_prev: the authors' code does
    so, the paper does not.

    Weights besides LSTM's: of the hypernetwork `hyper_kernel` [units + features, 4 * hyper_units], for
    [h_prev; x], `hyper_recurrent_kernel`, `hyper_bias`; A_h and A_x `scale_embedding_kernel` and
    `scale_embedding_bias`, D_h and D_x `scale_kernel`, A_b `bias_embedding_kernel`, D_b `bias_kernel`;
    in these, a gate's columns follow each other as in GATES. At first d_h = d_x = 0.1 and d_b = 0.
    States: hidden h, cell_state c, hyper_hidden h^ and hyper_cell_state c^ [hyper_units].

    Source: Ha et al. 2016, arXiv:1609.09106, equations 9 to 13, and A.2.3 for the weights at first.

    Differs from the paper: nothing is dropped of the candidate (its equation 13).
    """

    STATES = ("hidden", "cell_state", "hyper_hidden", "hyper_cell_state")

    def __init__(
        self,
        units: int,
        hyper_units: int = 128,
        hyper_embedding: int = 4,
        layer_norm: bool = False,
        current_embedding: bool = False,
        **kwargs,
    ):
        super().__init__(units, **kwargs)
        self.hyper_units = int(hyper_units)
        self.hyper_embedding = int(hyper_embedding)
        self.layer_norm = bool(layer_norm)
        self.current_embedding = bool(current_embedding)
        if self.hyper_units < 1 or self.hyper_embedding < 1:
            raise ValueError(
                f"hyper_units and hyper_embedding must be at least 1, got {hyper_units} and {hyper_embedding}"
            )

    @property
    def state_size(self):
        return [self.units, self.units, self.hyper_units, self.hyper_units]

    def build(self, input_shape):
        super().build(input_shape)
        self.build_hypernetwork(self.features_of(input_shape))
        self.build_embeddings()
        if self.layer_norm:
            self.build_normalization()

    def build_hypernetwork(self, features):
        width = len(self.GATES) * self.hyper_units
        self.hyper_kernel = self.add_weight(
            name="hyper_kernel",
            shape=(self.units + features, width),
            initializer=self.kernel_initializer,
        )
        self.hyper_recurrent_kernel = self.add_weight(
            name="hyper_recurrent_kernel",
            shape=(self.hyper_units, width),
            initializer=per_gate(self.recurrent_initializer, len(self.GATES)),
        )
        self.hyper_bias = self.add_weight(name="hyper_bias", shape=(width,), initializer="zeros")

    def build_embeddings(self):
        size, gates = self.hyper_embedding, len(self.GATES)
        small = keras.initializers.RandomNormal(0.0, 0.01, seed=self.seed)
        self.embeddings = {
            name: self.add_weight(name=name, shape=shape, initializer=initializer)
            for name, shape, initializer in (
                ("scale_embedding_kernel", (self.hyper_units, 2 * gates * size), "zeros"),
                ("scale_embedding_bias", (2 * gates * size,), "ones"),
                ("bias_embedding_kernel", (self.hyper_units, gates * size), small),
                ("scale_kernel", (size, 2 * gates * self.units), keras.initializers.Constant(0.1 / size)),
                ("bias_kernel", (size, gates * self.units), "zeros"),
            )
        }

    def build_normalization(self):
        sizes = {"gate": len(self.GATES) * self.units, "cell": self.units}
        sizes |= {"hyper_gate": len(self.GATES) * self.hyper_units, "hyper_cell": self.hyper_units}
        self.normalizations = {
            name: self.add_weight(name=name, shape=(size,), initializer=initializer)
            for part, size in sizes.items()
            for name, initializer in ((f"{part}_gain", "ones"), (f"{part}_bias", "zeros"))
        }

    def project(self, inputs):
        """[U x, what x and its bias contribute to the hypernetwork]."""
        kernels = [self.cast(self.input_kernel), self.cast(self.hyper_kernel)[self.units :]]
        biases = tf.pad(self.cast(self.hyper_bias), [[len(self.GATES) * self.units, 0]])
        return self.dense(inputs, tf.concat(kernels, -1)) + biases

    def step_weights(self):
        others = {**self.embeddings, **(self.normalizations if self.layer_norm else {})}
        weights = {name: self.cast(weight) for name, weight in others.items()}
        # As few products as possible: those of the same operand are one.
        kernels = [self.cast(self.recurrent_kernel), self.cast(self.hyper_kernel)[: self.units]]
        embeddings = [weights.pop("scale_embedding_kernel"), weights.pop("bias_embedding_kernel")]
        generators = [weights.pop("scale_kernel"), weights.pop("bias_kernel")]
        return {
            **weights,
            "bias": self.cast(self.bias),
            "hidden_kernel": tf.concat(kernels, -1),
            "hyper_recurrent_kernel": self.cast(self.hyper_recurrent_kernel),
            "embedding_kernel": tf.concat(embeddings, -1),
            "generator_kernel": block_diagonal(tf.concat(generators, -1), 3 * len(self.GATES)),
        }

    def step(self, projected, states):
        previous_hidden, previous_cell_state, previous_hyper_hidden, previous_hyper_cell_state = states
        widths = [len(self.GATES) * self.units, len(self.GATES) * self.hyper_units]
        from_inputs, hyper_gates = tf.split(projected, widths, axis=-1)
        from_hidden, hyper_from_hidden = tf.split(
            self.product(previous_hidden, "hidden_kernel"), widths, axis=-1
        )
        hyper_gates += hyper_from_hidden + self.product(previous_hyper_hidden, "hyper_recurrent_kernel")
        hyper_hidden, hyper_cell_state = self.normalized_update(
            hyper_gates, previous_hyper_cell_state, "hyper_"
        )
        embedded = hyper_hidden if self.current_embedding else previous_hyper_hidden
        hidden_scale, input_scale, bias = self.generated(embedded)
        gates = hidden_scale * from_hidden + input_scale * from_inputs + bias + self.weight("bias")
        hidden, cell_state = self.normalized_update(gates, previous_cell_state)
        return hidden, [hidden, cell_state, hyper_hidden, hyper_cell_state]

    def generated(self, hyper_hidden):
        """d_h, d_x and d_b of all gates, [batch, 4 * units] each."""
        biases = tf.pad(self.weight("scale_embedding_bias"), [[0, len(self.GATES) * self.hyper_embedding]])
        embeddings = self.product(hyper_hidden, "embedding_kernel") + biases
        return tf.split(self.product(embeddings, "generator_kernel"), 3, axis=-1)

    def normalized_update(self, gates, previous_cell_state, prefix=""):
        if not self.layer_norm:
            return self.update(gates, previous_cell_state)

        def normalized(values, name, parts=1):
            width = values.shape[-1]
            rows = layer_norm(tf.reshape(values, [-1, parts, width // parts]))
            return tf.reshape(rows, [-1, width]) * self.weight(f"{name}_gain") + self.weight(f"{name}_bias")

        return self.update(
            normalized(gates, f"{prefix}gate", len(self.GATES)),
            previous_cell_state,
            lambda cell_state: tf.tanh(normalized(cell_state, f"{prefix}cell")),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "hyper_units": self.hyper_units,
            "hyper_embedding": self.hyper_embedding,
            "layer_norm": self.layer_norm,
            "current_embedding": self.current_embedding,
        }
