"""Text sets of TensorFlow Datasets, an extra: `pip install 'rnn-zoo[tfds]'`.

`--dataset=tfds:NAME`, or `tfds:NAME:CONFIG`; `--text_column` and so on name its features, whose labels become
the names that it has for them. A language model reads the texts as lines of one continuous text, unless
`--text_mode=lines`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from serving.program import UserError
from training.datasets.base import SPLITS
from training.datasets.splitting import Fractions
from zoo.models import TASKS

LINES = 256  # of a continuous text, in a record


class TensorFlowDatasets:
    """The format `tfds`, for FORMATS."""

    def open_path(self, path: str, fractions: Fractions, config: Any) -> BuiltSet:
        return BuiltSet(path, fractions, config)

    def open_splits(self, paths: Mapping[str, str], config: Any) -> BuiltSet:
        raise UserError(
            "--dataset=tfds needs a name, as in --dataset=tfds:ag_news_subset; it has its own splits"
        )


class BuiltSet:
    """One of its data sets. A split that it lacks is the last part of its training split, by `fractions`.

    Its files are read one after the other, none of them whole.
    """

    def __init__(self, path: str, fractions: Fractions, config: Any) -> None:
        self._path, self._fractions = path, fractions
        self._fields = TASKS[config.task].FIELDS
        self._columns = [getattr(config, f"{field}_column", "") for field in self._fields]
        if not all(self._columns):
            raise UserError(f"--dataset=tfds:{path}: no field there holds what --task={config.task} needs")
        self.stream = config.task == "language_model" and config.text_mode == "stream"
        self._folder = Path(config.data_dir).expanduser() / "tfds"

    def load(self, split: str) -> tf.data.Dataset:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}; expected one of: {', '.join(SPLITS)}")
        builder = self._builder()
        features = builder.info.features
        for field, column in zip(self._fields, self._columns, strict=True):
            if column not in features:
                raise UserError(
                    f"--dataset=tfds:{self._path}: no field {column!r} among {', '.join(sorted(features))}; "
                    f"say which holds the {field} with --{field}_column"
                )
        names = {column: getattr(features[column], "names", None) for column in self._columns}
        lookup = {column: tf.constant(values) for column, values in names.items() if values}

        def record(row):
            values = [row[column] for column in self._columns]
            texts = [
                tf.gather(lookup[column], value) if column in lookup else _text(value)
                for column, value in zip(self._columns, values, strict=True)
            ]
            return dict(zip(self._fields, texts, strict=True))

        records = self._rows(builder, split).map(record)
        return records.batch(LINES).map(_joined) if self.stream else records

    def _rows(self, builder: Any, split: str) -> tf.data.Dataset:
        from tensorflow_datasets import ReadConfig

        in_order = ReadConfig(try_autocache=False, interleave_cycle_length=1)
        return builder.as_dataset(split=self._part(split, builder), shuffle_files=False, read_config=in_order)

    def _builder(self) -> Any:
        try:
            import tensorflow_datasets
        except ImportError as error:
            raise UserError(f"--dataset=tfds:{self._path} needs: pip install 'rnn-zoo[tfds]'") from error
        try:
            builder = tensorflow_datasets.builder(self._path.replace(":", "/"), data_dir=str(self._folder))
            builder.download_and_prepare()
        except Exception as error:  # of any kind: what builders raise, the network, the disk
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"--dataset=tfds:{self._path}: {type(error).__name__}: {reason}") from error
        return builder

    def _part(self, split: str, builder: Any) -> str:
        """The split in the notation of TensorFlow Datasets, such as train[:900]."""
        given = builder.info.splits
        lacking = [name for name in ("validation", "test") if name not in given]
        if split in given and (split != "train" or not lacking):
            return split
        validation = self._fractions.validation if "validation" in lacking else 0.0
        test = self._fractions.test if "test" in lacking else 0.0
        start, end = Fractions(validation, test).part(split, given["train"].num_examples)
        if start == end:
            raise self._fractions.no_data(split, self._path)
        return f"train[{start}:{end}]"


def _joined(records: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A piece of continuous text, of records that are its lines."""
    return {"text": tf.strings.reduce_join(records["text"] + "\n")}


def _text(value: tf.Tensor) -> tf.Tensor:
    return value if value.dtype == tf.string else tf.strings.as_string(value)
