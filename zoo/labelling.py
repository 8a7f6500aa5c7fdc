"""From a classifier's logits to labels: one of them, or any number."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.metrics import Confusion, LabelSets
from zoo.vocabulary import Labels


class OneLabel:
    """Each text has one label: P(label) = softmax(logits).

    Args:
        labels: in the order of the logits.
        smoothing: share of the target's probability that all labels have alike (Szegedy et al. 2015,
            arXiv:1512.00567, section 7).
        balanced: errors count the more the rarer the label was in training, on average 1.
    """

    def __init__(self, labels: Labels, smoothing: float = 0.0, balanced: bool = False):
        self.labels = labels
        self.smoothing = smoothing
        self.weights = labels.balance() if balanced else None

    def targets(self, names: tf.Tensor) -> tf.Tensor:
        """What a batch holds of the labels, string [batch]: int32 ids."""
        return self.labels.ids(names, "label")

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(logits)

    def loss(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Nats to train on, [batch]."""
        shares = tf.one_hot(targets, len(self.labels), dtype=logits.dtype)
        shares = shares * (1 - self.smoothing) + self.smoothing / len(self.labels)
        nats = tf.nn.softmax_cross_entropy_with_logits(shares, logits)
        return nats if self.weights is None else nats * tf.gather(tf.cast(self.weights, nats.dtype), targets)

    def metric(self) -> keras.metrics.Metric:
        return Confusion(self.labels.names)

    def update(self, metric: Any, log_prob: Any, targets: Any) -> None:
        """Add a batch to a `metric`; log_prob as `log_probabilities` gives it."""
        nats = -tf.reduce_sum(tf.gather(log_prob, targets, batch_dims=1))
        metric.update_state(targets, tf.argmax(log_prob, axis=-1, output_type=tf.int32), nats)

    def log_probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.log_softmax(logits)

    def prior(self, targets: list[np.ndarray]) -> np.ndarray:
        """Log probabilities [labels] by the frequency in training, plus one."""
        counts = 1 + np.bincount(np.concatenate(targets), minlength=len(self.labels))
        return np.log(counts / counts.sum())

    def said(self, probabilities: tf.Tensor) -> tf.Tensor:
        """The likeliest label, string [batch]."""
        return self.labels.of(tf.argmax(probabilities, axis=-1))


class AnyLabels:
    """Each text has some of the labels, each by itself: P(label) = sigmoid(logit).

    Args:
        separator: between the labels of a text.
        others: as of `OneLabel`; a target is 1 - smoothing / 2 or smoothing / 2.
    """

    def __init__(self, labels: Labels, separator: str, smoothing: float = 0.0, balanced: bool = False):
        self.labels = labels
        self.separator = separator
        self.smoothing = smoothing
        self.weights = labels.balance() if balanced else None

    def targets(self, names: tf.Tensor) -> tf.Tensor:
        """1 for each label that a text has, float32 [batch, labels]."""
        parts = tf.strings.split(names, self.separator)
        ids = self.labels.ids(tf.strings.strip(parts.values), "label")
        places = tf.stack([tf.cast(parts.value_rowids(), tf.int32), ids], axis=1)
        shape = [tf.size(names), len(self.labels)]
        return tf.minimum(tf.scatter_nd(places, tf.ones_like(ids, tf.float32), shape), 1.0)

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(logits)

    def loss(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Nats to train on, [batch]: summed over the labels."""
        shares = tf.cast(targets, logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        nats = tf.nn.sigmoid_cross_entropy_with_logits(shares, logits)
        return tf.reduce_sum(
            nats if self.weights is None else nats * tf.cast(self.weights, nats.dtype), axis=1
        )

    def metric(self) -> keras.metrics.Metric:
        return LabelSets(self.labels.names)

    def update(self, metric: Any, log_prob: Any, targets: Any) -> None:
        yes, no = tf.unstack(log_prob, axis=-1)
        nats = -tf.reduce_sum(tf.where(targets > 0.5, yes, no))
        metric.update_state(targets > 0.5, yes > no, nats)

    def log_probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Of having each label, and of not having it: [batch, labels, 2]."""
        return tf.stack([tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)], axis=-1)

    def prior(self, targets: list[np.ndarray]) -> np.ndarray:
        every = np.concatenate(targets)
        share = (1 + every.sum(axis=0)) / (2 + len(every))
        return np.log(np.stack([share, 1 - share], axis=-1))

    def said(self, probabilities: tf.Tensor) -> tf.Tensor:
        """The labels that are likelier than not, joined by the separator."""
        chosen = probabilities > 0.5
        names = tf.ragged.boolean_mask(
            tf.repeat(tf.constant([self.labels.names]), tf.shape(chosen)[0], axis=0), chosen
        )
        return tf.strings.reduce_join(names, axis=-1, separator=self.separator)
