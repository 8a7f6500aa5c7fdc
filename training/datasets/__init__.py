"""Data sets by name: what `--dataset` takes.

`--dataset=NAME` is a data set of the zoo, or a public one that is fetched; `--dataset=FORMAT:PATH` the
user's own files, split by fractions, and `--dataset=FORMAT` with `--train_path` and so on the user's own
splits. A data set is a class with `stream` and `load` (see `base.Dataset`); one more is a file here and a
line in DATASETS or FORMATS, a public one an entry in PUBLIC.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from typing import Any

from serving.program import UserError
from training.datasets import (
    color_names,
    conll,
    dates,
    parallel,
    penn_treebank,
    python_docs,
    python_source,
    reading,
    stories,
    tables,
    text,
    text_dir,
)
from training.datasets.base import SPLITS, Dataset, Format
from training.datasets.leading_space import LeadingSpace
from training.datasets.public import PUBLIC, PublicSet
from training.datasets.splitting import Fractions
from training.datasets.tensorflow_datasets import TensorFlowDatasets

__all__ = ["DATASETS", "FORMATS", "Dataset", "open_dataset"]

DATASETS: dict[str, Callable[[Fractions], Dataset]] = {
    "color_names": color_names.open_names,
    "stories": stories.open_stories,
    "dates": dates.open_dates,
    "python_docs": python_docs.open_topics,
    "python_source": python_source.open_source,
}

FORMATS: dict[str, Format] = {
    "text": text,
    "tsv": tables.Table("\t", quoted=False),
    "csv": tables.Table(",", quoted=True),
    "jsonl": tables.JsonLines(),
    "text_dir": text_dir.TextDir(),
    "conll": conll.Conll(),
    "conllu": conll.Conllu(),
    "parallel": parallel.Parallel(),
    "squad": reading.Squad(),
    "babi": reading.Babi(),
    "tfds": TensorFlowDatasets(),
    "ptb": penn_treebank.PennTreebank(),
}


def open_dataset(config: Any) -> Dataset:
    """The data set that `config` asks for.

    Reads the fields `dataset`, `train_path`, `validation_path`, `test_path`, `validation_fraction`,
    `test_fraction`, `text_mode`, `leading_space`, `seed`, `task` and those of columns.

    Raises:
        UserError: an unknown name, a path with nothing to read, fractions that do not add up.
    """
    dataset = _opened(config)
    return LeadingSpace(dataset) if config.leading_space else dataset


def _opened(config: Any) -> Dataset:
    name, separator, path = config.dataset.partition(":")
    given = {split: getattr(config, f"{split}_path") for split in SPLITS}
    paths = {split: value for split, value in given.items() if value}
    if name in FORMATS and not separator and (paths or name not in PUBLIC):
        return _open_splits(name, paths, config)
    if paths:
        flag = f"--{next(iter(paths))}_path"
        raise UserError(f"{flag} goes with --dataset=FORMAT, such as --dataset=text, not {config.dataset!r}")
    fractions = Fractions(config.validation_fraction, config.test_fraction, config.seed)
    if name in FORMATS:
        if not path:
            raise UserError(f"--dataset={config.dataset}: a path is missing, as in --dataset={name}:FILE")
        return FORMATS[name].open_path(path, fractions, config)
    if name in DATASETS and not separator:
        return DATASETS[name](fractions)
    if name in PUBLIC and not separator:
        return PublicSet(name, PUBLIC[name], FORMATS[PUBLIC[name].format], config)
    raise UserError(_unknown(config.dataset, name, bool(separator)))


def _open_splits(name: str, paths: dict[str, str], config: Any) -> Dataset:
    if not paths:
        raise UserError(
            f"--dataset={name} needs files: --dataset={name}:PATH, or --train_path=PATH and so on"
        )
    return FORMATS[name].open_splits(paths, config)


def _unknown(value: str, name: str, has_path: bool) -> str:
    known = {*DATASETS, *PUBLIC}
    if has_path and name not in known:
        return f"unknown format {name!r} in --dataset={value}; expected one of: {_listed(FORMATS)}"
    if has_path:
        return f"--dataset={value}: {name!r} takes no path; say --dataset={name}"
    expected = f"expected one of: {_listed(known)}; or FORMAT:PATH, FORMAT one of: {_listed(FORMATS)}"
    if os.path.exists(value):
        return f"unknown data set {value!r}; for a file or folder say --dataset=text:{value} ({expected})"
    near = difflib.get_close_matches(name, [*known, *FORMATS], n=1)
    suggestion = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown data set {value!r}{suggestion}; {expected}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
