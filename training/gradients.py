"""One training step: gradients, clipping, update; on one device or under a tf.distribute strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from training.config import Config
from zoo.models import TaskModel


class StepResult(NamedTuple):
    """Of one step, over all replicas: loss in nats, what it is the sum of, the gradient's norm, applied."""

    nats: tf.Tensor
    count: tf.Tensor
    gradient_norm: tf.Tensor
    applied: tf.Tensor


class TrainStep:
    """Called with a batch, the carried states and the step's number, gives (StepResult, new states).

    A step whose loss or gradient is not finite changes neither weights, optimizer nor states. With a
    `signature`, what batch and states are, it is traced once; else once more when shapes change.
    """

    def __init__(
        self,
        model: TaskModel,
        optimizer: keras.optimizers.Optimizer,
        config: Config,
        strategy: tf.distribute.Strategy,
        signature: Sequence[Any] | None = None,
    ):
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.strategy = strategy
        self.groups = model.layer_groups()
        self.values = {variable.path: variable.value for variable in model.trainable_variables}
        self._signature = None if signature is None else [*signature, tf.TensorSpec([], tf.int32)]
        self._traced: dict[int, Any] = {}

    def __call__(self, batch: Any, states: Any, step: int, unfrozen: int = 0) -> tuple[StepResult, Any]:
        """With `unfrozen`, only so many of the model's groups of layers are trained."""
        count = min(unfrozen, len(self.groups)) or len(self.groups)
        if count not in self._traced:
            chosen = {variable.path for group in self.groups[:count] for variable in group}
            variables = [variable for variable in self.model.trainable_variables if variable.path in chosen]
            self._traced[count] = tf.function(
                lambda batch, states, step: self._step(batch, states, step, variables),
                self._signature,
                autograph=False,
                reduce_retracing=True,
            )
        return self._traced[count](batch, states, tf.constant(step))

    def _step(self, batch, states, step, variables):
        states = self.strategy.run(self._reset, args=(states, step))
        gradients, nats, count, new_states = self.strategy.run(
            lambda batch, states: self._gradients(batch, states, variables), args=(batch, states)
        )
        nats, count = self._of_one_replica(nats), self._of_one_replica(count)
        norm = self._of_one_replica(self.strategy.run(global_norm, args=(gradients,)))
        finite = tf.math.is_finite(nats) & tf.math.is_finite(norm)

        def apply():
            self.strategy.run(
                lambda gradients, norm: self._apply(gradients, norm, variables), args=(gradients, norm)
            )
            return tf.constant(True)

        applied = tf.cond(finite, apply, lambda: tf.constant(False))
        kept = self.strategy.run(_choose, args=(finite, new_states, states))
        return StepResult(nats, count, norm, applied), kept

    def _of_one_replica(self, value):
        return self.strategy.experimental_local_results(value)[0]

    def _reset(self, states, step):
        """Start some rows of the carried states anew: a model that never starts can fail to."""
        if not self.config.state_reset or not states:
            return states
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        batch_size = tf.shape(next(iter(states.values())))[0]
        chance = tf.random.stateless_uniform([batch_size, 1], [self.config.seed + replica, step])
        return _choose(chance < self.config.state_reset, self.model.initial_states(batch_size), states)

    def _gradients(self, batch, states, variables):
        replica = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            outputs = self.model(batch, states=states or None, training=True)
            nats, count = self.model.loss(batch, outputs)
            objective = nats + self.model.regularization(batch, outputs)
        count = replica.all_reduce("SUM", count)
        sequences = tf.cast(tf.shape(batch["mask"])[0] * replica.num_replicas_in_sync, nats.dtype)
        divisor = count if self.config.loss_reduction == "token_mean" else sequences
        gradients = tape.gradient(
            objective,
            [self.values[variable.path] for variable in variables],
            output_gradients=1.0 / tf.maximum(divisor, 1.0),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients = [_without_duplicates(gradient) for gradient in gradients]
        if replica.num_replicas_in_sync > 1:
            gradients = replica.all_reduce("SUM", [tf.convert_to_tensor(gradient) for gradient in gradients])
        return gradients, replica.all_reduce("SUM", nats), count, outputs["states"] if states else {}

    def _apply(self, gradients, norm, variables):
        gradients = clip(gradients, norm, self.config.clipnorm, self.config.global_clipnorm)
        # Keras sums over replicas once more; these gradients are sums already.
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        if replicas > 1:
            gradients = [gradient / replicas for gradient in gradients]
        self.optimizer.apply(gradients, variables)


def _choose(condition, new_states, states):
    return {name: tf.where(condition, new_states[name], state) for name, state in states.items()}


def _without_duplicates(gradient):
    """Sum the rows of an embedding's gradient that belong to one word: norms need them summed."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    indices, places = tf.unique(tf.reshape(gradient.indices, [-1]))
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(indices))
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def _values(gradient):
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _scaled(gradient, factor):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


def global_norm(gradients: Sequence[tf.Tensor | tf.IndexedSlices]) -> tf.Tensor:
    """The norm of the whole gradient, sqrt(sum of all squares)."""
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(_values(gradient)) for gradient in gradients]))


def clip(gradients, norm: tf.Tensor, clipnorm: float, global_clipnorm: float):
    """Gradient clipping in both of Keras's senses; 0 stands for none.

    `clipnorm` bounds the norm of each weight's gradient by itself; `global_clipnorm` that of the
    whole gradient, g <- g * threshold / ||g|| if ||g|| > threshold: algorithm 1 of CS224N lecture 6
    (Pascanu et al. 2013, arXiv:1211.5063).
    """
    if clipnorm:
        gradients = [_scaled(g, clipnorm / tf.maximum(global_norm([g]), clipnorm)) for g in gradients]
        norm = global_norm(gradients)
    if global_clipnorm:
        factor = global_clipnorm / tf.maximum(norm, global_clipnorm)
        gradients = [_scaled(gradient, factor) for gradient in gradients]
    return gradients
