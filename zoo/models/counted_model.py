"""What count-based language models have in common: all that they learn is learned before training begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.models.next_token import NextTokenModel, targets_of
from zoo.ngram.backoff import NONE
from zoo.text import Tokenizer


class CountedModel(NextTokenModel):
    """P(w | h) of a layer that has nothing to train, from the last tokens of the history.

    The state is the tokens that a history may reach back to, before the one that is read.

    Args:
        tokenizer: how texts become ids.
        separate_texts: the training texts were examples of their own, not one continuous text.
        layer: its `call` and `distribution` are those of zoo.ngram.layer.Backoff, `history_size` is how many
            tokens they need before each.
    """

    def __init__(self, tokenizer: Tokenizer, separate_texts: bool, layer: Any):
        super().__init__(tokenizer, separate_texts, "float32")
        self.layer = layer
        self.built = True

    @property
    def state_size(self):
        return {"history": max(self.layer.history_size - 1, 1)}

    def initial_states(self, batch_size):
        return {"history": tf.fill([batch_size, self.state_size["history"]], NONE)}

    def call(self, batch, states=None, training=False):
        inputs, targets = batch["inputs"], batch["targets"]
        history = (states or self.initial_states(tf.shape(inputs)[0]))["history"]
        tokens = tf.concat([history, inputs[:, :1], targets], axis=1)
        log_prob = self.layer(tf.cast(tokens, tf.int64), tf.shape(targets)[1])
        last = tf.concat([history, inputs], axis=1)[:, -self.state_size["history"] :]
        return {"log_prob": log_prob, "states": {"history": last}}

    def token_log_prob(self, batch, outputs):
        return tf.where(batch["mask"], outputs["log_prob"], 0.0)

    def read(self, inputs, lengths):
        history = self.initial_states(tf.shape(inputs)[0])["history"]
        size, tokens = self.state_size["history"], tf.concat([history, inputs], axis=1)
        places = tf.cast(lengths, tf.int32)[:, tf.newaxis] + tf.range(size)
        states = {"history": tf.gather(tokens, places, batch_dims=1)}
        return {"tokens": tf.signal.frame(tokens, size + 1, 1)}, states

    def step(self, token, states, step_weights=None):
        tokens = tf.concat([states["history"], token[:, tf.newaxis]], axis=1)
        return {"tokens": tokens}, {"history": tokens[:, 1:]}

    def logits(self, contexts):
        return self.layer.distribution(tf.cast(contexts["tokens"], tf.int64))


def boundary_of(tokenizer: Tokenizer, options: Mapping[str, Any]) -> int | None:
    """The token that histories do not reach across, by the options of `learn`; None where they do.

    Raises ValueError for `across_lines` with separate texts.
    """
    if options["separate_texts"] and options["across_lines"]:
        raise ValueError("--across_lines: there is nothing across the ends of separate texts")
    return None if options["across_lines"] else tokenizer.boundary_id


def ids_of(tokenizer: Tokenizer, records: tf.data.Dataset, separate_texts: bool) -> Iterator[np.ndarray]:
    """The text that is to be predicted, in parts, after the boundary that precedes it."""
    yield np.array([tokenizer.boundary_id], np.int32)
    targets = records.batch(64).map(
        lambda batch: targets_of(tokenizer, batch["text"], separate_texts).flat_values
    )
    yield from targets.prefetch(2).as_numpy_iterator()
