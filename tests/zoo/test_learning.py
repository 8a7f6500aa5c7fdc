"""Learning where theory tells the result: what each recurrence can keep over time, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.cells import CELLS
from zoo.recurrence import Recurrent

pytestmark = pytest.mark.slow

BATCH = 32

# Its own start, of almost no inputs, takes several times as long to learn anything.
IRNN_SETTINGS = {
    "kernel_initializer": "glorot_uniform",
    "units": 64,
    "steps": 1200,
    "learning_rate": 0.003,
}


def fit(model: keras.Model, draw: Callable, loss: Callable, steps: int, learning_rate: float) -> None:
    """Adam on fresh batches of draw(random, BATCH), with the learning rate falling to zero.

    Gradients are clipped so far that even a usual one is: the rectified units of an IRNN explode now and
    then, which one step should not be able to turn into a divergence.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=0.1)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            value = loss(targets, model(inputs, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables))

    random = np.random.default_rng(0)
    for _ in range(steps):
        step(*map(tf.constant, draw(random, BATCH)))


def network(cell: str, features: int, outputs: int, seed: int, units: int, **options) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layer = Recurrent(CELLS[cell](units, **options), return_sequences=True)
    model = keras.Sequential([layer, keras.layers.Dense(outputs)])
    model.build((None, None, features))
    return model


class TestAdding:
    """The sum of two marked numbers among 100 (Hochreiter and Schmidhuber 1997, experiment 4).

    Always to answer 1 has a mean squared error of 0.167, the variance of the sum of two uniform numbers.
    """

    TIME = 100

    def draw(self, random, batch):
        values = random.uniform(size=[batch, self.TIME]).astype("float32")
        marks = np.zeros_like(values)
        half, rows = self.TIME // 2, np.arange(batch)
        marks[rows, random.integers(half, size=batch)] = 1
        marks[rows, random.integers(half, self.TIME, size=batch)] = 1
        return np.stack([values, marks], axis=-1), (values * marks).sum(axis=1)

    def error(self, sums, outputs):
        return tf.reduce_mean((sums - outputs[:, -1, 0]) ** 2)

    def error_after_training(self, cell, steps=500, learning_rate=0.02, units=32, seed=0, **options) -> float:
        model = network(cell, features=2, outputs=1, seed=seed, units=units, **options)
        fit(model, self.draw, self.error, steps, learning_rate)
        inputs, sums = self.draw(np.random.default_rng(1), 1000)
        return float(self.error(sums, model(inputs)))

    @pytest.mark.parametrize(
        ("cell", "settings"),
        [
            ("gru", {}),
            ("lstm", {"chrono": TIME}),
            ("janet", {"chrono": TIME}),
            ("irnn", IRNN_SETTINGS),
        ],
    )
    def test_gates_and_the_identity_solve_it(self, cell, settings):
        assert self.error_after_training(cell, **settings) < 0.05

    def test_elman_with_tanh_does_not(self):
        assert self.error_after_training("elman", activation="tanh", **IRNN_SETTINGS) > 0.12


class TestCopying:
    """Ten symbols of eight, asked for after a delay (Hochreiter and Schmidhuber 1997)."""

    SYMBOLS, KEPT, DELAY = 8, 10, 10
    BLANK, ASK = SYMBOLS, SYMBOLS + 1
    BASELINE = KEPT * np.log(SYMBOLS) / (DELAY + 2 * KEPT)  # nats: blanks where they belong, then guessing

    def draw(self, random, batch):
        symbols = random.integers(self.SYMBOLS, size=[batch, self.KEPT])
        blanks = np.full([batch, self.DELAY + self.KEPT], self.BLANK)
        inputs = np.concatenate([symbols, blanks], axis=1)
        inputs[:, -self.KEPT - 1] = self.ASK
        targets = np.concatenate([blanks, symbols], axis=1)
        return np.eye(self.SYMBOLS + 2, dtype="float32")[inputs], targets

    def nats(self, targets, logits):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))

    def nats_after_training(self, cell, steps, seed=0, **options) -> float:
        model = network(cell, features=self.SYMBOLS + 2, outputs=self.SYMBOLS + 1, seed=seed, **options)
        fit(model, self.draw, self.nats, steps, learning_rate=0.02)
        inputs, targets = self.draw(np.random.default_rng(1), 500)
        return float(self.nats(targets, model(inputs)))

    @pytest.mark.parametrize(
        ("cell", "settings"),
        [
            ("gru", {"steps": 800, "units": 100}),
            ("lstm", {"steps": 1000, "units": 64, "chrono": DELAY + KEPT}),
        ],
    )
    def test_gates_keep_what_is_asked_for_later(self, cell, settings):
        assert self.nats_after_training(cell, **settings) < 0.7 * self.BASELINE


class TestCounting:
    """a^n b^n, and where it ends (Gers and Schmidhuber 2001): from the first b on all is determined."""

    LONGEST_SEEN = 10
    A, B, END = range(3)

    def strings(self, counts, longest):
        """One-hot inputs [batch, 2 * longest, 2], and the next symbols, -1 where any may come."""
        inputs = np.zeros([len(counts), 2 * longest, 2], "float32")
        targets = np.full([len(counts), 2 * longest], -1)
        for row, n in enumerate(counts):
            inputs[row, :n, self.A] = inputs[row, n : 2 * n, self.B] = 1
            targets[row, n : 2 * n] = [self.B] * (n - 1) + [self.END]
        return inputs, targets

    def draw(self, random, batch):
        return self.strings(random.integers(1, self.LONGEST_SEEN + 1, size=batch), self.LONGEST_SEEN)

    def nats(self, targets, logits):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(targets, 0), logits)
        return tf.reduce_mean(losses * tf.cast(targets >= 0, tf.float32))

    def longest_after_training(self, seed=0) -> int:
        """Up to which n every string is right."""
        model = network("lstm", features=2, outputs=3, seed=seed, units=10)
        fit(model, self.draw, self.nats, steps=1500, learning_rate=0.03)
        longest = 4 * self.LONGEST_SEEN
        inputs, targets = self.strings(range(1, longest + 1), longest)
        predicted = np.argmax(model(inputs), axis=-1)
        right = ((predicted == targets) | (targets < 0)).all(axis=1)
        return int(np.argmin(right)) if not right.all() else longest

    def test_lstm_counts_further_than_it_was_taught(self):
        assert self.longest_after_training() > self.LONGEST_SEEN
