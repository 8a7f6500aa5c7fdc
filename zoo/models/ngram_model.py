"""Count-based language models, to be used as any other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from zoo import ngram
from zoo.models.base import learn_tokenizer
from zoo.models.next_token import NextTokenModel, targets_of
from zoo.ngram.backoff import NONE
from zoo.ngram.layer import Backoff
from zoo.text import TOKENIZERS, Tokenizer

SIZES = "ngrams.json"


class NgramModel(NextTokenModel):
    """An n-gram model with Kneser-Ney smoothing (see zoo.ngram.kneser_ney); `learn` counts the training text.

    The state is the tokens that a history may reach back to, before the one that is read.

    Args:
        tokenizer: how texts become ids.
        sizes: how many n-grams there are of each order; their values are weights.
        separate_texts: the training texts were examples of their own, not one continuous text.

    Options of `learn`: `order`, `prune`, `discount_fallback` and `closed_vocabulary` as in
    zoo.ngram.kneser_ney, and `across_lines`: in a continuous text n-grams reach across the ends of lines.
    """

    def __init__(self, tokenizer: Tokenizer, sizes: Sequence[int], separate_texts: bool = False):
        super().__init__(tokenizer, separate_texts, "float32")
        self.sizes = list(sizes)
        self.ngrams = Backoff(sizes, name="ngrams")
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        tokenizer = learn_tokenizer(records, options, source)
        separate_texts = options["separate_texts"]
        if separate_texts and options["across_lines"]:
            raise ValueError("--across_lines: there is nothing across the ends of separate texts")
        boundary = None if options["across_lines"] else tokenizer.boundary_id
        ids = _ids(tokenizer, records, separate_texts)
        counts = ngram.count(ids, options["order"], tokenizer.vocabulary_size, boundary)
        try:
            estimated = ngram.estimate(
                counts,
                options["prune"],
                options["discount_fallback"] or None,
                not options["closed_vocabulary"],
            )
        except ValueError as error:
            raise ValueError(f"{error} (--order, --discount_fallback, --prune)") from error
        model = cls(tokenizer, estimated.sizes, separate_texts)
        model.ngrams.assign(estimated)
        return model

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        return cls(tokenizer, json.loads(assets[SIZES]), options["separate_texts"])

    def assets(self):
        return {**super().assets(), SIZES: json.dumps(self.sizes).encode()}

    @property
    def state_size(self):
        return {"history": max(self.ngrams.order - 2, 1)}

    def initial_states(self, batch_size):
        return {"history": tf.fill([batch_size, self.state_size["history"]], NONE)}

    def call(self, batch, states=None, training=False):
        inputs, targets = batch["inputs"], batch["targets"]
        history = (states or self.initial_states(tf.shape(inputs)[0]))["history"]
        tokens = tf.concat([history, inputs[:, :1], targets], axis=1)
        log_prob = self.ngrams(tf.cast(tokens, tf.int64), tf.shape(targets)[1])
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
        return self.ngrams.distribution(tf.cast(contexts["tokens"], tf.int64))


def _ids(tokenizer: Tokenizer, records: tf.data.Dataset, separate_texts: bool) -> Iterator[np.ndarray]:
    """The text that is to be predicted, in parts, after the boundary that precedes it."""
    yield np.array([tokenizer.boundary_id], np.int32)
    targets = records.batch(64).map(
        lambda batch: targets_of(tokenizer, batch["text"], separate_texts).flat_values
    )
    yield from targets.prefetch(2).as_numpy_iterator()
