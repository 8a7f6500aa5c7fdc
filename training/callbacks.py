"""What happens beside the training steps, as Keras callbacks.

The training loop calls them like `model.fit` does: `on_train_batch_end` with loss, gradient norm and
so on, `on_test_end` with the validation metrics, `on_epoch_end`. Any Keras callback that keeps to
`self.model.stop_training` and the logs works beside these.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from serving.program import UserError
from training.checkpoints import Progress
from training.schedules import evaluations_since_best
from zoo.metrics import Perplexity
from zoo.model_directory import BEST_WEIGHTS, tensors_of, write_file, write_tensors
from zoo.models import TaskModel


class ProgressBar(keras.callbacks.Callback):
    """Loss, norm, speed and perplexity, where the loss says it, on stderr; lines where it is no terminal."""

    def __init__(self, total_steps: int, progress: Progress):
        super().__init__()
        self.total_steps = total_steps
        self.progress = progress

    def set_model(self, model):
        super().set_model(model)
        has_perplexity = any(isinstance(metric, Perplexity) for metric in model.metrics)
        self.shows_perplexity = has_perplexity and model.loss_is_cross_entropy

    def on_train_begin(self, logs=None):
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=self.total_steps,
            initial=self.progress.step,
            unit="step",
            file=sys.stderr,
            mininterval=0.2 if terminal else 10,
            dynamic_ncols=terminal,
            ascii=not terminal,
        )
        self.tokens, self.seconds, self.nats = 0.0, 0.0, None

    def on_train_batch_end(self, batch, logs=None):
        # Averages over about the last hundred steps.
        self.tokens = 0.99 * self.tokens + logs["tokens"]
        self.seconds = 0.99 * self.seconds + logs["seconds"]
        if math.isfinite(logs["loss"]):
            self.nats = logs["loss"] if self.nats is None else 0.98 * self.nats + 0.02 * logs["loss"]
        shown = {"loss": f"{self.nats or math.nan:.3f}"}
        if self.shows_perplexity and self.nats is not None and self.nats < 50:
            shown["ppl"] = f"{math.exp(self.nats):.2f}"
        shown["norm"] = f"{logs['gradient_norm']:.2f}"
        shown[f"{self.model.PREDICTIONS}/s"] = f"{self.tokens / max(self.seconds, 1e-9):,.0f}"
        if self.progress.skipped:
            shown["skipped"] = str(self.progress.skipped)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_test_end(self, logs=None):
        metrics = "  ".join(f"{name} {value:,.4g}" for name, value in logs.items() if name != "step")
        self.bar.write(f"step {logs['step']:.0f}: validation {metrics}", file=sys.stderr)

    def on_train_end(self, logs=None):
        self.bar.close()


class MetricsFile(keras.callbacks.Callback):
    """`metrics.jsonl`: a line per evaluation. A resumed run rewrites it from what its checkpoint knows."""

    def __init__(self, path: Path, progress: Progress):
        super().__init__()
        self.path = path
        self.progress = progress

    def on_train_begin(self, logs=None):
        lines = [json.dumps(entry) + "\n" for entry in self.progress.history]
        write_file(self.path, "".join(lines).encode())

    def on_test_end(self, logs=None):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.progress.history[-1]) + "\n")


class TensorBoard(keras.callbacks.Callback):
    """Scalars for TensorBoard: of every twentieth step, and of each evaluation."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def on_train_begin(self, logs=None):
        with self._writing():
            self.writer = tf.summary.create_file_writer(os.fspath(self.folder))

    def on_train_batch_end(self, batch, logs=None):
        if batch % 20 == 0:
            self._write("train", logs, batch)

    def on_test_end(self, logs=None):
        self._write("validation", logs, int(logs["step"]))

    def on_train_end(self, logs=None):
        with self._writing():
            self.writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            reason = error.message.rpartition("}} ")[2].splitlines()[0]
            raise UserError(f"{self.folder} cannot be written: {reason}") from error

    def _write(self, group: str, logs: dict[str, Any], step: int):
        with self._writing(), self.writer.as_default(step):
            for name, value in logs.items():
                if name != "step":
                    tf.summary.scalar(f"{group}/{name}", value)


class BestWeights(keras.callbacks.Callback):
    """`best/`: the weights of the evaluation with the lowest loss."""

    def __init__(self, model_dir: Path, progress: Progress):
        super().__init__()
        self.path = model_dir / BEST_WEIGHTS
        self.progress = progress

    def on_test_end(self, logs=None):
        if evaluations_since_best(losses(self.model, self.progress)) == 0:
            write_tensors(self.path, tensors_of(self.model.weights), logs)


class EarlyStopping(keras.callbacks.Callback):
    """Stops after `patience` evaluations in a row without a new best; a stopped run stays so."""

    def __init__(self, patience: int, progress: Progress):
        super().__init__()
        self.patience = patience
        self.progress = progress

    def on_train_begin(self, logs=None):
        self.on_test_end()

    def on_test_end(self, logs=None):
        if evaluations_since_best(losses(self.model, self.progress)) >= self.patience:
            self.model.stop_training = True


def losses(model: TaskModel, progress: Progress) -> list[float]:
    """What was to be minimized, at each evaluation so far: schedules and stopping go by it."""
    return [model.objective(entry) for entry in progress.history]
