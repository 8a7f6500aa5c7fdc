"""Train a recurrent model.

    zoo-train --preset=char_small --dataset=text:PATH --output_dir=DIR

Every setting is a flag: its default, unless the preset sets it, unless the flag is given. The same
command with the same --output_dir goes on where it stopped, also after a kill. Progress goes to
stderr; the last line of stdout is a JSON object with the best validation metrics.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import config as tf_config  # what switches determinism off is not public

from serving import program
from serving.program import UserError
from training.config import RESUMABLE, Config, parse_numbers
from training.config_flags import config_from_flags, define_flags
from training.datasets import open_dataset
from training.layer_options import LAYER_OPTIONS, parse_options
from training.loop import Trainer
from training.memory import check_vocabulary
from training.pipeline import Batches, make_batches
from training.transfer import start_from
from zoo.model_directory import (
    ModelDirectoryError,
    has_weights,
    load_model,
    read_config,
    restore_model,
    write_model,
)
from zoo.models import TASKS, TaskModel, model_class


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Within, operations give the same results each time; afterwards as before, for a model that is to draw
    random numbers of its own in the same process."""
    before = tf_config.is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            tf_config.disable_op_determinism()


@_deterministic()
def train(config: Config, callbacks: Sequence[keras.callbacks.Callback] = ()) -> dict[str, Any]:
    """Train, or go on training, the model of a configuration; gives the best evaluation and the baseline.

    Raises:
        UserError: the data, the directory or the configuration does not allow it.
    """
    if not config.output_dir:
        raise UserError("--output_dir is needed: the directory that the model is written to")
    keras.utils.set_random_seed(config.seed)
    strategy = _strategy(config.strategy)
    dataset = open_dataset(config)
    model_dir = Path(config.output_dir)
    with strategy.scope():
        model = _open_model(config, dataset, model_dir)
    training, validation = _batches(model, dataset, config, strategy)
    baseline = model.baseline(_numpy(training), _numpy(validation))
    _report(f"{model.count_params():,} weights; without a network, validation would be {_listed(baseline)}")
    trainer = Trainer(model, config, training, validation, strategy, callbacks)
    if trainer.progress.step:
        _report(f"going on from step {trainer.progress.step} of {trainer.total_steps}")
    best = trainer.run()
    return {
        "model_dir": str(model_dir),
        "steps": trainer.progress.step,
        "skipped_steps": trainer.progress.skipped,
        "best": best,
        "baseline": baseline,
    }


def _strategy(name: str) -> tf.distribute.Strategy:
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _open_model(config: Config, dataset: Any, model_dir: Path) -> TaskModel:
    """The model of the directory if one was trained there, else a new one, written there."""
    settings = dataclasses.asdict(config)
    if has_weights(model_dir):
        written = read_config(model_dir)
        _check_unchanged(written["config"], settings, model_dir)
        model = restore_model(model_dir, written)
        return model if model.trainable_variables else load_model(model_dir)
    options = {
        **settings,
        **{name: parse_options(name, settings[name]) for name in LAYER_OPTIONS},
        "prune": parse_numbers("prune", config.prune, int),
        "discount_fallback": parse_numbers("discount_fallback", config.discount_fallback, float),
        "separate_texts": not dataset.stream,
    }
    records, task = dataset.load("train"), model_class(config.task, options)
    if missing := set(task.FIELDS) - set(records.element_spec):
        raise UserError(
            f"--task={config.task} needs records with {' and '.join(task.FIELDS)}; those of "
            f"--dataset={config.dataset} have no {' and '.join(missing)}"
        )
    if config.initialize_from and not task.STARTS_FROM_OTHERS:
        able = " and ".join(name for name, other in TASKS.items() if other.STARTS_FROM_OTHERS)
        raise UserError(
            f"--initialize_from: no model of --task={config.task} starts from another, but {able}"
        )
    if config.gradual_unfreezing and not config.initialize_from:
        raise UserError(
            "--gradual_unfreezing: name the model whose weights are frozen at first, with --initialize_from"
        )
    source = load_model(config.initialize_from) if config.initialize_from else None
    try:
        admitted = {**options, "admit": functools.partial(check_vocabulary, options)}
        model = task.learn(records, admitted, source)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    if source:
        taken = start_from(model, source, config.initialize_from)
        _report(f"starting from {config.initialize_from}: {', '.join(taken)}")
    packages = ("tensorflow", "keras", "tensorflow-text", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    if tf.distribute.get_strategy().extended.should_checkpoint:
        description = {"task": config.task, "config": settings, "model": options, "versions": versions}
        write_model(model_dir, model, description)
    return model


def _check_unchanged(written: dict[str, Any], settings: dict[str, Any], model_dir: Path) -> None:
    # What is learned before the first step cannot go on.
    resumable = RESUMABLE if settings["model"] == "recurrent" else RESUMABLE - {"epochs"}
    changed = [
        f"--{name}={settings[name]} (was {written.get(name)})"
        for name in settings
        if name not in resumable and settings[name] != written.get(name)
    ]
    if changed:
        raise UserError(
            f"{model_dir} holds a run with other settings: {', '.join(changed)}; "
            "repeat its flags to go on with it, or choose another --output_dir"
        )


def _batches(
    model: TaskModel, dataset: Any, config: Config, strategy: tf.distribute.Strategy
) -> tuple[Batches, Batches]:
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise UserError(f"--batch_size={config.batch_size} must be a multiple of the {replicas} replicas")
    worker = strategy.cluster_resolver.task_id if strategy.cluster_resolver else 0
    cache = Path(config.output_dir) / "cache" / f"worker-{worker}"  # workers may share the directory
    training = make_batches(
        model,
        dataset,
        "train",
        config.batch_size,
        config.sequence_length,
        cache,
        config.seed if model.trainable_variables else None,
        replicas,
        config.batch_tokens,
        config.random_sequence_length,
    )
    size = (config.evaluation_batch_size if dataset.stream else config.batch_size) * replicas
    validation = make_batches(
        model, dataset, "validation", size, 256, cache, None, replicas, config.batch_tokens
    )
    return training, validation


def _numpy(batches: Batches):
    return batches.open(0, 0).as_numpy_iterator()


def _listed(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in metrics.items())


def _report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> None:
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}: settings are flags, --name=value")
    try:
        result = train(config_from_flags())
    except ModelDirectoryError as error:
        raise UserError(str(error)) from error
    print(json.dumps(result))


def run() -> None:
    define_flags()
    program.run("zoo-train", main, __doc__, ["training.config_flags"])
