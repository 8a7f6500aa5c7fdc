"""What a data set is to the rest of the training code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import tensorflow as tf

if TYPE_CHECKING:
    from training.datasets.splitting import Fractions

SPLITS = ("train", "validation", "test")


class Dataset(Protocol):
    """Records of three splits.

    `stream` says how the records of a split belong together: True, they are pieces of one continuous text,
    to be joined as they are; False, each is an example of its own.
    """

    stream: bool

    def load(self, split: str) -> tf.data.Dataset:
        """The records of one of SPLITS: a dict each, in a fixed order, as often as one iterates.

        A dict holds string scalars, by the names of `FIELDS` in the tasks that the data set is for.

        Raises:
            UserError: the split holds no data.
        """
        ...


class Format(Protocol):
    """What reads the user's files in one format."""

    def open_path(self, path: str, fractions: Fractions, config: Any) -> Dataset:
        """`--dataset=FORMAT:PATH`: the files at PATH, split by `fractions`."""
        ...

    def open_splits(self, paths: Mapping[str, str], config: Any) -> Dataset:
        """`--dataset=FORMAT` with `--train_path` and so on: `paths` by split, those that were given."""
        ...
