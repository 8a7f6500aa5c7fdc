"""Output layers of language models, with their losses."""

from __future__ import annotations

import keras
import tensorflow as tf

# Logits computed at once; 2^25 floats are 128 MiB.
CHUNK_ELEMENTS = 2**25


@keras.saving.register_keras_serializable("zoo")
class FullSoftmax(keras.layers.Layer):
    """P(word | hidden) = softmax(E hidden + b), over the whole vocabulary.

    E [vocabulary, units] and b [vocabulary] are the layer's own, or, with `tied_to`, E is the input
    embedding (Press and Wolf 2017, arXiv:1608.05859; Inan et al. 2017, arXiv:1611.01462).
    """

    def __init__(
        self,
        vocabulary_size: int,
        tied_to: keras.layers.Embedding | None = None,
        initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.tied_to = tied_to
        self.initializer = keras.initializers.get(initializer)

    def build(self, hidden_shape):
        if self.tied_to is None:
            self.output_embedding = self.add_weight(
                name="output_embedding",
                shape=(self.vocabulary_size, hidden_shape[-1]),
                initializer=self.initializer,
            )
        elif self.tied_to.output_dim != hidden_shape[-1]:
            raise ValueError(
                f"tied embeddings need embedding_size equal to the last layer's units: "
                f"{self.tied_to.output_dim} != {hidden_shape[-1]}"
            )
        self.bias = self.add_weight(name="bias", shape=(self.vocabulary_size,), initializer="zeros")

    def _weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        embedding = self.output_embedding if self.tied_to is None else self.tied_to.embeddings
        return tf.convert_to_tensor(embedding), tf.convert_to_tensor(self.bias)

    def call(self, hidden):
        """Logits [..., vocabulary] of hidden [..., units]."""
        embedding, bias = self._weights()
        rows = tf.reshape(hidden, [-1, hidden.shape[-1]])
        logits = tf.nn.bias_add(tf.matmul(rows, embedding, transpose_b=True), bias)
        return tf.reshape(logits, tf.concat([tf.shape(hidden)[:-1], [self.vocabulary_size]], 0))

    def loss(self, hidden: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """sum_n weights[n] * -log P(targets[n] | hidden[n]), in nats, for training.

        The gradient is computed along with the loss, chunk by chunk, so no [tokens, vocabulary]
        tensor outlives its chunk. hidden [tokens, units], targets and weights [tokens].
        """

        @tf.custom_gradient
        def run(hidden, embedding, bias):
            total: tf.Tensor = 0.0
            gradients: list[tf.Tensor] = []
            for start, size in _static_chunks(hidden, self.vocabulary_size):
                part = slice(start, start + size)
                with tf.control_dependencies(gradients):  # the logits of one chunk at a time
                    nats, *chunk = _chunk_loss(hidden[part], targets[part], weights[part], embedding, bias)
                total += nats
                gradients = _joined(gradients, chunk) if gradients else chunk
            return total, lambda upstream: [upstream * gradient for gradient in gradients]

        embedding, bias = self._weights()
        return run(hidden, embedding, bias)

    def log_prob(self, hidden: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """log P(targets[n] | hidden[n]), in nats: [tokens, units], [tokens] -> [tokens]."""
        embedding, bias = self._weights()
        rows = max(1, CHUNK_ELEMENTS // self.vocabulary_size)
        count = tf.shape(hidden)[0]

        def chunk(start, written):
            part = slice(start, start + rows)
            logits = tf.nn.bias_add(tf.matmul(hidden[part], embedding, transpose_b=True), bias)
            chosen = tf.gather(logits, targets[part], batch_dims=1)
            return start + rows, tf.concat([written, chosen - tf.reduce_logsumexp(logits, axis=-1)], 0)

        _, log_prob = tf.while_loop(
            lambda start, _: start < count,
            chunk,
            (0, tf.zeros([0], hidden.dtype)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
            parallel_iterations=1,
        )
        return log_prob

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def _static_chunks(hidden, vocabulary_size):
    """(start, size) of each chunk; one chunk where the number of tokens is not known beforehand."""
    tokens = hidden.shape[0]
    if tokens is None:
        return [(0, tf.shape(hidden)[0])]
    rows = max(1, CHUNK_ELEMENTS // vocabulary_size)
    return [(start, min(rows, tokens - start)) for start in range(0, max(tokens, 1), rows)]


def _chunk_loss(hidden, targets, weights, embedding, bias):
    """Loss of one chunk and its gradients with respect to hidden, embedding and bias.

    The gradient with respect to the logits is expected - observed = softmax - onehot(target). Kept
    apart, the observed part is a gather and a scatter of rows, and the expected part is the result
    of the softmax itself, so nothing else of the logits' size is ever computed.
    """
    logits = tf.nn.bias_add(tf.matmul(hidden, embedding, transpose_b=True), bias)  # [tokens, vocabulary]
    expected = tf.nn.softmax(logits)
    observed = tf.gather(embedding, targets)
    total = tf.reduce_sum(weights * _nats(hidden, targets, logits, expected, observed, bias))

    weights = weights[:, tf.newaxis]
    d_hidden = weights * (tf.matmul(expected, embedding) - observed)
    rows = targets[:, tf.newaxis]
    d_embedding = tf.matmul(expected, weights * hidden, transpose_a=True)
    d_embedding = tf.tensor_scatter_nd_sub(d_embedding, rows, weights * hidden)
    d_bias = tf.matmul(weights, expected, transpose_a=True)[0]
    d_bias = tf.tensor_scatter_nd_sub(d_bias, rows, weights[:, 0])
    return total, d_hidden, d_embedding, d_bias


def _nats(hidden, targets, logits, expected, observed, bias):
    """-log P(target): by its probability, and by its logit where that is too small for a logarithm."""
    probability = tf.gather(expected, targets, batch_dims=1)

    def by_logit():
        # The largest probability is at least 1/vocabulary, so it has a logarithm.
        log_normalizer = tf.reduce_max(logits, -1) - tf.math.log(tf.reduce_max(expected, -1))
        return log_normalizer - tf.reduce_sum(hidden * observed, -1) - tf.gather(bias, targets)

    return tf.cond(tf.reduce_all(probability > 1e-30), lambda: -tf.math.log(probability), by_logit)


def _joined(gradients, chunk):
    d_hidden, d_embedding, d_bias = gradients
    return [tf.concat([d_hidden, chunk[0]], 0), d_embedding + chunk[1], d_bias + chunk[2]]
