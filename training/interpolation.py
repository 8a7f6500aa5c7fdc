"""Linear interpolation of language models, over the probabilities that they give the tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.program import UserError
from training.config import Config
from training.datasets.base import Dataset
from training.pipeline import Batches, make_batches
from training.scoring import WINDOW, Adaptation, Scores, TokenScorer
from zoo.models import TaskModel
from zoo.models.language_model import LanguageModel

TOLERANCE = 1e-9
ROUNDS = 10_000


def interpolate(log_probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log sum_k weights[k] p_k of each token: [models, tokens], [models] -> [tokens]."""
    highest = log_probs.max(axis=0)
    with np.errstate(divide="ignore"):  # a weight may be zero
        return highest + np.log(weights @ np.exp(log_probs - highest))


def fit_weights(log_probs: np.ndarray) -> np.ndarray:
    """The weights under which a text is most likely, by expectation maximization.

        w_k <- mean over tokens of w_k p_k / sum_j w_j p_j,   from equal weights on

    Each round makes the text more likely, and there is but one maximum, unless models are the same.
    [models, tokens] -> [models].

    Source: Jelinek and Mercer 1980, "Interpolated estimation of Markov source parameters from sparse data".
    """
    shares = np.exp(log_probs - log_probs.max(axis=0))
    weights = np.full(len(shares), 1 / len(shares))
    for _ in range(ROUNDS):
        before = weights
        weights = before * (shares / (before @ shares)).mean(axis=1)
        if np.abs(weights - before).max() < TOLERANCE:
            break
    return weights


@dataclass(frozen=True)
class Splits:
    """Where the batches of a data set's splits come from, and the folder that they are written to."""

    config: Config
    dataset: Dataset
    folder: Path

    def open(self, model: TaskModel, split: str, window: int = WINDOW) -> Batches:
        """A split in the order of the text; in evaluation's lanes, or in those of training."""
        config, seed = self.config, None
        size = config.evaluation_batch_size if self.dataset.stream else config.batch_size
        if split == "train":
            size, seed = config.batch_size, config.seed
        return make_batches(
            model, self.dataset, split, size, window, self.folder, seed, batch_tokens=config.batch_tokens
        )


def score_together(
    models: Mapping[str, TaskModel], splits: Splits, split: str, adaptation: Adaptation | None = None
) -> dict[str, Any]:
    """Metrics of language models by directory, interpolated, the first of which adapts to what it reads.

    `interpolation_weights`, in the order of the models, are those that are best on the validation split.

    Raises:
        UserError: a model is no language model, has other tokens, or cannot adapt.
    """
    first, *others = models.values()
    adaptation = adaptation or Adaptation()
    _check(models, adaptation, splits.dataset.stream)
    training = None
    if adaptation.dynamic_learning_rate and adaptation.dynamic_statistics:
        training = splits.open(first, "train", adaptation.dynamic_segment)
    scorers = [TokenScorer(first, adaptation, training), *map(TokenScorer, others)]
    scores = _scores(scorers, list(models), splits, split)
    characters = scorers[0].model.tokenizer.characters
    if not others:
        return scores[0].metrics(characters)
    fitted_on = scores if split == "validation" else _scores(scorers, list(models), splits, "validation")
    weights = fit_weights(np.stack([each.log_prob for each in fitted_on]))
    mixed = interpolate(np.stack([each.log_prob for each in scores]), weights)
    metrics = Scores(mixed, scores[0].tokens).metrics(characters)
    return {**metrics, "interpolation_weights": weights.tolist()}


def _scores(scorers: list[TokenScorer], names: list[str], splits: Splits, split: str) -> list[Scores]:
    each = [scorer(splits.open(scorer.model, split, scorer.window)) for scorer in scorers]
    for name, scores in zip(names, each, strict=True):
        if not np.array_equal(scores.tokens, each[0].tokens):
            raise UserError(
                f"{name} has other tokens than {names[0]}; models that are interpolated have one vocabulary"
            )
    return each


def _check(models: Mapping[str, TaskModel], adaptation: Adaptation, stream: bool) -> None:
    name, first = next(iter(models.items()))
    for other, model in models.items():
        if not hasattr(model, "token_log_prob"):
            raise UserError(f"{other} is no language model, which alone can adapt or be interpolated")
        if model.separate_texts == stream:
            raise UserError(
                f"{other} and {name}: one was trained on separate lines, one on a continuous text"
            )
    if adaptation and not isinstance(first, LanguageModel):
        raise UserError(f"{name} is no recurrent language model, which alone can adapt")
    if (adaptation.cache_size or adaptation.dynamic_learning_rate) and not stream:
        raise UserError(
            f"{name} was trained on separate lines; --cache_size and --dynamic_learning_rate are for one "
            "continuous text"
        )
