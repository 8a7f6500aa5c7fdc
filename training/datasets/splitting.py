"""Training, validation and test part of data that comes in one piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.program import UserError
from training.datasets.base import SPLITS

RUN = 1024  # examples that are drawn together


@dataclass(frozen=True)
class Fractions:
    """Which share of the data is held out, and the seed by which separate examples are drawn."""

    validation: float
    test: float
    seed: int = 0

    def __post_init__(self) -> None:
        for split in ("validation", "test"):
            share = getattr(self, split)
            if not 0 <= share < 1:  # also catches NaN
                raise UserError(f"--{split}_fraction={share}: expected a number from 0 to below 1")
        if self.validation + self.test >= 1:
            raise UserError(
                f"--validation_fraction={self.validation} and --test_fraction={self.test} leave nothing to "
                "train on; their sum must be below 1"
            )

    def part(self, split: str, count: int) -> tuple[int, int]:
        """Start and end of a split among `count` things in order: training, validation, test."""
        ends = (0, int(count * (1 - self.validation - self.test)), int(count * (1 - self.test)), count)
        index = SPLITS.index(split)
        return ends[index], ends[index + 1]

    def draw(self, first: int, count: int, total: int) -> np.ndarray:
        """A split, as an index into SPLITS, for each of `count` examples at `first` of `total`, at random.

        The examples are shuffled within runs of RUN, so that no list of all of them is needed, and every
        split has its exact share of all.
        """
        first_run = first // RUN
        runs = range(first_run, -(-(first + count) // RUN))
        labels = np.concatenate([np.zeros(0, np.int64), *(self._run(run, total) for run in runs)])
        return labels[first - first_run * RUN :][:count]

    def _run(self, run: int, total: int) -> np.ndarray:
        # At each place, how many of the examples so far are held out, and how many of these are for the
        # test. Both grow in steps of 0 or 1, which makes every example one of the three.
        places = np.arange(run * RUN, min((run + 1) * RUN, total) + 1)
        held_out = places - (places * (1 - self.validation - self.test)).astype(np.int64)
        share = self.test / (self.validation + self.test) if self.test else 0.0
        tested = (held_out * share + 1e-9).astype(np.int64)  # 2.9999999999999996 means 3
        labels = np.diff(held_out) + np.diff(tested)
        return np.random.default_rng([self.seed % 2**32, run]).permutation(labels)

    def no_data(self, split: str, source: str) -> UserError:
        """What to tell the user when a split of `source` comes out empty."""
        if split != "train" and getattr(self, split) == 0:
            return UserError(
                f"the {split} split of {source} has no data, because --{split}_fraction is 0; give it a "
                f"share, such as --{split}_fraction=0.1"
            )
        return UserError(
            f"the {split} split of {source} has no data: there is too little in it for "
            f"--validation_fraction={self.validation} and --test_fraction={self.test}"
        )
