"""Long short-term memory with a matrix for a memory."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from zoo.cells.linear import LinearCell
from zoo.cells.normalization import layer_norm
from zoo.cells.slstm import check_xlstm
from zoo.linear_scan import held, last


class Steps(NamedTuple):
    """What the inputs of steps come to, by head."""

    query: tf.Tensor  # [..., heads, n]
    key: tf.Tensor
    value: tf.Tensor
    log_input: tf.Tensor  # [..., heads]
    log_forget: tf.Tensor


@keras.saving.register_keras_serializable("zoo")
class MLSTM(LinearCell):
    """The matrix-memory cell of xLSTM: a memory of values under keys, of which queries read.

        q = W_q x + b_q                         query
        k = (W_k x + b_k) / sqrt(n)             key; n = units / heads
        v = W_v x + b_v                         value
        o = sigma(W_o x + b_o)                  output gate
        log i = w_i x + b_i                     input gate, a number for each head
        log f = log sigma(w_f x + b_f)          forget gate; or without log sigma: `forget_gate`
        m = max(log f + m_prev, log i)          stabilizer
        i' = exp(log i - m),  f' = exp(log f + m_prev - m)
        C = f' C_prev + i' v k^T                memory
        z = f' z_prev + i' k                    normalizer
        r = (C q) / max(|z q|, exp(-m))
        h = o * r;  with `normalize` h = o * LN(r) * gain

    for each head by itself, of which the outputs are concatenated. The outputs do not depend on m,
    which keeps exp in bounds: memory and normalizer stand for exp(m) C and exp(m) z.

    Where z q is next to 0, r is as large as can be, and grows from layer to layer: networks are trained
    with `normalize`, which gives each head the same length, times `output_gain` [units].

    `input_kernel` and `bias` hold query, key, value and output gate; `gate_kernel` [features, 2 * heads] and
    `gate_bias` the input gates of the heads, then their forget gates. The biases of the latter start
    evenly between 3 and 6, as in the authors' code. States: memory [heads * n * n], values by keys;
    normalizer [heads * n]; stabilizer [heads].

    A sequence is evaluated in chunks of CHUNK steps: within a chunk each step attends to those before
    it, and memories pass from chunk to chunk.

    Raises ValueError if `units` is not a multiple of `heads`, for an unknown `forget_gate`, and for
    zoneout: values of a memory mean nothing without their stabilizer.

    Source: Beck et al. 2024, arXiv:2405.04517, equations 19 to 27, stabilized as in 15 to 17, and its
    normalization by head. The rest of its block, a convolution and projections around the cell, is not
    part of it.
    """

    GATES = ("query", "key", "value", "output")
    STATES = ("memory", "normalizer", "stabilizer")
    CHUNK = 64

    def __init__(
        self, units: int, heads: int = 1, forget_gate: str = "sigmoid", normalize: bool = False, **kwargs
    ):
        super().__init__(units, **kwargs)
        self.heads = int(heads)
        self.forget_gate = forget_gate
        self.normalize = normalize
        check_xlstm(self)

    @property
    def head_size(self) -> int:
        return self.units // self.heads

    @property
    def state_size(self):
        return [self.units * self.head_size, self.units, self.heads]

    def build(self, input_shape):
        super().build(input_shape)
        features = self.features_of(input_shape)
        self.gate_kernel = self.add_weight(
            name="gate_kernel", shape=(features, 2 * self.heads), initializer=self.kernel_initializer
        )
        self.gate_bias = self.add_weight(
            name="gate_bias", shape=(2 * self.heads,), initializer=self.initialize_gate_bias
        )
        if self.normalize:
            self.output_gain = self.add_weight(name="output_gain", shape=(self.units,), initializer="ones")

    def step_weights(self):
        return {"output_gain": self.cast(self.output_gain)} if self.normalize else {}

    def initialize_gate_bias(self, shape, dtype=None):
        input_bias = self.bias_initializer((self.heads,), dtype=dtype)
        return tf.concat([input_bias, tf.cast(tf.linspace(3.0, 6.0, self.heads), input_bias.dtype)], 0)

    def project(self, inputs):
        kernel = tf.concat([self.cast(self.input_kernel), self.cast(self.gate_kernel)], axis=-1)
        return self.dense(inputs, kernel) + tf.concat([self.cast(self.bias), self.cast(self.gate_bias)], 0)

    def projections(self, inputs):
        gates = self.dense(inputs, self.gate_kernel) + self.cast(self.gate_bias)
        return [*super().projections(inputs), *tf.split(gates, 2, axis=-1)]

    def by_step(self, projections) -> tuple[Steps, tf.Tensor]:
        """Steps by head, and output gates [..., units], of projections [..., units] and [..., heads]."""
        *vectors, output_gate, log_input, log_forget = projections
        shape = tf.concat([tf.shape(output_gate)[:-1], [self.heads, self.head_size]], 0)
        query, key, value = (tf.reshape(vector, shape) for vector in vectors)
        if self.forget_gate == "sigmoid":
            log_forget = tf.math.log_sigmoid(log_forget)
        key *= self.head_size**-0.5
        return Steps(query, key, value, log_input, log_forget), tf.sigmoid(output_gate)

    def by_head(self, states):
        """memory [batch, heads, n, n], normalizer [batch, heads, n], stabilizer [batch, heads]."""
        memory, normalizer, stabilizer = states
        memory = tf.reshape(memory, [-1, self.heads, self.head_size, self.head_size])
        return memory, tf.reshape(normalizer, [-1, self.heads, self.head_size]), stabilizer

    def flat(self, memory, normalizer, stabilizer):
        sizes = self.state_size
        return [tf.reshape(memory, [-1, sizes[0]]), tf.reshape(normalizer, [-1, sizes[1]]), stabilizer]

    def step(self, projected, states):
        sizes = [*[self.units] * 4, self.heads, self.heads]
        steps, output_gate = self.by_step(tf.split(projected, sizes, axis=-1))
        query, key, value, log_input, log_forget = steps
        previous_memory, previous_normalizer, previous_stabilizer = self.by_head(states)
        log_kept = log_forget + previous_stabilizer
        stabilizer = tf.maximum(log_kept, log_input)
        input_gate = tf.exp(log_input - stabilizer)[..., tf.newaxis]
        forget_gate = tf.exp(log_kept - stabilizer)[..., tf.newaxis]
        written = (input_gate * value)[..., tf.newaxis] * key[..., tf.newaxis, :]
        memory = forget_gate[..., tf.newaxis] * previous_memory + written
        normalizer = forget_gate * previous_normalizer + input_gate * key
        read = tf.linalg.matvec(memory, query)
        read /= _scale(tf.reduce_sum(normalizer * query, -1), stabilizer)
        return self.hidden(read, output_gate), self.flat(memory, normalizer, stabilizer)

    def parallel(self, inputs, states, mask=None):
        steps, output_gate = self.by_step(self.in_state_precision(self.projections(inputs)))
        if mask is not None:
            steps = self.masked(steps, mask[:, :, tf.newaxis])
        time = tf.shape(inputs)[0]
        length = tf.clip_by_value(time, 1, self.CHUNK)
        count = tf.maximum((time + length - 1) // length, 1)
        fillers = Steps(0.0, 0.0, 0.0, log_input=self.log_never, log_forget=0.0)
        chunks = [_in_chunks(*pair, count, length) for pair in zip(steps, fillers, strict=True)]

        def body(now, outputs, *states):
            output, states = self.attend(Steps(*[chunk.read(now) for chunk in chunks]), *states)
            return now + 1, outputs.write(now, output), *states

        _, outputs, *states = tf.while_loop(
            lambda now, *_: now < count,
            body,
            (0, tf.TensorArray(self.state_dtype, count), *self.by_head(states)),
            maximum_iterations=count,
        )
        read = tf.transpose(outputs.stack(), [0, 3, 1, 2, 4])  # [chunks, length, batch, heads, n]
        read = tf.reshape(read, [count * length, -1, self.heads, self.head_size])[:time]
        hidden = self.hidden(read, output_gate)
        no_output = tf.zeros([tf.shape(inputs)[1], self.units], self.state_dtype)
        outputs = held(hidden, mask, no_output)
        return outputs, last(outputs, no_output), self.flat(*states)

    def hidden(self, read, output_gate):
        """[..., units], of what was read [..., heads, n]."""
        if self.normalize:
            gain = tf.reshape(self.weight("output_gain"), [self.heads, self.head_size])
            read = layer_norm(read) * gain
        return output_gate * tf.reshape(read, tf.shape(output_gate))

    def masked(self, steps: Steps, is_step: tf.Tensor) -> Steps:
        """The others forget nothing and write nothing."""
        log_input = tf.where(is_step, steps.log_input, self.log_never)
        log_forget = tf.where(is_step, steps.log_forget, tf.zeros_like(steps.log_forget))
        return steps._replace(log_input=log_input, log_forget=log_forget)

    def attend(self, steps, memory, normalizer, stabilizer):
        """A chunk of steps, and what comes into it: (outputs [batch, heads, length, n], what leaves it).

        With F_t = log f_1 + ... + log f_t since the chunk began, step t sees what step s <= t wrote with
        the weight exp(F_t - F_s + log i_s), and what came in with exp(F_t + m), each over exp(m_t).
        """
        query, key, value, log_input, log_forget = steps
        log_since = tf.cumsum(log_forget, axis=-1)
        log_weights = log_since[..., tf.newaxis] + (log_input - log_since)[..., tf.newaxis, :]
        position = tf.range(tf.shape(log_input)[-1])
        is_past = position[:, tf.newaxis] >= position
        log_weights = tf.where(is_past, log_weights, self.log_never)  # [batch, heads, length, length]
        log_kept = log_since + stabilizer[..., tf.newaxis]
        stabilizers = tf.maximum(tf.reduce_max(log_weights, -1), log_kept)
        weights = tf.exp(log_weights - stabilizers[..., tf.newaxis])
        kept = tf.exp(log_kept - stabilizers)
        scores = tf.matmul(query, key, transpose_b=True) * weights
        read = tf.matmul(scores, value) + kept[..., tf.newaxis] * tf.matmul(query, memory, transpose_b=True)
        normalization = tf.reduce_sum(scores, -1) + kept * tf.linalg.matvec(query, normalizer)
        outputs = read / _scale(normalization, stabilizers)

        weights, kept = weights[..., -1, :, tf.newaxis], kept[..., -1, tf.newaxis]
        memory = kept[..., tf.newaxis] * memory + tf.matmul(weights * value, key, transpose_a=True)
        normalizer = kept * normalizer + tf.reduce_sum(weights * key, -2)
        return outputs, (memory, normalizer, stabilizers[..., -1])

    @property
    def log_never(self) -> tf.Tensor:
        """The logarithm of the input gate of a step that writes nothing."""
        return tf.constant(tf.as_dtype(self.state_dtype).min, self.state_dtype)

    def get_config(self):
        own = {"heads": self.heads, "forget_gate": self.forget_gate, "normalize": self.normalize}
        return {**super().get_config(), **own}


def _scale(normalization, stabilizer):
    """max(|z q|, exp(-m)) [..., 1]; exp is kept from overflowing, where it would have no slope."""
    return tf.maximum(tf.abs(normalization), tf.exp(tf.minimum(-stabilizer, 80)))[..., tf.newaxis]


def _in_chunks(tensor, filler, count, length):
    """An array of chunks [batch, heads, length, ...] of [time, batch, heads, ...], filled up at the end."""
    missing = count * length - tf.shape(tensor)[0]
    rank = len(tensor.shape)
    filled = tf.pad(tensor, [[0, missing], *[[0, 0]] * (rank - 1)], constant_values=filler)
    chunks = tf.reshape(filled, tf.concat([[count, length], tf.shape(tensor)[1:]], 0))
    chunks = tf.transpose(chunks, [0, 2, 3, 1, *range(4, rank + 1)])
    return tf.TensorArray(tensor.dtype, count, clear_after_read=False).unstack(chunks)
