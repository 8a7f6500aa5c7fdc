"""Attention against NumPy, one query and one memory at a time."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import softmax, weights_of

from zoo.attention import ATTENTIONS

BATCH, TIME, STEPS, UNITS, SIZE = 3, 4, 5, 2, 3
RANDOM = np.random.default_rng(0)
QUERIES = RANDOM.normal(size=(BATCH, TIME, UNITS))
MEMORY = RANDOM.normal(size=(BATCH, STEPS, SIZE))
LENGTHS = (5, 1, 3)
MASK = np.arange(STEPS) < np.array(LENGTHS)[:, np.newaxis]


@pytest.fixture(params=ATTENTIONS)
def attention(request, randomize):
    layer = ATTENTIONS[request.param](dtype="float64")
    layer.build(QUERIES.shape, MEMORY.shape)
    return randomize(layer)


def score(attention, query, item):
    weights = weights_of(attention)
    if "query_kernel" not in weights:
        return query @ (item @ weights["memory_kernel"])
    hidden = np.tanh(query @ weights["query_kernel"] + item @ weights["memory_kernel"])
    return hidden @ weights["score_kernel"][:, 0]


def test_is_a_mean_weighted_by_a_softmax_over_the_real_steps(attention):
    context, weights = attention(QUERIES, MEMORY, MASK)
    for row, length in enumerate(LENGTHS):
        for now in range(TIME):
            shares = softmax([score(attention, QUERIES[row, now], item) for item in MEMORY[row, :length]])
            np.testing.assert_allclose(weights[row, now, :length], shares, rtol=1e-9)
            np.testing.assert_allclose(context[row, now], shares @ MEMORY[row, :length], rtol=1e-9)


def test_padding_has_no_weight_at_all(attention):
    _, weights = attention(QUERIES, MEMORY, MASK)
    assert np.all(weights.numpy()[np.broadcast_to(~MASK[:, np.newaxis], weights.shape)] == 0)
    other = np.where(MASK[..., np.newaxis], MEMORY, 1e6)
    for ours, theirs in zip(attention(QUERIES, MEMORY, MASK), attention(QUERIES, other, MASK), strict=True):
        np.testing.assert_array_equal(ours, theirs)
