"""Words as vectors: by an embedding, and by reading their characters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from zoo.cutting import CUTS, Tokens
from zoo.models.stack_options import StackOptions
from zoo.pooling import Final
from zoo.text import Characters
from zoo.vocabulary import Vocabulary

CHARACTERS = 32  # of a word, that the network reads at most
CHARACTER_EMBEDDING = 32


class WordEncoder(keras.layers.Layer):
    """w = [E x; RNN(characters of x)]

    Words that occur only once in training share one embedding, as all unknown words do. With a character RNN,
    a bidirectional layer, words are looked up in lower case: their characters tell the case.

    Args:
        words: of the embedding.
        characters: those that the character RNN knows.
        embedding_size: of the words; 0 stands for the options' `units`.
        character_units: of each direction of the character RNN; 0 for none.
        options: of the stack that will read the words; the character RNN has the same cell.

    Source: Lample et al. 2016, arXiv:1603.01360, section 4.1.
    """

    def __init__(
        self,
        words: Vocabulary,
        characters: Characters,
        embedding_size: int,
        character_units: int,
        options: StackOptions,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.autocast = False  # states keep their precision
        self.words, self.characters, self.character_units = words, characters, character_units
        self.output_size = embedding_size or options.units
        self.embedding = options.embedding("embedding", words.size, self.output_size)
        if character_units:
            self.character_embedding = options.embedding(
                "character_embedding", characters.vocabulary_size, CHARACTER_EMBEDDING
            )
            own = dataclasses.replace(
                options, units=character_units, layers=1, bidirectional=True, dropout=0.0, input_dropout=0.0
            )
            self.character_stack = own.stack(own.cells(), CHARACTER_EMBEDDING, name="character_stack")
            self.pooling = Final(True, name="pooling", dtype=options.precision)
            self.pooling.build((None, None, self.character_stack.output_size))
            self.output_size += self.pooling.output_size
        self.built = True

    @classmethod
    def vocabularies(
        cls, tokens: tf.data.Dataset, options: Mapping[str, Any]
    ) -> tuple[Vocabulary, Characters]:
        """`words` and `characters`, from tokens [n] and a configuration's options."""
        words = tokens.map(_lower) if options["character_units"] else tokens
        return Vocabulary.learn(words, options["vocabulary_size"], at_least=2), Characters.learn(tokens)

    def assets(self) -> dict[str, bytes]:
        return {**self.characters.assets(), "words.json": self.words.asset()}

    @classmethod
    def vocabularies_from(cls, assets: Mapping[str, bytes]) -> tuple[Vocabulary, Characters]:
        return Vocabulary.from_asset(assets["words.json"]), Characters.from_assets(dict(assets))

    def features(self, tokens: tf.RaggedTensor) -> dict[str, tf.RaggedTensor]:
        """What `call` takes, of tokens [batch, (tokens)]: int32 `inputs`, and `characters` of each token."""
        if not self.character_units:
            return {"inputs": tokens.with_values(self.words.ids(tokens.values))}
        characters = self.characters.tokenize(tokens.values)[:, : CHARACTERS - 1]
        end = tf.fill([characters.nrows(), 1], self.characters.boundary_id)
        characters = tf.concat([characters, end], axis=1).to_tensor(shape=[None, CHARACTERS])
        return {
            "inputs": tokens.with_values(self.words.ids(_lower(tokens.values))),
            "characters": tokens.with_values(characters),
        }

    def call(self, inputs, characters, mask, training=False):
        """inputs [batch, time], characters [batch, time, n] or None -> [batch, time, output_size]."""
        words = self.embedding(inputs)
        if not self.character_units:
            return words
        return tf.concat([words, tf.cast(self._spelled(characters, mask, training), words.dtype)], axis=-1)

    def _spelled(self, characters, mask, training):
        """What the character RNN makes of each word, [batch, time, size]; zero where there is padding."""
        places = tf.where(mask)
        spelling = tf.gather_nd(characters, places)  # [words, characters]
        is_end = tf.cast(tf.equal(spelling, self.characters.boundary_id), tf.int32)
        read = tf.cumsum(is_end, axis=1, exclusive=True) < 1  # up to the end and with it
        longest = tf.maximum(tf.reduce_max(tf.math.count_nonzero(read, axis=1)), 1)
        spelling, read = spelling[:, :longest], read[:, :longest]
        outputs, _ = self.character_stack(self.character_embedding(spelling), mask=read, training=training)
        encoding = self.pooling(outputs, mask=read)
        size = encoding.shape[-1]
        shape = tf.concat([tf.shape(mask), [size]], axis=0)
        spelled = tf.scatter_nd(places, encoding, tf.cast(shape, places.dtype))
        return tf.ensure_shape(spelled, [None, None, size])


def cut_of(options: Mapping[str, Any]) -> Callable[[tf.Tensor], Tokens]:
    """How a configuration's options cut texts into words. Raises ValueError where they do not."""
    if options["tokenizer"] not in CUTS:
        raise ValueError(f"--tokenizer={options['tokenizer']}: this task has one of {', '.join(CUTS)}")
    return CUTS[options["tokenizer"]]


def _lower(words: tf.Tensor) -> tf.Tensor:
    return tf.strings.lower(words, encoding="utf-8")
