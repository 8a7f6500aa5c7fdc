"""Metrics that Keras has not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from zoo.spans import OUTSIDE, split


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


def unigram_perplexity(
    characters: np.ndarray, training: Iterable[np.ndarray], validation: Iterable[np.ndarray]
) -> dict[str, float]:
    """What `Perplexity` says of tokens whose probability is their frequency in training, plus one.

    Args:
        characters: how many each id stands for.
        training, validation: ids, some at a time.
    """
    counts = np.ones(len(characters))
    for ids in training:
        counts += np.bincount(ids, minlength=len(counts))
    log_prob = np.log(counts / counts.sum())
    perplexity = Perplexity()
    for ids in validation:
        perplexity.update_state(-log_prob[ids].sum(), len(ids), characters[ids].sum())
    return {name: float(value) for name, value in perplexity.result().items()}


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

    def table(self) -> str:
        """For people: rows are actual classes, columns what they were taken for."""
        rows = self.counts.numpy().astype(int).tolist()
        return _table(
            [["", *self.labels], *([label, *row] for label, row in zip(self.labels, rows, strict=True))]
        )

    def get_config(self):
        return {"labels": self.labels, "name": self.name}


@keras.saving.register_keras_serializable("zoo")
class LabelSets(keras.metrics.Metric):
    """How often a classifier of several labels a text has a label right.

    accuracy = texts with exactly the right labels / examples
    F1 of a label = 2 right / (actual + predicted),  macro F1 the mean over the labels, 0 of those nowhere
    """

    def __init__(self, labels, name="label_sets", **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)
        self.labels = tuple(labels)
        # Right, predicted and actual ones of each label.
        self.counts = self.add_variable((3, len(self.labels)), "zeros", name="counts", dtype="float64")
        self.totals = self.add_variable((3,), "zeros", name="totals", dtype="float64")

    def update_state(self, labels, predictions, nats):
        """Add up a batch: which labels texts have and which are said, bool [batch, labels]; total nats."""
        parts = (labels & predictions, predictions, labels)
        self.counts.assign_add(
            tf.stack([tf.math.count_nonzero(part, axis=0, dtype=tf.float64) for part in parts])
        )
        exact = tf.reduce_all(tf.equal(labels, predictions), axis=1)
        totals = (_count(tf.ones_like(exact)), _count(exact), tf.cast(nats, tf.float64))
        self.totals.assign_add(tf.stack(totals))

    def result(self):
        right, predicted, actual = tf.unstack(tf.convert_to_tensor(self.counts.value))
        examples, exact, nats = tf.unstack(tf.convert_to_tensor(self.totals.value))
        return {
            "examples": examples,
            "nats_per_example": tf.math.divide_no_nan(nats, examples),
            "accuracy": tf.math.divide_no_nan(exact, examples),
            "macro_f1": tf.reduce_mean(tf.math.divide_no_nan(2 * right, predicted + actual)),
        }

    def table(self) -> str:
        """For people: how often each label was there, was said, and both."""
        header = ["", "actual", "predicted", "right"]
        right, predicted, actual = self.counts.numpy().astype(int).tolist()
        return _table([header, *map(list, zip(self.labels, actual, predicted, right, strict=True))])

    def get_config(self):
        return {"labels": self.labels, "name": self.name}


@keras.saving.register_keras_serializable("zoo")
class Accuracy(keras.metrics.Metric):
    """How often the answer is right: accuracy = right / all, with nats per prediction.

    `of` is what is predicted, such as "token", which names the results: tokens, nats_per_token, accuracy.
    """

    def __init__(self, of, name="accuracy", **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)
        self.of = of
        self.right = self.add_variable((), "zeros", name="right", dtype="float64")
        self.all = self.add_variable((), "zeros", name="all", dtype="float64")
        self.nats = self.add_variable((), "zeros", name="nats", dtype="float64")

    def update_state(self, is_right, mask, nats):
        """Add up a batch: bools of one shape, what is right and what counts; total nats."""
        self.right.assign_add(_count(mask & is_right))
        self.all.assign_add(_count(mask))
        self.nats.assign_add(tf.cast(nats, tf.float64))

    def result(self):
        return {
            f"{self.of}s": tf.convert_to_tensor(self.all.value),
            f"nats_per_{self.of}": tf.math.divide_no_nan(self.nats.value, self.all.value),
            "accuracy": tf.math.divide_no_nan(self.right.value, self.all.value),
        }

    def get_config(self):
        return {"of": self.of, "name": self.name}


@keras.saving.register_keras_serializable("zoo")
class SpanF1(keras.metrics.Metric):
    """How many entities are found, each of its exact extent and kind; see zoo.spans.

        precision = right / predicted,   recall = right / actual,   F1 = 2 right / (predicted + actual)

    Counted as the CoNLL 2000 evaluation and seqeval count, which make the best of illegal tags: an entity
    begins where there is a B or an S, after an O, an E or an S, and where the kind changes.
    """

    def __init__(self, tags: Sequence[str], name="span_f1", **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)
        self.tags = tuple(tags)
        parts = [split(tag) for tag in self.tags]
        kinds = sorted({kind for _, kind in parts})
        self._kind = [kinds.index(kind) for _, kind in parts]
        self._outside = [tag == OUTSIDE for tag in self.tags]
        self._begins = [prefix in ("B", "S") for prefix, _ in parts]
        self._ends = [prefix in ("E", "S", OUTSIDE) for prefix, _ in parts]
        self.right = self.add_variable((), "zeros", name="right", dtype="float64")
        self.predicted = self.add_variable((), "zeros", name="predicted", dtype="float64")
        self.actual = self.add_variable((), "zeros", name="actual", dtype="float64")

    def update_state(self, tags, predictions, mask):
        """Add up a batch: ids of actual and predicted tags and a mask, [batch, time]."""
        actual, predicted = self._spans(tags, mask), self._spans(predictions, mask)
        either = tf.unique(tf.concat([actual, predicted], axis=0)).y
        self.right.assign_add(tf.cast(tf.size(actual) + tf.size(predicted) - tf.size(either), tf.float64))
        self.predicted.assign_add(tf.cast(tf.size(predicted), tf.float64))
        self.actual.assign_add(tf.cast(tf.size(actual), tf.float64))

    def _spans(self, tags: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """A number for each entity, of its row, first and last step, and kind."""
        inside = mask & ~tf.gather(self._outside, tags)
        kind = tf.gather(self._kind, tags)
        begins = tf.gather(self._begins, tags[:, 1:]) | tf.gather(self._ends, tags[:, :-1])
        begins |= tf.not_equal(kind[:, 1:], kind[:, :-1])
        begins = inside & tf.pad(begins, [[0, 0], [1, 0]], constant_values=True)
        goes_on = tf.pad((inside & ~begins)[:, 1:], [[0, 0], [0, 1]])
        first, last = tf.where(begins), tf.where(inside & ~goes_on)  # in the same order
        time = tf.shape(tags, tf.int64)[1]
        kinds = tf.cast(tf.gather_nd(kind, first), tf.int64)
        return ((first[:, 0] * time + first[:, 1]) * time + last[:, 1]) * len(self.tags) + kinds

    def result(self):
        right, predicted, actual = self.right.value, self.predicted.value, self.actual.value
        return {
            "precision": tf.math.divide_no_nan(right, predicted),
            "recall": tf.math.divide_no_nan(right, actual),
            "f1": tf.math.divide_no_nan(2 * right, predicted + actual),
        }

    def get_config(self):
        return {"tags": self.tags, "name": self.name}


def _count(condition: tf.Tensor) -> tf.Tensor:
    return tf.math.count_nonzero(condition, dtype=tf.float64)


def _table(rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest entry; numbers on the right."""
    columns = [[str(entry) for entry in column] for column in zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(entry.rjust(w) for entry, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    )
