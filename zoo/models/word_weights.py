"""How large the layers of a vocabulary will be, before they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from zoo.heads import HEADS
from zoo.models.stack_options import StackOptions


class WordWeights(NamedTuple):
    """How many numbers the weights hold of a language model's embedding, and of its output layer; and whether
    a step's gradients are of some words of the output layer only, as those of an embedding are."""

    embedding: int
    output: int
    output_is_sparse: bool


def word_weights(options: Mapping[str, Any], vocabulary_size: int) -> WordWeights:
    """Those of the LanguageModel of these options, without making them."""
    stack = StackOptions(**StackOptions.chosen(options, ()))
    size = options["embedding_size"] or stack.units
    has_embedding = options["input_layer"] == "embedding"
    embedding = keras.layers.Embedding(vocabulary_size, size)
    head = HEADS[options["output_layer"]](
        vocabulary_size,
        embedding if options["tie_embeddings"] and has_embedding else None,
        **options["output_options"],
    )
    units = stack.cells(options["last_units"])[-1].output_size
    return WordWeights(
        planned_weights(embedding, (None, None)) if has_embedding else 0,
        planned_weights(head, (None, units)),
        head.SPARSE_GRADIENTS,
    )


def planned_weights(layer: keras.layers.Layer, input_shape: tuple[int | None, ...]) -> int:
    """How many numbers the weights of a layer will hold, by its `build`; it is of no use afterwards."""
    sizes = []

    def add_weight(shape, **options):
        sizes.append(math.prod(shape))

    layer.add_weight = add_weight
    layer.build(input_shape)
    return sum(sizes)
