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


@keras.saving.register_keras_serializable("zoo")
class Confusion(keras.metrics.Metric):
    """How often a classifier took one class for another: `counts` [actual, predicted].

        accuracy = right / examples,    F1 of a class = 2 right / (actual + predicted)

    Macro F1 is the mean over all classes; that of a class which neither occurs nor is predicted is 0, as
    scikit-learn has it.
    """

    def __init__(self, labels, name="confusion", **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)
        self.labels = tuple(labels)
        size = len(self.labels)
        self.counts = self.add_variable((size, size), "zeros", name="counts", dtype="float64")
        self.nats = self.add_variable((), "zeros", name="nats", dtype="float64")

    def update_state(self, labels, predictions, nats):
        """Add up a batch: ids of the actual and the predicted classes, total negative log-likelihood."""
        size = len(self.labels)
        self.counts.assign_add(tf.math.confusion_matrix(labels, predictions, size, dtype=tf.float64))
        self.nats.assign_add(tf.cast(nats, tf.float64))

    def result(self):
        counts = tf.convert_to_tensor(self.counts.value)
        examples, right = tf.reduce_sum(counts), tf.linalg.diag_part(counts)
        either = tf.reduce_sum(counts, axis=0) + tf.reduce_sum(counts, axis=1)
        return {
            "examples": examples,
            "nats_per_example": tf.math.divide_no_nan(self.nats.value, examples),
            "accuracy": tf.math.divide_no_nan(tf.reduce_sum(right), examples),
            "macro_f1": tf.reduce_mean(tf.math.divide_no_nan(2 * right, either)),
        }

    def get_config(self):
        return {"labels": self.labels, "name": self.name}
