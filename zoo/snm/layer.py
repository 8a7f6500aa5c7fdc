"""A sparse non-negative matrix language model inside the TensorFlow graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.ngram.backoff import NONE
from zoo.ngram.tables import find, followers, or_zero, read
from zoo.snm.model import SnmModel
from zoo.snm.skipgrams import Chain, features, history_size, remote_words


class SparseMatrix(keras.layers.Layer):
    """P(w | h) of an SnmModel, by binary search in its sorted keys.

    Args:
        chains: its chains.
        sizes: how many skip-grams there are by chain and level; of the very first, the vocabulary size.
        boundary: the word that skip-grams do not reach across; None where they do.
    """

    def __init__(
        self, chains: Sequence[Chain], sizes: Sequence[Sequence[int]], boundary: int | None, **kwargs: Any
    ):
        super().__init__(trainable=False, **kwargs)
        self.chains, self.boundary, self.vocabulary_size = list(chains), boundary, sizes[0][0]
        self.history_size = history_size(chains)
        self.keys, self.matrix, self.totals = {}, {}, {}
        for chain, levels in enumerate(sizes):
            for level, size in enumerate(levels):
                name = f"{chain}_{level}"
                if chain or level:  # those of the words are the words themselves
                    self.keys[name] = self._table(f"keys_{name}", size, "int64")
                self.matrix[name] = self._table(f"weights_{name}", size, "float32")
                rows = features(sizes, chains, chain, level)
                self.totals[name] = self._table(f"totals_{name}", rows, "float32")
        self.built = True

    def _table(self, name: str, size: int, dtype: str) -> keras.Variable:
        return self.add_weight(name=name, shape=(size,), dtype=dtype, initializer="zeros")

    def assign(self, model: SnmModel) -> None:
        """Take over a model of these sizes."""
        for tables, arrays in (
            (self.keys, model.keys),
            (self.matrix, model.weights),
            (self.totals, model.totals),
        ):
            for name, table in tables.items():
                chain, level = map(int, name.split("_"))
                table.assign(arrays[chain][level])

    def model(self) -> SnmModel:
        """The model that was assigned."""
        keys, weights, totals = (
            [
                [
                    tables[name].numpy() if name in tables else np.arange(self.vocabulary_size)
                    for name in names
                ]
                for names in self._names()
            ]
            for tables in (self.keys, self.matrix, self.totals)
        )
        return SnmModel(self.vocabulary_size, self.chains, self.boundary, keys, weights, totals)

    def _names(self) -> list[list[str]]:
        return [
            [f"{number}_{level}" for level in range(chain.levels)] for number, chain in enumerate(self.chains)
        ]

    def call(self, tokens: tf.Tensor, targets: int | tf.Tensor) -> tf.Tensor:
        """log P of each of the last `targets` tokens after those before it; float32 [batch, targets].

        Tokens are int64 [batch, time], NONE where there is none; history_size of them are before the targets.
        """
        first = tf.shape(tokens)[1] - targets
        weight = total = tf.zeros([tf.shape(tokens)[0], targets])
        for name, begins, ends in self._features(tokens):
            weight += tf.reduce_sum(or_zero(self.matrix[name], ends[..., first:]), axis=0)
            total += tf.reduce_sum(or_zero(self.totals[name], begins[..., first:]), axis=0)
        return tf.math.log(weight) - tf.math.log(total)

    def distribution(self, tokens: tf.Tensor) -> tf.Tensor:
        """log P of every word after tokens [batch, history_size or more]; float32 [batch, vocabulary]."""
        rows = tf.shape(tokens)[0]
        tokens = tf.pad(tokens, [[0, 0], [0, 1]])  # whichever word it is that follows
        weight = tf.tile(read(self.matrix["0_0"])[tf.newaxis], [rows, 1])
        for name, begins, _ in self._features(tokens):
            if name in self.keys:
                last = tf.reshape(begins[..., -1], [-1])  # [skips * batch]
                places, cells = followers(self.keys[name], last, self.vocabulary_size)
                cells = tf.stack([cells[:, 0] % tf.cast(rows, tf.int64), cells[:, 1]], axis=1)
                values = tf.gather(read(self.matrix[name]), places)
                weight = tf.tensor_scatter_nd_add(weight, cells, values)
        return tf.math.log(weight) - tf.math.log(tf.reduce_sum(weight, axis=1, keepdims=True))

    def _features(self, tokens: tf.Tensor) -> Iterator[tuple[str, tf.Tensor, tf.Tensor]]:
        """As SnmModel's, by name of the table, of all numbers of words skipped: [skips, batch, time]."""
        is_boundary = None if self.boundary is None else tf.equal(tokens, self.boundary)
        ends = [tokens]
        yield "0_0", tf.zeros_like(tokens)[tf.newaxis], tokens[tf.newaxis]
        for level in range(1, self.chains[0].levels):
            begins = _back(ends[-1], 1, NONE)
            ends.append(self._find(f"0_{level}", begins, tokens))
            yield f"0_{level}", begins[tf.newaxis], ends[-1][tf.newaxis]
        for number, chain in enumerate(self.chains[1:], 1):
            remote = remote_words(chain, ends[chain.remote - 1], is_boundary, _back)
            begins = tf.stack(
                [tf.where(is_none, tf.constant(NONE, tf.int64), each) for each, is_none in remote]
            )
            for level in range(chain.levels):
                found = self._find(f"{number}_{level}", begins, tokens)
                yield f"{number}_{level}", begins, found
                begins = _back(found, 1, NONE)

    def _find(self, name: str, begins: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        return find(self.keys[name], begins, tokens, self.vocabulary_size)


def _back(values: tf.Tensor, places: int, otherwise: int | bool) -> tf.Tensor:
    """As zoo.snm.skipgrams.back, of tensors [..., time]; time is longer than that."""
    paddings = [*[[0, 0]] * (values.shape.rank - 1), [places, 0]]
    return tf.pad(values[..., :-places], paddings, constant_values=otherwise)
