"""Token by token: how probable each token of a text was, and what else might have been there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from zoo.models.next_token import NextTokenModel

TOP = 5  # alternatives
_CHUNK_ELEMENTS = 2**24  # logits computed at once


def token_details(
    model: NextTokenModel, inputs: tf.RaggedTensor, targets: tf.RaggedTensor
) -> dict[str, tf.Tensor]:
    """log P, in nats, of the ids `targets` [batch, (tokens)], and the most probable ids at each place.

    `inputs` [batch, (more)] are the tokens before each target, and maybe some before them. Gives
    `token_log_probs` [batch, tokens], `top_ids` and `top_log_probs` [batch, tokens, TOP, or as many as there
    are]; in padding 0.
    """
    lengths = targets.row_lengths()
    first = inputs.row_lengths() - lengths
    dense = targets.to_tensor()
    places = first[:, tf.newaxis] + tf.range(tf.shape(dense, tf.int64)[1])
    contexts, _ = model.read(inputs.to_tensor(), inputs.row_lengths())
    places = tf.clip_by_value(places, 0, tf.maximum(inputs.row_lengths()[:, tf.newaxis] - 1, 0))  # in padding
    rows = {name: _rows(tf.gather(each, places, batch_dims=1)) for name, each in contexts.items()}
    log_prob, top_log_prob, top_ids = _of_rows(model, rows, tf.reshape(dense, [-1]))

    shape = tf.shape(dense)
    is_token = tf.sequence_mask(lengths, shape[1])
    wide = tf.concat([shape, [min(TOP, model.tokenizer.vocabulary_size)]], 0)
    return {
        "token_log_probs": tf.where(is_token, tf.reshape(log_prob, shape), 0.0),
        "top_log_probs": tf.where(is_token[..., tf.newaxis], tf.reshape(top_log_prob, wide), 0.0),
        "top_ids": tf.where(is_token[..., tf.newaxis], tf.reshape(top_ids, wide), 0),
    }


def _rows(contexts):
    """[batch, time, ...] -> [batch * time, ...]."""
    return tf.reshape(contexts, tf.concat([[-1], tf.shape(contexts)[2:]], 0))


def _of_rows(model, contexts, targets):
    """log P(target), and the largest log P with their ids, after contexts [n, ...]; so many at a time."""
    vocabulary = model.tokenizer.vocabulary_size
    size, top = max(1, _CHUNK_ELEMENTS // vocabulary), min(TOP, vocabulary)

    def chunk(start, *written):
        part = slice(start, start + size)
        logits = model.logits({name: each[part] for name, each in contexts.items()})
        log_prob = tf.nn.log_softmax(logits)
        of_target = tf.gather(log_prob, targets[part], batch_dims=1)
        best, ids = tf.math.top_k(log_prob, top)
        news = (of_target, best, ids)
        return start + size, *(tf.concat(pair, 0) for pair in zip(written, news, strict=True))

    vector, matrix = tf.TensorShape([None]), tf.TensorShape([None, top])
    _, *found = tf.while_loop(
        lambda start, *_: start < tf.size(targets),
        chunk,
        (0, tf.zeros([0]), tf.zeros([0, top]), tf.zeros([0, top], tf.int32)),
        shape_invariants=(tf.TensorShape([]), vector, matrix, matrix),
        parallel_iterations=1,
    )
    return found
