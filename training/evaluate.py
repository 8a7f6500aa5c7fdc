"""Evaluate a trained model on a split.

    zoo-evaluate --model_dir=DIR --split=validation

The data set is that of the training unless --dataset and so on are given. The last line of stdout is a
JSON object with the metrics.

A language model may adapt to the text it reads: --cache_size, --dynamic_learning_rate; average its
predictions with dropout: --dropout_samples; and be one of several: --interpolate_with=DIR[,DIR...].
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from serving import program
from serving.program import UserError
from training.config import Config
from training.config_flags import define_data_flags
from training.datasets import open_dataset
from training.datasets.base import SPLITS, Dataset
from training.evaluation import Evaluator
from training.interpolation import Splits, score_together
from training.scoring import Adaptation
from zoo.model_directory import ModelDirectoryError, load_model, read_config
from zoo.models import TaskModel


def evaluate(
    model_dir: str,
    split: str,
    changes: Mapping[str, Any] | None = None,
    adaptation: Adaptation | None = None,
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Metrics of a model directory's best weights on a split.

    Args:
        changes: fields of the training's Config to replace: another data set, batch size and so on.
        adaptation: of a language model to what it reads.
        others: directories of language models that the first is interpolated with.
    """
    written = read_config(model_dir)
    try:
        config = Config(**{**written["config"], **(changes or {})})
    except TypeError as error:
        raise ModelDirectoryError(f"{model_dir}/config.json is of another version: {error}") from error
    if len({model_dir, *others}) <= len(others):
        raise UserError("--interpolate_with: each model directory once, and not that of --model_dir")
    keras.utils.set_random_seed(config.seed)
    model = load_model(model_dir)
    dataset = open_dataset(config)
    if dataset.stream == model.separate_texts:
        kind = "separate lines" if model.separate_texts else "one continuous text"
        raise UserError(f"{model_dir} was trained on {kind}; give --text_mode accordingly")
    with tempfile.TemporaryDirectory() as folder:
        splits = Splits(config, dataset, Path(folder))
        if adaptation or others:
            metrics = score_together({model_dir: model, **_loaded(others)}, splits, split, adaptation)
        else:
            metrics = Evaluator(model, tf.distribute.get_strategy())(splits.open(model, split))
    metrics |= model.judge(_records(dataset, split))
    if report := model.report():
        print(report)
    return {"task": written["task"], "split": split, **metrics}


def _loaded(model_dirs: Sequence[str]) -> dict[str, TaskModel]:
    return {model_dir: load_model(model_dir) for model_dir in model_dirs}


def _records(dataset: Dataset, split: str) -> Iterator[Any]:
    """Batches of raw records, with progress; read only by models that have something to say of them."""
    yield from tqdm(dataset.load(split).batch(64), unit=" batches", file=sys.stderr, mininterval=1.0)


def main(arguments: Sequence[str]) -> None:
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}: settings are flags, --name=value")
    values = flags.FLAGS
    if not values.model_dir:
        raise UserError("--model_dir is needed: the directory that zoo-train wrote")
    names = {field.name for field in dataclasses.fields(Config)} & set(values)
    changes = {name: values[name].value for name in names if values[name].present}
    if "dataset" in changes or any(name.endswith("_path") for name in changes):
        # A data set of one's own is not to be mixed with the training's splits.
        changes = {"train_path": "", "validation_path": "", "test_path": "", **changes}
    given: dict[str, Any] = {field.name: values[field.name].value for field in dataclasses.fields(Adaptation)}
    try:
        result = evaluate(
            values.model_dir, values.split, changes, Adaptation(**given), values.interpolate_with
        )
        print(json.dumps(result))
    except ModelDirectoryError as error:
        raise UserError(str(error)) from error


def _define_adaptation_flags() -> None:
    flags.DEFINE_list(
        "interpolate_with",
        [],
        "Model directories of other language models of the same tokens: probabilities are interpolated, with "
        "weights that are best on the validation split. What follows is of --model_dir alone.",
    )
    flags.DEFINE_integer(
        "cache_size", 0, "Tokens that a neural cache holds (Grave et al. 2016); 0: no cache.", lower_bound=0
    )
    flags.DEFINE_float("cache_weight", 0.1, "Share of the cache in each probability.", 0.0, 1.0)
    flags.DEFINE_float(
        "cache_flatness", 0.5, "Factor of the products of hidden states in the cache.", lower_bound=0.0
    )
    flags.DEFINE_float(
        "dynamic_learning_rate",
        0.0,
        "Dynamic evaluation (Krause et al. 2018): learning rate of a step after each segment; their "
        "code has 5e-5 for an AWD-LSTM; 0: none.",
        lower_bound=0.0,
    )
    flags.DEFINE_float(
        "dynamic_decay", 0.002, "How fast dynamic evaluation goes back to the first weights.", 0.0, 1.0
    )
    flags.DEFINE_integer(
        "dynamic_segment", 5, "Tokens that are scored before they are learned from.", lower_bound=1
    )
    flags.DEFINE_integer(
        "dynamic_statistics",
        500,
        "Steps of training data, --batch_size segments each, over which the gradients' mean squares are "
        "taken that scale dynamic evaluation; 0: plain steps, which need a larger --dynamic_learning_rate.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "dropout_samples",
        0,
        "Predictions with dropout that are averaged (Gal and Ghahramani 2016); 0: one without dropout.",
        lower_bound=0,
    )


def run() -> None:
    flags.DEFINE_string("model_dir", None, "Model directory that zoo-train wrote.")
    flags.DEFINE_enum("split", "validation", SPLITS, "What to evaluate on.")
    _define_adaptation_flags()
    define_data_flags()
    program.run("zoo-evaluate", main, __doc__, ["training.evaluate", "training.config_flags"])
