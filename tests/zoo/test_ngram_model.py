"""N-gram models as task models, beyond what all count-based ones are tested for."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from counted_models import NGRAM, TEXTS, UNKNOWN, ids_of, learned
from language_models import call_generate, decoded
from oracles import sampling_distribution

KINDS = {
    "order 1": {"order": 1},
    "sentences": {"prune": [0, 0, 1]},
    "stream": {"across_lines": True, "order": 4},
    "texts": {"separate_texts": True, "order": 5},
    "closed": {"closed_vocabulary": True},
}


@pytest.fixture(scope="module")
def model_of():
    """Models by kind, each learned once."""
    return functools.cache(lambda kind: learned({**NGRAM, **KINDS[kind]}))


@pytest.fixture(scope="module")
def signatures_of(model_of):
    """Signatures by kind of model, each traced once."""
    return functools.cache(lambda kind: model_of(kind).signatures())


@pytest.mark.parametrize("kind", ["order 1", "sentences", "texts"])
def test_start_and_repeated_steps_are_generation(kind, model_of, signatures_of):
    signatures = signatures_of(kind)
    generated = call_generate(signatures["generate"], TEXTS, temperature=[0.0], max_new_tokens=[6])
    state = signatures["start"](tf.constant(TEXTS))["state"]
    assert state.shape == (len(TEXTS), max(model_of(kind).ngrams.order - 2, 1) + 1)
    texts, done = [""] * len(TEXTS), np.zeros(len(TEXTS), bool)
    for _ in range(6):
        result = signatures["step"](state, temperature=tf.constant([0.0]))
        state = result["state"]
        for row in np.flatnonzero(~done):
            texts[row] += result["token"][row].numpy().decode()
        done |= result["done"].numpy()
    assert texts == decoded(generated["text"])


def test_a_step_draws_from_the_distribution(model_of, signatures_of):
    model, signatures, count = model_of("sentences"), signatures_of("sentences"), 3000
    state = tf.repeat(signatures["start"](tf.constant(["a rose is"]))["state"], count, axis=0)
    seeds = tf.stack([tf.range(count), tf.fill([count], 5)], axis=1)
    tokens = signatures["step"](state, seed=seeds)["token_id"].numpy()
    distribution = model.ngrams.model().distribution(ids_of(model, "a rose is"))
    logits = np.log(np.where(np.arange(len(distribution)) == UNKNOWN, 1e-30, distribution))
    expected = sampling_distribution(logits) * count
    frequent = expected > 5
    observed = np.bincount(tokens, minlength=len(expected))
    chi_square = ((observed - expected)[frequent] ** 2 / expected[frequent]).sum()
    assert 6 < frequent.sum() < 24
    assert chi_square < 49.73  # the 99.9 % point of 23 degrees of freedom
    assert observed[UNKNOWN] == 0


def test_a_row_is_generated_alike_alone_and_beside_any_others(signatures_of):
    generate = functools.partial(call_generate, signatures_of("stream")["generate"])
    seeds = [[7, row] for row in range(len(TEXTS))]
    together = generate(TEXTS, seed=seeds, max_new_tokens=[12])["text"]
    alone = [
        generate([text], seed=[seed], max_new_tokens=[12])["text"][0]
        for text, seed in zip(TEXTS, seeds, strict=True)
    ]
    assert together.tolist() == alone
    assert len(set(alone)) > 3


def test_all_texts_of_a_length_sum_to_one():
    model = learned({**NGRAM, "tokenizer": "characters", "across_lines": True})
    letters = ["?", *(piece.decode() for piece in model.tokenizer.pieces[1:])]  # the question mark is unknown
    texts = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    log_prob = model.signatures()["score"](tf.constant(texts))["log_prob"]
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)


def test_lines_as_texts_of_their_own_give_the_model_of_their_stream():
    """Where no line is empty, and n-grams do not reach across."""
    stream, separate = learned(NGRAM), learned({**NGRAM, "separate_texts": True})
    assert not stream.separate_texts
    for variable, other in zip(stream.ngrams.weights, separate.ngrams.weights, strict=True):
        np.testing.assert_array_equal(variable, other)


def test_a_closed_vocabulary_makes_unknown_words_impossible(signatures_of):
    log_prob = signatures_of("closed")["score"](tf.constant(["a rose", "a tulip"]))["log_prob"].numpy()
    assert np.isfinite(log_prob).tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount_fallback": []}, r"no 1-gram has a count of \d: .* \(--order, --discount_fallback"),
        ({"discount_fallback": [0.5, 3, 1]}, "fallback discounts .*: the first has to be 0 to 1"),
        ({"prune": [1]}, "the first has to be 0"),
    ],
    ids=str,
)
def test_options_that_do_not_work(options, message):
    with pytest.raises(ValueError, match=message):
        learned({**NGRAM, **options})
