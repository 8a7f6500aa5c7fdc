"""Data sets as a configuration opens them: their records, and what is said about bad ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from serving.program import UserError
from training.config import Config
from training.datasets import open_dataset


def configured(dataset: str, **changes) -> SimpleNamespace:
    """A configuration that is not checked itself."""
    return SimpleNamespace(**{**vars(Config()), "seed": 0, "dataset": dataset, **changes})


def records(dataset: str, split: str = "train", **changes) -> list[tuple[str, ...]]:
    """The records of a split, by default of all there is: the values of their fields."""
    opened = open_dataset(configured(dataset, **{"validation_fraction": 0.0, **changes}))
    return [
        tuple(value.decode() for value in record)
        for batch in opened.load(split).batch(1024).as_numpy_iterator()
        for record in zip(*batch.values(), strict=True)
    ]


def complaint(dataset: str, split: str = "train", **changes) -> str:
    """What is said about a data set, in one line."""
    with pytest.raises(UserError) as raised:
        open_dataset(configured(dataset, **changes)).load(split)
    message = str(raised.value)
    assert "\n" not in message
    return message
