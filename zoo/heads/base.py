"""What all output layers have in common."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Logits computed at once; 2^25 floats are 128 MiB.
CHUNK_ELEMENTS = 2**25


class OutputLayer(keras.layers.Layer):
    """P(word | hidden) over a vocabulary, and how it is trained.

    Ids are taken to fall in frequency, as those of the tokenizers do. Called with hidden [..., units] it
    gives logits [..., vocabulary], whose softmax is P; where P is no softmax of anything, its logarithm.

    Where `history_size` is not 0, all methods need `history`, int32 [..., history_size] beside hidden: the
    words before the one that is predicted, the last one last.

    Args:
        vocabulary_size: how many words there are.
        tied_to: the input embedding, where its weights are the output's, too.
        initializer: of all matrices; each has its own random numbers. By default they start normal, of the
            variance 1 / columns, so that logits are as large as the values of h. Where the variance falls
            with the rows, as Glorot's does, large vocabularies learn slowly. Biases start at zero.

    Raises:
        ValueError: the layer cannot be tied; or, when it is built, the embedding is of another size.
    """

    CAN_BE_TIED = False
    SPARSE_GRADIENTS = False  # whether a step's gradients are of some words only
    history_size = 0
    needs_counts = False  # whether it is to know how frequent the words are, by `set_counts`
    loss_is_cross_entropy = True  # whether the loss is about -log P, so that its exponential is a perplexity

    def __init__(
        self,
        vocabulary_size: int,
        tied_to: keras.layers.Embedding | None = None,
        initializer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if tied_to is not None and not self.CAN_BE_TIED:
            raise ValueError(f"tied embeddings: {type(self).__name__} has no vector a word to share")
        self.vocabulary_size = vocabulary_size
        self.tied_to = tied_to
        self.initializer = keras.initializers.get(initializer)

    def loss(
        self,
        hidden: tf.Tensor,
        targets: tf.Tensor,
        weights: tf.Tensor,
        history: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """What training minimizes: a sum over tokens, each of its weight, in nats.

        hidden [tokens, units], targets and weights [tokens].
        """
        raise NotImplementedError

    def log_prob(self, hidden: tf.Tensor, targets: tf.Tensor, history: tf.Tensor | None = None) -> tf.Tensor:
        """log P(targets[n] | hidden[n]), in nats: [tokens, units], [tokens] -> [tokens]."""
        raise NotImplementedError

    def set_counts(self, counts: np.ndarray) -> None:
        """How often each word occurs in the training data, [vocabulary]."""
        raise NotImplementedError

    def add_matrix(self, name: str, rows: int, columns: int) -> keras.Variable:
        """W of W h, where h [columns]."""
        # One initializer gives all weights of a shape the same numbers; its clones have others.
        start = self.initializer or unit_variance(columns)
        return self.add_weight(name=name, shape=(rows, columns), initializer=start.clone())

    def add_bias(self, name: str, size: int) -> keras.Variable:
        return self.add_weight(name=name, shape=(size,), initializer="zeros")

    def add_embedding(self, units: int) -> None:
        """`output_embedding`, unless the layer is tied, and `bias`: `units` numbers a word, and one."""
        if self.tied_to is None:
            self.output_embedding = self.add_matrix("output_embedding", self.vocabulary_size, units)
        elif self.tied_to.output_dim != units:
            raise ValueError(
                f"tied embeddings need embedding_size equal to the last layer's units: "
                f"{self.tied_to.output_dim} != {units}"
            )
        self.bias = self.add_bias("bias", self.vocabulary_size)

    @property
    def embedding(self) -> keras.Variable:
        """E [vocabulary, units], the layer's own or the input embedding's."""
        return self.output_embedding if self.tied_to is None else self.tied_to.embeddings

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def unit_variance(size: int = 1) -> keras.initializers.Initializer:
    """Normal, of the variance 1 / size: products with vectors of that size are as large as their numbers.

    Embeddings that are inputs only start with size 1, the variance that the kernels' initializers are meant
    for, so that rare words are seen, too.
    """
    return keras.initializers.RandomNormal(0.0, size**-0.5)


def rows_and_shape(hidden: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """hidden [..., units] as [tokens, units], and the shape of what is not units."""
    return tf.reshape(hidden, [-1, hidden.shape[-1]]), tf.shape(hidden)[:-1]


def chunk_rows(logits_a_token: int) -> int:
    """How many tokens have their logits computed at once."""
    return max(1, CHUNK_ELEMENTS // logits_a_token)
