"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from training.adagrad import Adagrad
from training.config import Config


def make_optimizer(config: Config) -> keras.optimizers.Optimizer:
    """The optimizer; the training loop clips gradients and sets the learning rate."""
    betas = {"beta_1": config.beta_1, "beta_2": config.beta_2}
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay, **betas)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return optimizer
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.learning_rate, **betas)
    if config.optimizer == "sgdw":  # of all weights: w <- w - rate (g + decay w), L2 regularization
        return keras.optimizers.SGD(config.learning_rate, weight_decay=config.weight_decay)
    if config.optimizer == "adagrad":
        return Adagrad(config.learning_rate, config.initial_accumulator)
    return keras.optimizers.SGD(
        config.learning_rate, momentum=config.momentum if config.optimizer == "momentum" else 0.0
    )


def learning_rate(
    config: Config, step: int, steps_per_epoch: int, total_steps: int, history: Sequence[float]
) -> float:
    """The learning rate of a step, counted from 0; `history` holds the validation losses so far."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "cosine":
        progress = max(step - config.warmup_steps, 0) / max(total_steps - config.warmup_steps, 1)
        return rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if config.schedule == "plateau":
        return rate * config.decay_factor ** setbacks(history)
    if config.schedule == "decay":
        return rate * config.decay_factor ** max(step // steps_per_epoch + 1 - config.decay_after, 0)
    return rate


def setbacks(history: Sequence[float]) -> int:
    """How many evaluations were not the best so far."""
    return sum(loss >= min(history[:index]) for index, loss in enumerate(history) if index)


def evaluations_since_best(history: Sequence[float]) -> int:
    return len(history) - 1 - history.index(min(history)) if history else 0
