"""Metrics of a model over a split."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from training.pipeline import Batches
from zoo.models import TaskModel


class Evaluator:
    """Runs a model over batches and gives its metrics by name."""

    def __init__(self, model: TaskModel, strategy: tf.distribute.Strategy):
        self.model = model
        self.strategy = strategy
        self._traced: dict[str, Any] = {}

    def __call__(self, batches: Batches) -> dict[str, float]:
        for metric in self.model.metrics:
            metric.reset_state()
        states = initial_states(self.model, batches, self.strategy)
        signature = trace_signature(self.strategy, batches, states)
        if str(signature) not in self._traced:
            traced = tf.function(self._step, signature, autograph=False, reduce_retracing=True)
            self._traced[str(signature)] = traced
        run = self._traced[str(signature)]
        for batch in distributed(self.strategy, batches, 0, 0):
            states = run(batch, states)
        results: dict[str, float] = {}
        for metric in self.model.metrics:
            results |= {name: float(value) for name, value in metric.result().items()}
        return results

    def _step(self, batch, states):
        return self.strategy.run(self._update, args=(batch, states))

    def _update(self, batch, states):
        outputs = self.model(batch, states=states or None, training=False)
        self.model.update_metrics(batch, outputs)
        return outputs["states"] if states else {}


def initial_states(model: TaskModel, batches: Batches, strategy: tf.distribute.Strategy) -> Any:
    """The states before a split's first batch, on each replica; none where they are not carried."""
    if not batches.continuous:
        return {}
    size = batches.batch_size // strategy.num_replicas_in_sync
    return strategy.run(lambda: model.initial_states(size))


def trace_signature(strategy: tf.distribute.Strategy, batches: Batches, states: Any) -> list[Any] | None:
    """What batch and states are, to trace a function once for all shapes; None where replicas have parts."""
    if strategy.num_replicas_in_sync > 1:
        return None
    return [batches.spec, tf.nest.map_structure(tf.TensorSpec.from_tensor, states)]


def distributed(strategy: tf.distribute.Strategy, batches: Batches, epoch: int, step: int):
    """An epoch's batches from a step on, each in as many parts as there are replicas."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches.open(epoch, step)

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = replicas // context.num_input_pipelines
        mine = lambda index, _: (index % replicas) // here == context.input_pipeline_id  # noqa: E731
        return batches.open(epoch, step).enumerate().filter(mine).map(lambda _, part: part)

    return strategy.distribute_datasets_from_function(of_worker)
