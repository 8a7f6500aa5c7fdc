"""Encodings of sequences against NumPy, one sequence at a time."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import randomize
from oracles import pooled, weights_of

from zoo.pooling import POOLINGS

UNITS, LENGTHS = 4, (5, 1, 3)
RANDOM = np.random.default_rng(0)
SEQUENCES = [RANDOM.normal(size=(length, UNITS)) for length in LENGTHS]


NAMES = {pooling: name for name, pooling in POOLINGS.items()}


@pytest.fixture(params=POOLINGS)
def make(request):
    def make(bidirectional=False):
        layer = POOLINGS[request.param](bidirectional, dtype="float64")
        layer.build((None, None, UNITS))
        return randomize(layer)

    return make


@pytest.mark.parametrize("filler", [0.0, 1e3, -1e3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_counts_for_nothing(make, bidirectional, filler):
    layer = make(bidirectional)
    padded = np.full((len(SEQUENCES), 6, UNITS), filler)
    for row, sequence in zip(padded, SEQUENCES, strict=True):
        row[: len(sequence)] = sequence
    encodings = layer(tf.constant(padded), mask=tf.sequence_mask(LENGTHS, 6)).numpy()
    expected = [
        pooled(NAMES[type(layer)], weights_of(layer), sequence, bidirectional) for sequence in SEQUENCES
    ]
    np.testing.assert_allclose(encodings, expected, rtol=1e-12)
    assert layer.output_size == encodings.shape[1]


def test_config_round_trip(make):
    layer = make(bidirectional=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (type(again), again.get_config()) == (type(layer), layer.get_config())
