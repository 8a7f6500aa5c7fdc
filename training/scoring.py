"""Log probabilities of each token of a split, by language models that may adapt to what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training.dynamic_evaluation import DynamicEvaluation
from training.pipeline import Batches
from zoo.metrics import Perplexity
from zoo.neural_cache import empty_memory, mix_cache

WINDOW = 256


@dataclass(frozen=True)
class Adaptation:
    """What a language model does at evaluation beside predicting; nothing, where all is zero.

    Attributes:
        cache_size, cache_weight, cache_flatness: of the neural cache; see `mix_cache`.
        dynamic_learning_rate, dynamic_decay: of dynamic evaluation; see `DynamicEvaluation`.
        dynamic_segment: tokens that are scored, and then learned from, at a time.
        dynamic_statistics: steps of training data that gradients' mean squares are taken over; 0: none.
        dropout_samples: so many predictions with dropout, each with its own throughout the text, are averaged
            (Gal and Ghahramani 2016, arXiv:1512.05287, "MC dropout"); 0: one without.
    """

    cache_size: int = 0
    cache_weight: float = 0.1
    cache_flatness: float = 0.5
    dynamic_learning_rate: float = 0.0
    dynamic_decay: float = 0.0
    dynamic_segment: int = 5
    dynamic_statistics: int = 0
    dropout_samples: int = 0

    def __bool__(self) -> bool:
        return bool(self.cache_size or self.dynamic_learning_rate or self.dropout_samples)


class Scores(NamedTuple):
    """log P of each token in nats, float64 [tokens], and the tokens, int32, in the order of the text."""

    log_prob: np.ndarray
    tokens: np.ndarray

    def metrics(self, characters: np.ndarray) -> dict[str, float]:
        """What `Perplexity` says, with the number of characters of each token of the vocabulary."""
        perplexity = Perplexity()
        total = characters[self.tokens].sum()
        perplexity.update_state(-self.log_prob.sum(), len(self.tokens), total)
        return {name: float(value) for name, value in perplexity.result().items()}


class _Carried(NamedTuple):
    """From batch to batch: the model's states, those of each sample [samples, ...], and the cache."""

    states: Any
    samples: Any
    memory: Any


class TokenScorer:
    """Called with batches, gives their `Scores`.

    Whatever is adapted, a token's probability is a function of those before it alone. A model is a task model
    with `token_log_prob`; the cache needs `hidden` among its outputs, dynamic evaluation trainable weights.
    The weights are the same before and after.

    Args:
        training: batches of training data in segments, where their statistics are asked for.
    """

    def __init__(self, model: Any, adaptation: Adaptation | None = None, training: Batches | None = None):
        self.model = model
        self.adaptation = adaptation or Adaptation()
        self._traced: dict[str, Any] = {}
        self.dynamic: DynamicEvaluation | None = None
        if self.adaptation.dynamic_learning_rate:
            variables = [variable.value for variable in model.trainable_variables]
            rates = self.adaptation.dynamic_learning_rate, self.adaptation.dynamic_decay
            squares = None if training is None else self._mean_squares(training)
            self.dynamic = DynamicEvaluation(variables, *rates, squares)

    @property
    def window(self) -> int:
        """Tokens that are to be scored at a time."""
        return self.adaptation.dynamic_segment if self.dynamic else WINDOW

    def __call__(self, batches: Batches) -> Scores:
        carried = self._start(batches)
        signature = [batches.spec, tf.nest.map_structure(tf.TensorSpec.from_tensor, carried)]
        if str(signature) not in self._traced:
            self._traced[str(signature)] = tf.function(self._score, signature, autograph=False)
        score = self._traced[str(signature)]
        parts: list[tuple[np.ndarray, ...]] = []
        try:
            for batch in batches.open(0, 0):
                log_prob, carried = score(batch, carried)
                parts.append((log_prob.numpy(), batch["targets"].numpy(), batch["mask"].numpy()))
        finally:
            if self.dynamic:
                self.dynamic.reset()
        if batches.continuous:  # lane by lane: the same order whatever the windows are
            parts = [tuple(np.concatenate(rows, axis=1) for rows in zip(*parts, strict=True))]
        log_probs = np.concatenate([log_prob[mask] for log_prob, _, mask in parts])
        return Scores(
            log_probs.astype(np.float64), np.concatenate([tokens[mask] for _, tokens, mask in parts])
        )

    def _start(self, batches: Batches) -> _Carried:
        states = self.model.initial_states(batches.batch_size) if batches.continuous else {}
        count, size = self.adaptation.dropout_samples, self.adaptation.cache_size
        samples = {name: tf.repeat(state[tf.newaxis], count, axis=0) for name, state in states.items()}
        memory: Any = ()
        if size:
            units, dtype = self.model.encoding_size, self.model.variable_dtype
            memory = empty_memory(batches.batch_size, size, units, dtype)
        return _Carried(states, samples if count else {}, memory)

    def _score(self, batch, carried):
        states, samples, memory = carried
        how = self.adaptation
        gradients: list[tf.Tensor] = []
        if self.dynamic:
            outputs, log_prob, gradients = self._with_gradients(batch, states)
        else:
            outputs, log_prob = self._plain(batch, states, training=False)
        if how.dropout_samples:
            log_prob, samples = self._sampled(batch, samples)
        if how.cache_size:
            hidden, targets, options = (
                outputs["hidden"],
                batch["targets"],
                (how.cache_weight, how.cache_flatness),
            )
            log_prob, memory = mix_cache(log_prob, hidden, targets, memory, *options)
        if self.dynamic:
            self.dynamic.learn(gradients)
        return log_prob, _Carried(outputs["states"] if states else {}, samples, memory)

    def _plain(self, batch, states, training):
        outputs = self.model(batch, states=states or None, training=training)
        return outputs, self.model.token_log_prob(batch, outputs)

    def _with_gradients(self, batch, states):
        with tf.GradientTape() as tape:
            outputs, log_prob = self._plain(batch, states, training=False)
            loss = -tf.reduce_sum(log_prob) / tf.reduce_sum(tf.cast(batch["mask"], log_prob.dtype))
        variables = [variable.value for variable in self.model.trainable_variables]
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return outputs, log_prob, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _sampled(self, batch, samples):
        """log of the mean of the samples' probabilities, and their states."""

        def sample(numbered):
            outputs, log_prob = self._plain(batch, numbered[1], training=True)
            return log_prob, outputs["states"] if samples else {}

        count = self.adaptation.dropout_samples
        each, states = tf.map_fn(
            sample,
            (tf.range(count), samples),
            fn_output_signature=(
                self.model.variable_dtype,
                {name: value.dtype for name, value in samples.items()},
            ),
            parallel_iterations=1,
        )
        return tf.reduce_logsumexp(each, axis=0) - tf.math.log(tf.cast(count, each.dtype)), states

    def _mean_squares(self, training: Batches) -> list[tf.Tensor]:
        """Of the gradients of the mean loss, over the training data's first steps."""
        steps = min(self.adaptation.dynamic_statistics, training.steps)
        states = self.model.initial_states(training.batch_size)
        signature = [training.spec, tf.nest.map_structure(tf.TensorSpec.from_tensor, states)]
        run = tf.function(self._with_gradients, signature, autograph=False)
        total = [tf.zeros_like(variable) for variable in self.model.trainable_variables]
        for batch in training.open(0, 0).take(steps):
            outputs, _, gradients = run(batch, states)
            states = outputs["states"]
            total = [sum_ + tf.square(gradient) for sum_, gradient in zip(total, gradients, strict=True)]
        return [sum_ / steps for sum_ in total]
