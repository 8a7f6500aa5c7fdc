"""A model directory: what training writes, and evaluation, export and apps read.

    config.json    the full configuration, data set and package versions
    assets/        vocabulary, tokenizer, labels
    checkpoints/   everything needed to go on training
    best/          the weights that were best on the validation split

Every file appears whole or not at all: it is written beside its place and moved there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from zoo.models import TASKS, TaskModel, model_class

BEST_WEIGHTS = Path("best") / "weights.safetensors"


class ModelDirectoryError(ValueError):
    """A directory is not a model directory, or not one of this version."""


def load_model(model_dir: str | os.PathLike, weights: Path = BEST_WEIGHTS) -> TaskModel:
    """The trained model of a model directory.

    Raises:
        ModelDirectoryError: a file is missing or damaged.
    """
    model = restore_model(model_dir, read_config(model_dir))
    path = Path(model_dir, weights)
    if not path.exists():
        raise ModelDirectoryError(f"{path} is missing: the training has not reached its first evaluation")
    tensors, _ = read_tensors(path)
    assign(model.weights, tensors, path)
    return model


def has_weights(model_dir: str | os.PathLike) -> bool:
    """Whether something was trained in a directory."""
    return any(Path(model_dir).glob("*/*.safetensors"))


def restore_model(model_dir: str | os.PathLike, config: Mapping[str, Any]) -> TaskModel:
    """The model that config.json and assets describe, with untrained weights."""
    assets = {path.name: path.read_bytes() for path in sorted(Path(model_dir, "assets").iterdir())}
    try:
        return model_class(config["task"], config["model"]).restore(config["model"], assets)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelDirectoryError(
            f"{model_dir}: config.json or assets are damaged, or of another version: "
            f"{type(error).__name__}: {error}"
        ) from error


def read_config(model_dir: str | os.PathLike) -> dict[str, Any]:
    path = Path(model_dir, "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(config[part], dict) for part in ("config", "model")):
            raise ValueError("its entries are no objects")
        if config["task"] not in TASKS:
            raise ValueError(f"unknown task {config['task']!r}; expected one of: {', '.join(TASKS)}")
        return config
    except FileNotFoundError:
        raise ModelDirectoryError(f"{model_dir} is no model directory: it has no config.json") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ModelDirectoryError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def write_model(model_dir: str | os.PathLike, model: TaskModel, config: Mapping[str, Any]) -> None:
    """Write assets and config.json; the last, so that a directory that has one is whole."""
    for name, content in model.assets().items():
        write_file(Path(model_dir, "assets", name), content)
    write_file(Path(model_dir, "config.json"), json.dumps(config, indent=1).encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one move; a failure leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename is None:  # as when the disk is full
            error.filename = os.fspath(path)
        raise


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays by name and JSON-able metadata as a .safetensors file."""
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    write_file(path, save(arrays, {name: json.dumps(value) for name, value in metadata.items()}))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_tensors` wrote: arrays and metadata."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
    except (SafetensorError, ValueError) as error:
        raise ModelDirectoryError(f"{path} is damaged: {error}") from error


def tensors_of(variables: Iterable[keras.Variable]) -> dict[str, np.ndarray]:
    """Values of variables by path."""
    return {variable.path: variable.numpy() for variable in variables}


def assign(variables: Iterable[keras.Variable], tensors: Mapping[str, np.ndarray], source: Path) -> None:
    """Set variables to the tensors of their paths."""
    for variable in variables:
        if variable.path not in tensors:
            raise ModelDirectoryError(f"{source} has no {variable.path}: it belongs to another model")
        if tensors[variable.path].shape != tuple(variable.shape):
            raise ModelDirectoryError(
                f"{source}: {variable.path} has shape {tensors[variable.path].shape}, "
                f"expected {tuple(variable.shape)}"
            )
        variable.assign(tensors[variable.path])
