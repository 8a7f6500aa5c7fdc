"""Count-based language models of little text."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tiny import prose

from zoo.models.counted_model import CountedModel
from zoo.models.ngram_model import NgramModel
from zoo.models.snm_model import SparseMatrixModel

UNKNOWN, BOUNDARY = 0, 1
TEXT = prose(300) + "so is the\n"
TEXTS = ["", "a", " rose is", "a rose\nis a\n\n", "no such words", " red" * 9, "a tulip is red and grey\n"]
_OPTIONS = {
    "tokenizer": "whitespace",
    "vocabulary_size": 0,
    "separate_texts": False,
    "order": 3,
    "closed_vocabulary": False,
    "across_lines": False,
}
NGRAM = {**_OPTIONS, "model": "ngram", "prune": [], "discount_fallback": [0.5, 1.0, 1.5]}
SNM = {
    **{**_OPTIONS, "model": "snm", "skip_words": 3, "skips": 1, "tied_skips": 4},
    **{"epochs": 2, "learning_rate": 0.1, "seed": 1},
}
_CLASSES: dict[str, type[CountedModel]] = {"ngram": NgramModel, "snm": SparseMatrixModel}


def learned(options: dict[str, Any], text: str | list[str] = TEXT) -> CountedModel:
    """A model of a text, by the options of its kind; of texts of their own, its lines."""
    if isinstance(text, str):
        text = text.splitlines() if options["separate_texts"] else [text]
    return _CLASSES[options["model"]].learn(tf.data.Dataset.from_tensor_slices({"text": text}), options)


def ids_of(model: CountedModel, text: str) -> list[int]:
    return [BOUNDARY, *model.tokenizer.tokenize(tf.constant([text])).values.numpy().tolist()]
