"""Evaluate a trained model on a split.

    zoo-evaluate --model_dir=DIR --split=validation

The data set is that of the training unless --dataset and so on are given. The last line of stdout is a
JSON object with the metrics.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import flags
from tqdm import tqdm

from serving import program
from serving.program import UserError
from training.config import Config, define_data_flags
from training.datasets import open_dataset
from training.datasets.base import SPLITS, Dataset
from training.evaluation import Evaluator
from training.pipeline import make_batches
from zoo.model_directory import ModelDirectoryError, load_model, read_config


def evaluate(model_dir: str, split: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Metrics of a model directory's best weights on a split.

    `changes` are fields of the training's Config to replace: another data set, batch size and so on.
    """
    written = read_config(model_dir)
    try:
        config = Config(**{**written["config"], **(changes or {})})
    except TypeError as error:
        raise ModelDirectoryError(f"{model_dir}/config.json is of another version: {error}") from error
    model = load_model(model_dir)
    dataset = open_dataset(config)
    if dataset.stream == model.separate_texts:
        kind = "separate lines" if model.separate_texts else "one continuous text"
        raise UserError(f"{model_dir} was trained on {kind}; give --text_mode accordingly")
    size = config.evaluation_batch_size if dataset.stream else config.batch_size
    with tempfile.TemporaryDirectory() as cache:
        batches = make_batches(
            model, dataset, split, size, 256, Path(cache), batch_tokens=config.batch_tokens
        )
        metrics = Evaluator(model, tf.distribute.get_strategy())(batches)
    metrics |= model.judge(_records(dataset, split))
    if report := model.report():
        print(report)
    return {"task": written["task"], "split": split, **metrics}


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
    try:
        print(json.dumps(evaluate(values.model_dir, values.split, changes)))
    except ModelDirectoryError as error:
        raise UserError(str(error)) from error


def run() -> None:
    flags.DEFINE_string("model_dir", None, "Model directory that zoo-train wrote.")
    flags.DEFINE_enum("split", "validation", SPLITS, "What to evaluate on.")
    define_data_flags()
    program.run("zoo-evaluate", main, __doc__, ["training.evaluate", "training.config"])
