"""Lines whose first word is written as any other: with a space before it."""

from __future__ import annotations

import tensorflow as tf

from training.datasets.base import Dataset


class LeadingSpace:
    """A data set whose texts have a space before the first word of each line, as the Penn Treebank's have.

    A tokenizer that cuts at spaces takes "The" and " The" for two tokens, where the literature has one word.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.stream = dataset.stream

    def load(self, split: str) -> tf.data.Dataset:
        return self._dataset.load(split).map(_spaced)


def _spaced(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    if "text" not in record:
        return record
    return {**record, "text": tf.strings.regex_replace(record["text"], r"(?m)^([^ \n])", r" \1")}
