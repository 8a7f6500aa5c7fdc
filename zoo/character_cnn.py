"""Words as vectors by the bytes that spell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

BEGIN, END = 256, 257  # beside the 256 bytes
SYMBOLS = 258
NONE = -1  # where a word has ended
ACTIVATIONS = ("tanh", "relu")  # they rise, so the largest value's is the largest
CARRY_BIAS = -2.0  # at first, highway layers let most of what they read pass
# Minus the mean of the largest of seven normal values, a short word's sums. Or else all words would begin
# with nearly the same vector, far from zero, and recurrent layers that read it saturate before they learn.
MAXIMUM_BIAS = -1.35


class CharacterCNN(keras.layers.Layer):
    """A convolutional network over the bytes of a word, in the place of an embedding of words.

        c_j     = C[symbol j of: begin, the word's bytes, end];   0 beyond the end
        y_k     = max over j of g(sum over i < k of W_k[i] c_(j+i) + b_k)      for the widths k = 1, 2, ...
        y       = [y_1; y_2; ...]
        y       = t * relu(H y + b_H) + (1 - t) * y,   t = sigma(T y + b_T)    as often as there are highways
        vector  = P y + b_P

    A filter begins at each symbol of the word, the last ones reaching beyond it, so that a word may be
    shorter than a filter, and its vector depends on no other word. Ids [...] -> vectors [..., size]; each
    distinct word of a batch is computed once.

    Args:
        spellings: the bytes of each word, by id.
        size: of the vectors.
        initializer: of all matrices, each of which has its own random numbers, and all biases zero but for
            b_T of -2; None: C and W normal, so that the sums are, b_k -1.35, and the others by Glorot's
            uniform distribution.
        character_size: of the vectors of symbols.
        filters: how many there are of each width, from 1 on, also written as "25/50/75"; by default 25 times
            the width up to 6.
        highways: highway layers.
        longest: bytes of a word that are read; the rest is cut off.
        activation: g, tanh or relu.

    Raises:
        ValueError: no filters, or an option that is out of its range.

    Source: Kim et al. 2016, arXiv:1508.06615, equations 5 to 8, and, with P, Jozefowicz et al. 2016,
    arXiv:1602.02410, section 3.2. Differs from the papers: symbols are bytes, among them the space before a
    word where the tokenizer has it so, and not characters.
    """

    def __init__(
        self,
        spellings: Sequence[bytes],
        size: int,
        initializer: Any = None,
        character_size: int = 15,
        filters: str | Sequence[int] = "25/50/75/100/125/150",
        highways: int = 1,
        longest: int = 48,
        activation: str = "tanh",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.size, self.filters = size, _numbers(filters)
        self.character_size, self.highways, self.longest = int(character_size), int(highways), int(longest)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        for name, least in (("character_size", 1), ("highways", 0), ("longest", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        self.activation = keras.activations.get(activation)
        self.initializer = keras.initializers.get(initializer)
        with tf.init_scope():  # tensors of their own, also when the layer is made while a graph is traced
            self._symbols = _symbols(spellings, self.longest)

    def build(self, ids_shape=None):
        units = sum(self.filters)
        start = keras.initializers.RandomNormal(0.0, 1.0)
        self.character_embedding = self._matrix("character_embedding", (SYMBOLS, self.character_size), start)
        self.kernels, self.biases = [], []
        for width, count in enumerate(self.filters, 1):
            shape = (width, self.character_size, count)
            self.kernels.append(self._matrix(f"kernel_{width}", shape, "lecun_normal"))
            bias = MAXIMUM_BIAS if self.initializer is None else 0.0
            self.biases.append(self._bias(f"bias_{width}", count, bias))
        self.carries = []  # of each highway layer: H, b_H, T, b_T
        for index in range(self.highways):
            transform = self._matrix(f"transform_{index}", (units, units))
            gate = self._matrix(f"gate_{index}", (units, units))
            transform_bias = self._bias(f"transform_bias_{index}", units)
            gate_bias = self._bias(f"gate_bias_{index}", units, CARRY_BIAS)
            self.carries.append((transform, transform_bias, gate, gate_bias))
        self.projection = self._matrix("projection", (units, self.size))
        self.projection_bias = self._bias("projection_bias", self.size)
        self.built = True

    def _matrix(self, name: str, shape: tuple[int, ...], start: Any = "glorot_uniform") -> keras.Variable:
        # One initializer gives all weights of a shape the same numbers; its clones have others.
        given = start if self.initializer is None else self.initializer.clone()
        return self.add_weight(name=name, shape=shape, initializer=given)

    def _bias(self, name: str, size: int, start: float = 0.0) -> keras.Variable:
        return self.add_weight(name=name, shape=(size,), initializer=keras.initializers.Constant(start))

    def call(self, ids):
        distinct, places = tf.unique(tf.reshape(ids, [-1]))
        vectors = tf.gather(self._of_words(distinct), places)
        return tf.reshape(vectors, [*_shape(ids), self.size])

    def _of_words(self, ids):
        """Words [n] -> [n, size]."""
        symbols = tf.gather(self._symbols, ids).to_tensor(NONE)  # [n, the longest word's symbols]
        is_symbol = (symbols > NONE)[..., tf.newaxis]
        characters = tf.gather(tf.convert_to_tensor(self.character_embedding), tf.maximum(symbols, 0))
        characters *= tf.cast(is_symbol, characters.dtype)
        parts = []
        for width, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True), 1):
            padded = tf.pad(characters, [[0, 0], [0, width - 1], [0, 0]])
            sums = tf.nn.conv1d(padded, kernel, 1, "VALID")  # [n, symbols, filters]
            largest = tf.reduce_max(tf.where(is_symbol, sums, sums.dtype.min), axis=1)
            parts.append(self.activation(largest + bias))
        spelled = tf.concat(parts, axis=1)
        for transform, transform_bias, gate, gate_bias in self.carries:
            open_ = tf.sigmoid(tf.matmul(spelled, gate) + gate_bias)
            spelled += open_ * (tf.nn.relu(tf.matmul(spelled, transform) + transform_bias) - spelled)
        return tf.matmul(spelled, self.projection) + self.projection_bias


def _symbols(spellings: Sequence[bytes], longest: int) -> tf.RaggedTensor:
    """begin, the first bytes, and end of each word: int32 [words, (symbols)]."""
    cut = [spelling[:longest] for spelling in spellings]
    lengths = np.array([len(spelling) + 2 for spelling in cut], np.int64)
    ends = np.cumsum(lengths)
    symbols = np.empty(lengths.sum(), np.int32)
    is_byte = np.ones(len(symbols), bool)
    is_byte[ends - lengths] = is_byte[ends - 1] = False
    symbols[is_byte] = np.frombuffer(b"".join(cut), np.uint8)
    symbols[ends - lengths], symbols[ends - 1] = BEGIN, END
    return tf.RaggedTensor.from_row_lengths(symbols, lengths)


def _numbers(filters: str | float | Sequence[int]) -> list[int]:
    given = str(filters).split("/") if isinstance(filters, str | float) else filters
    try:
        numbers = [int(float(number)) for number in given]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(
            f"filters={filters}: expected how many there are of each width, such as 25/50/75, at least 1"
        )
    return numbers


def _shape(ids: tf.Tensor) -> list[Any]:
    """The shape of ids, known where it is."""
    dynamic = tf.shape(ids)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(ids.shape)]
