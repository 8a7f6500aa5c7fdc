"""The embedding against Keras's, and what it reads."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.embedding import Embedding

WORDS, SIZE = 11, 3
IDS = tf.constant([[1, 2, 1], [10, 0, 4]])


def make(kind, dtype="float32"):
    layer = kind(WORDS, SIZE, dtype=dtype)
    layer.build((None, None))
    layer.embeddings.assign(np.random.default_rng(0).normal(size=(WORDS, SIZE)))
    return layer


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_vectors_and_gradients_are_those_of_keras(dtype):
    results = []
    for layer in (make(Embedding, dtype), make(keras.layers.Embedding, dtype)):
        with tf.GradientTape() as tape:
            vectors = layer(IDS)
            loss = tf.reduce_sum(tf.sin(tf.cast(vectors, tf.float32)))
        results.append((vectors, tf.convert_to_tensor(tape.gradient(loss, layer.embeddings.value))))
    (vectors, gradient), (expected_vectors, expected_gradient) = results
    assert vectors.dtype == expected_vectors.dtype
    np.testing.assert_array_equal(vectors, expected_vectors)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_nothing_of_the_size_of_all_vectors_is_computed(dtype):
    def computed(kind):
        layer = make(kind, dtype)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(layer(IDS)))
            layer.embeddings.value.scatter_sub(tape.gradient(loss, layer.embeddings.value))

        operations = step.get_concrete_function().graph.get_operations()
        return [op.type for op in operations for output in op.outputs if output.shape == (WORDS, SIZE)]

    assert computed(keras.layers.Embedding)
    assert not computed(Embedding)
