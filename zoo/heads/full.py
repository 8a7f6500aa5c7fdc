"""The softmax over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from zoo.heads.base import OutputLayer, chunk_rows, rows_and_shape


@keras.saving.register_keras_serializable("zoo")
class FullSoftmax(OutputLayer):
    """P(word | hidden) = softmax(E hidden + b), over the whole vocabulary.

    E [vocabulary, units] and b [vocabulary] are the layer's own, or, with `tied_to`, E is the input
    embedding (Press and Wolf 2017, arXiv:1608.05859; Inan et al. 2017, arXiv:1611.01462).
    """

    CAN_BE_TIED = True

    def build(self, hidden_shape):
        self.add_embedding(hidden_shape[-1])

    def _weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.embedding), tf.convert_to_tensor(self.bias)

    def call(self, hidden, history=None):
        rows, shape = rows_and_shape(hidden)
        embedding, bias = self._weights()
        return tf.reshape(logits_of(rows, embedding, bias), tf.concat([shape, [self.vocabulary_size]], 0))

    def loss(self, hidden, targets, weights, history=None):
        """sum_n weights[n] * -log P(targets[n] | hidden[n]), in nats."""
        return softmax_loss(hidden, targets, weights, *self._weights())

    def log_prob(self, hidden, targets, history=None):
        return softmax_log_prob(hidden, targets, *self._weights())


def logits_of(hidden: tf.Tensor, embedding: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """E hidden + b: [tokens, units] -> [tokens, words]."""
    return tf.nn.bias_add(tf.matmul(hidden, embedding, transpose_b=True), bias)


def softmax_loss(
    hidden: tf.Tensor,
    targets: tf.Tensor,
    weights: tf.Tensor,
    embedding: tf.Tensor,
    bias: tf.Tensor,
) -> tf.Tensor:
    """sum_n weights[n] * -log softmax(E hidden[n] + b)[targets[n]], differentiable in hidden, E and b.

    The gradient is computed along with the loss, chunk by chunk: see `differentiated_by_chunks`.
    """
    rows = chunk_rows(embedding.shape[0])
    return differentiated_by_chunks(_chunk_loss, rows, [hidden], [targets, weights], [embedding, bias])


def differentiated_by_chunks(
    chunk_loss: Callable[..., Sequence[tf.Tensor]],
    rows: int,
    of_tokens: Sequence[tf.Tensor],
    constant: Sequence[tf.Tensor],
    shared: Sequence[tf.Tensor],
) -> tf.Tensor:
    """A loss whose gradient is computed along with it, for so many rows at once: no logits outlive a chunk.

    `chunk_loss` of rows of `of_tokens` and `constant`, [tokens, ...], and of `shared` gives the loss and its
    gradients with respect to `of_tokens` and `shared`. Where the number of tokens is not known beforehand,
    chunks take a loop, which XLA cannot compile.
    """

    @tf.custom_gradient
    def run(*inputs):
        of_tokens, shared = inputs[:count], inputs[count:]
        of_chunks = _in_a_loop if of_tokens[0].shape[0] is None else _one_after_the_other
        total, *gradients = of_chunks(
            lambda part: chunk_loss(*(tensor[part] for tensor in (*of_tokens, *constant)), *shared),
            rows,
            of_tokens,
            shared,
        )
        return total, lambda upstream: [upstream * gradient for gradient in gradients]

    count = len(of_tokens)
    return run(*of_tokens, *shared)


def _one_after_the_other(chunk, rows, of_tokens, shared):
    total: tf.Tensor = 0.0
    gradients: list[tf.Tensor] = []
    for start in range(0, max(of_tokens[0].shape[0], 1), rows):
        with tf.control_dependencies(gradients):  # the logits of one chunk at a time
            nats, *more = chunk(slice(start, start + rows))
        total += nats
        gradients = _joined(gradients, more, len(of_tokens)) if gradients else more
    return [total, *gradients]


def _in_a_loop(chunk, rows, of_tokens, shared):
    count = tf.shape(of_tokens[0])[0]

    def body(start, total, *gradients):
        nats, *more = chunk(slice(start, start + rows))
        return [start + rows, total + nats, *_joined(gradients, more, len(of_tokens))]

    total = tf.zeros([], of_tokens[0].dtype)
    gradients = [*(tensor[:0] for tensor in of_tokens), *map(tf.zeros_like, shared)]
    shapes = [
        *(tf.TensorShape([None, *tensor.shape[1:]]) for tensor in of_tokens),
        *(t.shape for t in shared),
    ]
    _, *result = tf.while_loop(
        lambda start, *_: start < count,
        body,
        [0, total, *gradients],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape([]), *shapes],
        parallel_iterations=1,
    )
    return result


def _joined(gradients, chunk, of_tokens):
    """Those with respect to tokens, the first of them, side by side; those of all chunks' weights summed."""
    pairs = list(zip(gradients, chunk, strict=True))
    return [
        *(tf.concat(pair, 0) for pair in pairs[:of_tokens]),
        *(first + second for first, second in pairs[of_tokens:]),
    ]


def _chunk_loss(hidden, targets, weights, embedding, bias):
    """Loss of one chunk and its gradients with respect to hidden, embedding and bias.

    The gradient with respect to the logits is expected - observed = softmax - onehot(target). Kept
    apart, the observed part is a gather and a scatter of rows, and the expected part is the result
    of the softmax itself, so nothing else of the logits' size is ever computed.
    """
    expected, observed, nats = expectation(hidden, targets, embedding, bias)
    total = tf.reduce_sum(weights * nats)
    return total, *softmax_gradients(hidden, targets, weights, embedding, bias, expected, observed)


def expectation(hidden, targets, embedding, bias):
    """P [tokens, words], the targets' rows of E, and -log P(target) [tokens]."""
    logits = logits_of(hidden, embedding, bias)
    expected = tf.nn.softmax(logits)
    observed = tf.gather(embedding, targets)
    return expected, observed, _nats(hidden, targets, expected, observed, embedding, bias)


def softmax_gradients(hidden, targets, weights, embedding, bias, expected, observed):
    """Those of sum_n weights[n] * -log P(targets[n]) with respect to hidden, E and b."""
    weights = weights[:, tf.newaxis]
    d_hidden = weights * (tf.matmul(expected, embedding) - observed)
    rows = targets[:, tf.newaxis]
    d_embedding = tf.matmul(expected, weights * hidden, transpose_a=True)
    d_embedding = tf.tensor_scatter_nd_sub(d_embedding, rows, weights * hidden)
    d_bias = tf.matmul(weights, expected, transpose_a=True)[0]
    d_bias = tf.tensor_scatter_nd_sub(d_bias, rows, weights[:, 0])
    return d_hidden, d_embedding, d_bias


def _nats(hidden, targets, expected, observed, embedding, bias):
    """-log P(target): by its probability, and by its logit where that is too small for a logarithm.

    Of logits it looks at two a token, so that nothing keeps the memory of the others from the softmax.
    """
    probability = tf.gather(expected, targets, batch_dims=1)

    def by_logit():
        # The largest probability is at least 1/vocabulary, so it has a logarithm.
        best = tf.argmax(expected, -1)
        odds = tf.reduce_sum(hidden * (tf.gather(embedding, best) - observed), -1)
        odds += tf.gather(bias, best) - tf.gather(bias, targets)
        return odds - tf.math.log(tf.reduce_max(expected, -1))

    return tf.cond(tf.reduce_all(probability > 1e-30), lambda: -tf.math.log(probability), by_logit)


def softmax_log_prob(
    hidden: tf.Tensor, targets: tf.Tensor, embedding: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """log softmax(E hidden[n] + b)[targets[n]], [tokens], chunk by chunk."""

    def chunk(hidden, targets):
        logits = logits_of(hidden, embedding, bias)
        chosen = tf.gather(logits, targets, batch_dims=1)
        return chosen - tf.reduce_logsumexp(logits, axis=-1)

    return by_chunks(chunk, chunk_rows(embedding.shape[0]), hidden, targets)


def by_chunks(function, rows: int, first: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
    """What the function makes of tensors [tokens, ...], a number a token [tokens], of so many at once."""
    count = tf.shape(first)[0]

    def chunk(start, written):
        part = slice(start, start + rows)
        values = function(*(tensor[part] for tensor in (first, *others)))
        return start + rows, tf.concat([written, values], 0)

    _, values = tf.while_loop(
        lambda start, _: start < count,
        chunk,
        (0, tf.zeros([0], first.dtype)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
        parallel_iterations=1,
    )
    return values
