"""Metrics that Keras has not."""

from __future__ import annotations

import math

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("zoo")
class Perplexity(keras.metrics.Metric):
    """How well a language model predicts a text.

        perplexity = exp(nats per token),   bits per character = nats / ln 2 / characters

    Perplexities compare only where the tokens are the same; bits per character always do. Sums are
    kept in float64: a split may have millions of tokens.
    """

    def __init__(self, name="perplexity", **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)
        self.nats = self.add_variable((), "zeros", name="nats", dtype="float64")
        self.tokens = self.add_variable((), "zeros", name="tokens", dtype="float64")
        self.characters = self.add_variable((), "zeros", name="characters", dtype="float64")

    def update_state(self, nats, tokens, characters):
        """Add up a batch: total negative log-likelihood, number of tokens, number of characters."""
        self.nats.assign_add(tf.cast(nats, tf.float64))
        self.tokens.assign_add(tf.cast(tokens, tf.float64))
        self.characters.assign_add(tf.cast(characters, tf.float64))

    def result(self):
        nats_per_token = tf.math.divide_no_nan(self.nats.value, self.tokens.value)
        return {
            "tokens": tf.convert_to_tensor(self.tokens.value),
            "nats_per_token": nats_per_token,
            "perplexity": tf.exp(nats_per_token),
            "bits_per_character": tf.math.divide_no_nan(self.nats.value, self.characters.value)
            / math.log(2.0),
        }

    def get_config(self):
        return {"name": self.name}
