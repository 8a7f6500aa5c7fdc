"""Perplexity against its definition in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.metrics import Perplexity


def values(metric: Perplexity) -> dict[str, float]:
    return {name: float(value) for name, value in metric.result().items()}


def test_two_batches_are_one():
    """The lecture's perplexity: the inverse probability of the corpus, normalized by its length."""
    probabilities = np.random.default_rng(0).uniform(0.01, 1, size=50)
    characters = 170
    metric = Perplexity()
    for part, read in ((probabilities[:13], 70), (probabilities[13:], 100)):
        metric.update_state(-np.log(part).sum(), len(part), read)
    result = values(metric)
    assert result["tokens"] == 50
    assert result["perplexity"] == pytest.approx(np.prod(1 / probabilities) ** (1 / 50), rel=1e-12)
    assert result["nats_per_token"] == pytest.approx(-np.log(probabilities).mean(), rel=1e-12)
    assert result["bits_per_character"] == pytest.approx(
        -np.log2(probabilities).sum() / characters, rel=1e-12
    )


def test_uniform_guessing_has_the_vocabularys_size():
    metric = Perplexity()
    metric.update_state(tf.constant(8 * np.log(256.0)), tf.constant(8), tf.constant(8))
    assert values(metric)["perplexity"] == pytest.approx(256, rel=1e-5)
    assert values(metric)["bits_per_character"] == pytest.approx(8, rel=1e-5)


def test_no_tokens():
    expected = {"tokens": 0, "nats_per_token": 0, "perplexity": 1, "bits_per_character": 0}
    assert values(Perplexity()) == expected
    metric = Perplexity()
    metric.update_state(0.0, 0, 0)
    assert values(metric) == expected


def test_sums_of_millions_stay_exact():
    """float32 would stop counting at 2^24."""
    metric = Perplexity()
    metric.update_state(2.0**24, 2**24, 2**24)
    for _ in range(3):
        metric.update_state(1.0, 1, 1)
    assert values(metric)["tokens"] == 2**24 + 3
    assert values(metric)["nats_per_token"] == 1


def test_reset():
    metric = Perplexity()
    metric.update_state(3.0, 2, 2)
    metric.reset_state()
    assert values(metric)["tokens"] == 0


def test_in_a_graph():
    metric = Perplexity()
    update = tf.function(lambda nats: metric.update_state(nats, 2, 4))
    update(tf.constant(3.0))
    update(tf.constant(1.0))
    assert values(metric)["nats_per_token"] == 1


def test_config_round_trip():
    metric = Perplexity(name="of_validation")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert isinstance(copy, Perplexity)
    assert copy.name == "of_validation"
    assert copy.get_config() == metric.get_config()
