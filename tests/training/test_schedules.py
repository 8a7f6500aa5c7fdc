"""Learning rates against their formulas, optimizers against their papers' equations in NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.config import Config
from training.schedules import evaluations_since_best, learning_rate, make_optimizer, setbacks

STEPS, EPOCH = 100, 10


def rates(history=(), steps=STEPS, **settings):
    config = Config(learning_rate=0.5, **settings)
    return [learning_rate(config, step, EPOCH, STEPS, history) for step in range(steps)]


def test_constant():
    assert rates(schedule="constant") == [0.5] * STEPS


def test_cosine_falls_from_the_start_to_zero():
    expected = [0.25 * (1 + math.cos(math.pi * step / STEPS)) for step in range(STEPS)]
    np.testing.assert_allclose(rates(schedule="cosine"), expected, rtol=1e-12)
    assert rates(schedule="cosine", steps=STEPS + 5)[STEPS:] == [0.0] * 5


def test_cosine_after_a_warmup():
    rising = [0.5 * (step + 1) / 20 for step in range(20)]
    falling = [0.25 * (1 + math.cos(math.pi * step / 80)) for step in range(80)]
    np.testing.assert_allclose(rates(schedule="cosine", warmup_steps=20), rising + falling, rtol=1e-12)


def test_warmup_of_one_step_is_none():
    assert rates(schedule="constant", warmup_steps=1) == rates(schedule="constant")


def test_decay_as_zaremba_2014_published_it():
    """lr_decay ** max(epoch - 4, 0) for epochs 1 to 13, as in section 4.1's reference code."""
    expected = [0.5 * 0.5 ** max(epoch - 4, 0) for epoch in range(1, 11) for _ in range(EPOCH)]
    np.testing.assert_allclose(rates(schedule="decay", decay_after=4, decay_factor=0.5), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("history", "halvings"),
    [((), 0), ((3.0,), 0), ((3.0, 2.0), 0), ((3.0, 3.0), 1), ((3.0, 4.0, 3.5, 2.0, 2.5), 3)],
)
def test_plateau_halves_where_an_evaluation_is_no_new_best(history, halvings):
    assert setbacks(history) == halvings
    assert rates(history, steps=1, schedule="plateau") == [0.5 * 0.5**halvings]
    assert rates(history, steps=1, schedule="cosine") == [0.5]


@pytest.mark.parametrize(
    ("history", "count"), [((), 0), ((1.0,), 0), ((1.0, 1.0), 1), ((2.0, 1.0), 0), ((1.0, 2.0, 3.0), 2)]
)
def test_evaluations_since_best(history, count):
    assert evaluations_since_best(history) == count


class TestOptimizers:
    """Three steps of each on a weight and a bias."""

    GRADIENTS = np.random.default_rng(3).normal(size=(3, 2, 4)).astype(np.float32)

    def trained(self, **settings):
        optimizer = make_optimizer(Config(learning_rate=0.1, **settings))
        weights = [keras.Variable(np.ones(4), name=name) for name in ("kernel", "bias")]
        for gradients in self.GRADIENTS:
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], weights)
        return np.stack([weight.numpy() for weight in weights])

    def test_sgd(self):
        expected = 1 - 0.1 * self.GRADIENTS.sum(0)
        np.testing.assert_allclose(self.trained(optimizer="sgd"), expected, rtol=1e-5)

    def test_sgdw(self):
        """Loshchilov and Hutter 2019, algorithm 1, without momentum: L2 regularization."""
        weights = np.ones((2, 4))
        for gradient in self.GRADIENTS:
            weights = weights - 0.1 * (gradient + 0.3 * weights)
        np.testing.assert_allclose(self.trained(optimizer="sgdw", weight_decay=0.3), weights, rtol=1e-5)

    def test_momentum(self):
        weights, velocity = np.ones((2, 4)), 0.0
        for gradient in self.GRADIENTS:
            velocity = 0.7 * velocity - 0.1 * gradient
            weights = weights + velocity
        got = self.trained(optimizer="momentum", momentum=0.7)
        np.testing.assert_allclose(got, weights, rtol=1e-5)

    def test_adagrad(self):
        """Duchi et al. 2011, with sums of squares that start above zero."""
        weights, sums = np.ones((2, 4)), 0.25
        for gradient in self.GRADIENTS:
            sums = sums + gradient**2
            weights = weights - 0.1 * gradient / np.sqrt(sums)
        got = self.trained(optimizer="adagrad", initial_accumulator=0.25)
        np.testing.assert_allclose(got, weights, rtol=1e-5)

    def test_adagrad_of_some_rows(self):
        """As of a gradient that is zero elsewhere, although nothing is computed there."""
        rows, values = np.array([4, 1]), self.GRADIENTS[0]  # [2, 4]
        whole = np.zeros((6, 4), np.float32)
        whole[rows] = values
        results = []
        for gradient in (whole, tf.IndexedSlices(values, rows, whole.shape)):
            optimizer = make_optimizer(Config(learning_rate=0.1, optimizer="adagrad"))
            weight = keras.Variable(np.ones((6, 4)), name="kernel")
            optimizer.apply([tf.convert_to_tensor(whole)], [weight])
            optimizer.apply([gradient], [weight])
            results.append(np.stack([weight.numpy(), optimizer.variables[-1].numpy()]))
        np.testing.assert_allclose(*results, rtol=1e-6)
        assert np.all(results[1][0][[0, 2, 3, 5]] == 1)
        assert np.all(results[1][1][rows] > 0.1)

    @pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.99)])
    @pytest.mark.parametrize("decay", [0.0, 0.3])
    def test_adam_and_adamw(self, decay, betas):
        """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2, none on biases."""
        weights, first, second = np.ones((2, 4)), 0.0, 0.0
        for step, gradient in enumerate(self.GRADIENTS.astype(float), start=1):
            weights[0] -= 0.1 * decay * weights[0]
            first = betas[0] * first + (1 - betas[0]) * gradient
            second = betas[1] * second + (1 - betas[1]) * gradient**2
            unbiased = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
            weights = weights - 0.1 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-7)
        optimizer = "adamw" if decay else "adam"
        got = self.trained(optimizer=optimizer, weight_decay=decay, beta_1=betas[0], beta_2=betas[1])
        np.testing.assert_allclose(got, weights, rtol=1e-4)
