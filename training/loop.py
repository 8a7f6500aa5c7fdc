"""The training loop."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from serving.program import UserError
from training.averaging import WeightAverage, averaging_start
from training.callbacks import BestWeights, EarlyStopping, MetricsFile, ProgressBar, TensorBoard, losses
from training.checkpoints import Checkpoints, Progress
from training.config import Config
from training.evaluation import Evaluator, distributed, initial_states, trace_signature
from training.gradients import TrainStep
from training.pipeline import Batches
from training.schedules import learning_rate, make_optimizer
from zoo.models import TaskModel


class Trainer:
    """Trains a model on batches, from wherever its model directory's checkpoints stand.

    The state of a run is its weights, its optimizer, the carried recurrent states and `progress`;
    all else is a function of these and the configuration, so an interrupted run ends with the
    weights of an uninterrupted one.
    """

    def __init__(
        self,
        model: TaskModel,
        config: Config,
        training: Batches,
        validation: Batches,
        strategy: tf.distribute.Strategy,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ):
        self.model = model
        self.config = config
        self.training = training
        self.validation = validation
        self.strategy = strategy
        self.total_steps = config.max_steps or config.epochs * training.steps
        if not model.trainable_variables:  # `learn` has learned all there is to learn
            self.total_steps = 0
        self.progress = Progress(data=f"{training.fingerprint} {validation.fingerprint}")
        with strategy.scope():
            self.optimizer = make_optimizer(config)
            self.optimizer.build(model.trainable_variables)
            averaged = model.trainable_variables if config.average_weights_after else []
            self.average = WeightAverage(averaged)
        self.evaluate = Evaluator(model, strategy)
        folder = Path(config.output_dir)
        average = self.average.variables
        self.checkpoints = Checkpoints(folder / "checkpoints", model, self.optimizer, strategy, average)
        self.states = initial_states(model, training, strategy)
        signature = trace_signature(strategy, training, self.states)
        self.train_step = TrainStep(model, self.optimizer, config, strategy, signature)
        self._resume()
        self.callbacks = keras.callbacks.CallbackList([*self._own_callbacks(folder), *callbacks], model=model)

    def _own_callbacks(self, folder: Path) -> list[keras.callbacks.Callback]:
        callbacks: list[keras.callbacks.Callback] = []
        if self.config.early_stopping:  # on all workers, which stop together
            callbacks.append(EarlyStopping(self.config.early_stopping, self.progress))
        if self.strategy.extended.should_checkpoint:
            callbacks += [
                ProgressBar(self.total_steps, self.progress),
                MetricsFile(folder / "metrics.jsonl", self.progress),
                BestWeights(folder, self.progress),
                TensorBoard(folder / "logs"),
            ]
        return callbacks

    def _resume(self) -> None:
        restored = self.checkpoints.restore(self.states)
        if restored is None:
            return
        progress, self.states = restored
        if progress.data != self.progress.data:
            raise UserError(
                f"the data is not what {self.config.output_dir} was trained on; train in another --output_dir"
            )
        self.progress = progress

    def run(self) -> dict[str, Any]:
        """Train to the end, and give the best evaluation's step and metrics."""
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        try:
            with _interruptible() as interrupted:
                while self._unfinished():
                    self._run_epoch(interrupted)
            if not self._is_evaluated():  # a callback stopped the training
                self._evaluate()
                self.save()
        finally:
            self.callbacks.on_train_end()
        return min(self.progress.history, key=self.model.objective)

    def _unfinished(self) -> bool:
        return self.progress.step < self.total_steps and not self.model.stop_training

    def _is_evaluated(self) -> bool:
        return bool(self.progress.history) and self.progress.history[-1]["step"] == self.progress.step

    def _run_epoch(self, interrupted: list[str]) -> None:
        epoch, first = divmod(self.progress.step, self.training.steps)
        self.callbacks.on_epoch_begin(epoch)
        if first == 0:
            self.states = initial_states(self.model, self.training, self.strategy)
        for batch in distributed(self.strategy, self.training, epoch, first):
            self._run_step(batch)
            if self._is_due(self.config.evaluate_every or self.training.steps):
                self._evaluate()
                self.save()
            elif interrupted or self._is_due(self.config.checkpoint_every):
                self.save()
            if interrupted:
                raise KeyboardInterrupt(
                    f"stopped by {interrupted[0]} at step {self.progress.step}; "
                    "the same command goes on from there"
                )
            if not self._unfinished():
                break
        self.callbacks.on_epoch_end(epoch)

    def _is_due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.total_steps

    def _run_step(self, batch: Any) -> None:
        step = self.progress.step
        history = losses(self.model, self.progress)
        rate = learning_rate(self.config, step, self.training.steps, self.total_steps, history)
        rate *= self.training.relative_length(*divmod(step, self.training.steps))
        self.optimizer.learning_rate = rate
        started = time.perf_counter()
        self.callbacks.on_train_batch_begin(step)
        unfrozen = 1 + step // self.training.steps if self.config.gradual_unfreezing else 0
        result, self.states = self.train_step(batch, self.states, step, unfrozen)
        tokens = float(result.count)
        logs = {
            "loss": float(result.nats) / max(tokens, 1.0),
            "gradient_norm": float(result.gradient_norm),
            "learning_rate": rate,
            "tokens": tokens,
            "seconds": time.perf_counter() - started,
        }
        self.progress.step += 1
        if count := self._averaged_steps():
            self.average.include(tf.constant(count))
        self._count_skipped(bool(result.applied), logs)
        self.callbacks.on_train_batch_end(step, logs)

    def _count_skipped(self, applied: bool, logs: dict[str, float]) -> None:
        self.progress.bad_in_a_row = 0 if applied else self.progress.bad_in_a_row + 1
        self.progress.skipped += not applied
        if self.progress.bad_in_a_row >= self.config.max_bad_steps:
            raise UserError(
                f"loss {logs['loss']:g} and gradient norm {logs['gradient_norm']:g} at step "
                f"{self.progress.step}, the last of {self.progress.bad_in_a_row} in a row not finite; "
                "the weights are untouched by these: lower --learning_rate or --global_clipnorm "
                "and train in another --output_dir"
            )

    def _averaged_steps(self) -> int:
        """How many weights the average is of, that which it began with and one a step; 0: none so far."""
        history, patience = self.progress.history, self.config.average_weights_after
        start = averaging_start(losses(self.model, self.progress), patience) if patience else None
        return 0 if start is None else self.progress.step - history[start]["step"] + 1

    def _evaluate(self) -> None:
        averaged = self._averaged_steps()
        with self.average.in_place() if averaged else contextlib.nullcontext():
            self.callbacks.on_test_begin()
            metrics = {"step": self.progress.step, **self.evaluate(self.validation)}
            self.progress.history.append(metrics)
            if not math.isfinite(self.model.objective(metrics)):
                raise UserError(f"validation at step {self.progress.step} is not finite: {metrics}")
            self.callbacks.on_test_end(metrics)
        if not averaged and self._averaged_steps():
            self.average.include(tf.constant(1))

    def save(self) -> None:
        """Write a checkpoint."""
        self.checkpoints.save(self.progress, self.states)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[str]]:
    """Within, SIGINT and SIGTERM are noted, for the step to be finished first; a second one is obeyed."""
    received: list[str] = []

    def note(number, frame):
        received.append(signal.Signals(number).name)
        signal.signal(number, previous[number])

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, which alone receives signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
