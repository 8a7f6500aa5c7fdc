"""Names and numbers: words and labels to ids, inside the TensorFlow graph."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def count(batches: tf.data.Dataset) -> Counter[Any]:
    """How often each value occurs in the tensors [n]. They are merged in graph, so that Python sees few."""
    total: Counter[Any] = Counter()
    for values, _, counts in batches.map(tf.unique_with_counts).as_numpy_iterator():
        total.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return total


class Vocabulary(tf.Module):
    """Words by falling frequency from id 1 on; id 0 is any other word."""

    unknown_id = 0

    def __init__(self, words: Sequence[bytes]) -> None:
        super().__init__()
        self.words = tuple(words)
        with tf.init_scope():
            ids = tf.range(1, len(self.words) + 1)
            rows = tf.lookup.KeyValueTensorInitializer(tf.constant(self.words, tf.string), ids)
            self._table = tf.lookup.StaticHashTable(rows, default_value=self.unknown_id)

    @property
    def size(self) -> int:
        return len(self.words) + 1

    def ids(self, words: tf.Tensor) -> tf.Tensor:
        """int32 ids, in the shape of `words`."""
        return self._table.lookup(words)

    @classmethod
    def learn(cls, batches: tf.data.Dataset, size: int = 0, at_least: int = 1) -> Vocabulary:
        """Words that occur often enough, and of them the most frequent.

        Args:
            batches: strings [n].
            size: how many ids at most; 0 for no limit.
            at_least: how often a word has to occur.
        """
        counts = count(batches)
        ranked = sorted((word for word in counts if counts[word] >= at_least), key=lambda w: (-counts[w], w))
        return cls(ranked[: size - 1] if size else ranked)

    def asset(self) -> bytes:
        """A file from which `from_asset` makes the same vocabulary again."""
        words = [word.decode("utf-8", "surrogateescape") for word in self.words]
        listing = json.dumps(words, ensure_ascii=False, indent=0)
        return listing.encode("utf-8", "surrogateescape")

    @classmethod
    def from_asset(cls, content: bytes) -> Vocabulary:
        words = json.loads(content.decode("utf-8", "surrogateescape"))
        return cls([word.encode("utf-8", "surrogateescape") for word in words])


class Labels(tf.Module):
    """A closed set of names in the order of their ids, and how often each was in training."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        super().__init__()
        self.names = tuple(counts)
        self.counts = tuple(counts.values())
        with tf.init_scope():
            rows = tf.lookup.KeyValueTensorInitializer(list(self.names), tf.range(len(self.names)))
            self._table = tf.lookup.StaticHashTable(rows, -1)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def learn(cls, batches: tf.data.Dataset, kind: str) -> Labels:
        """The names in strings [n], sorted. Raises ValueError where there is but one `kind` of them."""
        counts = {name.decode(): number for name, number in sorted(count(batches).items())}
        if len(counts) < 2:
            raise ValueError(
                f"there is nothing to tell apart: the only {kind} in training is {next(iter(counts))!r}"
            )
        return cls(counts)

    def ids(self, names: tf.Tensor, kind: str) -> tf.Tensor:
        """int32 ids of names [n]. Raises InvalidArgumentError, in graph, for one that was not learned."""
        ids = self._table.lookup(names)
        unknown = tf.boolean_mask(names, ids < 0)[:1]
        message = tf.strings.join([f"no training example has the {kind} ", tf.strings.reduce_join(unknown)])
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(ids >= 0), [message])]):
            return tf.identity(ids)

    def of(self, ids: tf.Tensor) -> tf.Tensor:
        """The names of ids, in their shape."""
        return tf.gather(tf.constant(self.names), ids)

    def balance(self) -> np.ndarray:
        """float32 weights, by which all names count alike in sum; 1 on average over training."""
        counts = np.array(self.counts, np.float32)
        return counts.sum() / (len(counts) * counts)

    def asset(self) -> bytes:
        return json.dumps(dict(zip(self.names, self.counts, strict=True)), indent=0).encode()

    @classmethod
    def from_asset(cls, content: bytes) -> Labels:
        return cls(json.loads(content))
