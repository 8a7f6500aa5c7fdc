"""The adaptive softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf

from zoo.heads.base import OutputLayer, rows_and_shape, unit_variance
from zoo.heads.full import logits_of, softmax_log_prob, softmax_loss


@keras.saving.register_keras_serializable("zoo")
class AdaptiveSoftmax(OutputLayer):
    """A softmax over the frequent words and clusters of rare ones, each cluster a smaller softmax.

        P(word | h)      = softmax(E_0 h + b_0)[word]                       of a frequent word
        P(word | h)      = softmax(E_0 h + b_0)[cluster i] * softmax(E_i V_i h + b_i)[word]    of cluster i
        V_i              [units / factor^i, units]

    (Grave et al. 2017, arXiv:1609.04309.) The loss computes a cluster for those tokens only that are in it.
    The V_i start normal, of the variance 1 / rows, whatever the initializer.

    Args:
        cutoffs: the ids that clusters begin at, ascending, also written as "2000/10000"; by default
            10 sqrt(vocabulary), and from there in steps of five times as much.
        factor: how much smaller each cluster's vectors are than those of the one before.
        and those of `OutputLayer`, but for `tied_to`.

    Raises:
        ValueError: cutoffs that do not ascend within the vocabulary, or a factor below 1.
    """

    def __init__(
        self,
        vocabulary_size: int,
        tied_to: keras.layers.Embedding | None = None,
        initializer: Any = None,
        cutoffs: str | Sequence[int] = "",
        factor: float = 4.0,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied_to, initializer, **kwargs)
        self.cutoffs = self._checked(cutoffs)
        self.factor = factor
        if not factor >= 1:
            raise ValueError(f"factor={factor:g}: an adaptive softmax's clusters become smaller: at least 1")

    def _checked(self, cutoffs: str | float | Sequence[int]) -> list[int]:
        if cutoffs == "":
            return default_cutoffs(self.vocabulary_size)
        given = str(cutoffs).split("/") if isinstance(cutoffs, str | float) else cutoffs
        try:
            numbers = [int(float(number)) for number in given]
        except ValueError:
            raise ValueError(f"cutoffs={cutoffs}: expected ids between slashes, such as 2000/10000") from None
        bounds = [0, *numbers, self.vocabulary_size]
        if any(start >= end for start, end in pairwise(bounds)):
            raise ValueError(
                f"cutoffs={cutoffs}: must ascend from above 0 to below the {self.vocabulary_size} words "
                "of the vocabulary"
            )
        return numbers

    def build(self, hidden_shape):
        units = hidden_shape[-1]
        self.clusters = list(
            pairwise([*self.cutoffs, self.vocabulary_size])
        )  # the first id, and the next one's
        self.shortlist = [*self.cutoffs, self.vocabulary_size][0]
        head = self.shortlist + len(self.cutoffs)
        self.head_embedding = self.add_matrix("head_embedding", head, units)
        self.head_bias = self.add_bias("head_bias", head)
        self.projections, self.cluster_embeddings, self.cluster_biases = [], [], []
        for index, (first, end) in enumerate(self.clusters, 1):
            size = max(1, round(units / self.factor**index))
            # It keeps the length of h, on average, or else what is learned of rare words comes slowly.
            start = unit_variance(size)
            self.projections.append(
                self.add_weight(name=f"projection_{index}", shape=(size, units), initializer=start)
            )
            self.cluster_embeddings.append(self.add_matrix(f"embedding_{index}", end - first, size))
            self.cluster_biases.append(self.add_bias(f"bias_{index}", end - first))

    def _head(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.head_embedding), tf.convert_to_tensor(self.head_bias)

    def _cluster(self, index: int) -> tuple[tf.Tensor, tf.Tensor]:
        return (
            tf.convert_to_tensor(self.cluster_embeddings[index]),
            tf.convert_to_tensor(self.cluster_biases[index]),
        )

    def _projected(self, hidden, index: int):
        return tf.matmul(hidden, tf.convert_to_tensor(self.projections[index]), transpose_b=True)

    def call(self, hidden, history=None):
        rows, shape = rows_and_shape(hidden)
        head = tf.nn.log_softmax(logits_of(rows, *self._head()))
        parts = [head[:, : self.shortlist]]
        for index in range(len(self.cutoffs)):
            within = tf.nn.log_softmax(logits_of(self._projected(rows, index), *self._cluster(index)))
            parts.append(head[:, self.shortlist + index, tf.newaxis] + within)
        return tf.reshape(tf.concat(parts, 1), tf.concat([shape, [self.vocabulary_size]], 0))

    def loss(self, hidden, targets, weights, history=None):
        """sum_n weights[n] * -log P(targets[n] | hidden[n]), in nats."""
        total = softmax_loss(hidden, self._head_targets(targets), weights, *self._head())
        for index, (members, part, within) in enumerate(self._members(hidden, targets)):
            weight = tf.gather(weights, members)
            total += softmax_loss(part, within, weight, *self._cluster(index))
        return total

    def log_prob(self, hidden, targets, history=None):
        log_prob = softmax_log_prob(hidden, self._head_targets(targets), *self._head())
        for index, (members, part, within) in enumerate(self._members(hidden, targets)):
            of_members = softmax_log_prob(part, within, *self._cluster(index))
            log_prob = tf.tensor_scatter_nd_add(log_prob, members[:, tf.newaxis], of_members)
        return log_prob

    def _head_targets(self, targets):
        """Frequent words stay what they are; of a rare one its cluster is predicted."""
        cluster = tf.add_n(
            [tf.zeros_like(targets), *(tf.cast(targets >= at, targets.dtype) for at in self.cutoffs)]
        )
        return tf.where(cluster > 0, self.shortlist + cluster - 1, targets)

    def _members(self, hidden, targets):
        """Of each cluster: which tokens are in it, their projections, and their targets within it."""
        for index, (first, end) in enumerate(self.clusters):
            members = tf.where((targets >= first) & (targets < end))[:, 0]
            yield (
                members,
                self._projected(tf.gather(hidden, members), index),
                tf.gather(targets, members) - first,
            )

    def get_config(self):
        return {**super().get_config(), "cutoffs": self.cutoffs, "factor": self.factor}


def default_cutoffs(vocabulary_size: int) -> list[int]:
    """10 sqrt(vocabulary), and from there in steps of five times as much: 1824 and 9120 of 33,278 words."""
    cutoffs, cutoff = [], round(10 * math.sqrt(vocabulary_size))
    while cutoff < vocabulary_size:
        cutoffs.append(cutoff)
        cutoff *= 5
    return cutoffs
