"""Count-based models as task models: what they answer in graph, against their equations in NumPy."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from counted_models import BOUNDARY, NGRAM, SNM, TEXT, TEXTS, UNKNOWN, ids_of, learned
from language_models import call_generate

from serving.export import export
from zoo.model_directory import load_model, tensors_of, write_model, write_tensors
from zoo.models.counted_model import CountedModel
from zoo.ngram.backoff import NONE

KINDS = {
    "ngram order 1": {**NGRAM, "order": 1},
    "ngram order 2": {**NGRAM, "order": 2},
    "ngram sentences": {**NGRAM, "prune": [0, 0, 1]},
    "ngram stream": {**NGRAM, "across_lines": True, "order": 4},
    "ngram texts": {**NGRAM, "separate_texts": True, "order": 5},
    "ngram closed": {**NGRAM, "closed_vocabulary": True},
    "snm order 1": {**SNM, "order": 1, "skip_words": 0},
    "snm n-grams": {**SNM, "order": 4, "skip_words": 0},
    "snm sentences": SNM,
    "snm stream": {**SNM, "across_lines": True, "skips": 2},
    "snm texts": {**SNM, "separate_texts": True},
    "snm tied alone": {**SNM, "order": 2, "skip_words": 2, "skips": 0, "closed_vocabulary": True},
}


@pytest.fixture(scope="module")
def model_of():
    """Models by kind, each learned once."""
    return functools.cache(lambda kind: learned(KINDS[kind]))


@pytest.fixture(scope="module")
def signatures_of(model_of):
    """Signatures by kind of model, each traced once."""
    return functools.cache(lambda kind: model_of(kind).signatures())


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def model(kind, model_of) -> CountedModel:
    return model_of(kind)


@pytest.fixture
def signatures(kind, signatures_of):
    return signatures_of(kind)


@pytest.fixture
def oracle(model) -> Any:
    return model.layer.model()


def assert_same_weights(model: CountedModel, other: CountedModel) -> None:
    for variable, expected in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(variable, expected)


# In graph


def test_the_layer_is_the_model_in_numpy(model, oracle):
    ids = np.array(ids_of(model, TEXT[-400:]))[np.newaxis]
    before = np.full([1, model.layer.history_size], NONE)
    tokens = tf.constant(np.concatenate([before, ids], axis=1))
    log_prob = model.layer(tokens, targets=ids.shape[1] - 1)
    assert log_prob.shape == (1, ids.shape[1] - 1)
    np.testing.assert_allclose(log_prob[0], oracle.log_probs(ids[0]), rtol=1e-5)


def test_the_distribution_of_the_layer(model, oracle):
    histories = [
        *([BOUNDARY, 3, 4, 2, 6, 4], [3, 3, 3, 4, 5, 3], [2, UNKNOWN, 3, 2, 5, 4], [4, 3, BOUNDARY, 3, 5, 2]),
        *([4, 2, 6, BOUNDARY, 3, 4], [2, 6, 4, 5, BOUNDARY, 3], [6, 4, 3, 2, UNKNOWN, 3], [5, 6, 2, 3, 4, 2]),
        *([NONE] * 5 + [BOUNDARY], [NONE, NONE, BOUNDARY, 3, 4, 5]),
    ]
    padded = np.pad(histories, [(0, 0), (9, 0)], constant_values=NONE)
    distribution = np.exp(model.layer.distribution(tf.constant(padded)))
    np.testing.assert_allclose(distribution.sum(axis=1), 1, rtol=1e-5)
    for row, history in enumerate(histories):
        known = [word for word in history if word != NONE]
        np.testing.assert_allclose(distribution[row], oracle.distribution(known), rtol=1e-5)


# The task model


def test_score(model, oracle, signatures):
    result = signatures["score"](tf.constant(TEXTS))
    end = [BOUNDARY] if model.separate_texts else []
    for row, text in enumerate(TEXTS):
        ids = [*ids_of(model, text), *end]
        expected = oracle.log_probs(np.array(ids)).sum()
        np.testing.assert_allclose(result["log_prob"][row], expected, rtol=1e-5)
        assert result["num_tokens"][row] == len(ids) - 1


def test_windows_of_a_text_carry_the_history(model, oracle):
    ids = np.array(ids_of(model, TEXT), np.int32)[:201]
    states, total = model.initial_states(1), 0.0
    for start in range(0, 200, 7):
        window = ids[start : start + 8][np.newaxis]
        batch = {"inputs": window[:, :-1], "targets": window[:, 1:]}
        batch["mask"] = np.ones(batch["inputs"].shape, bool)
        outputs = model({name: tf.constant(value) for name, value in batch.items()}, states)
        states = outputs["states"]
        total += model.token_log_prob(batch, outputs).numpy().sum()
    assert total == pytest.approx(oracle.log_probs(ids).sum(), rel=1e-5)


@pytest.mark.parametrize(
    "kind", [f"{family} {name}" for family in ("ngram", "snm") for name in ("order 1", "sentences", "texts")]
)
def test_greedy_generation(model, oracle, signatures):
    limits = [0, 7, 3, 1, 9, 5, 2]
    generated = call_generate(signatures["generate"], TEXTS, temperature=[0.0], max_new_tokens=limits)
    for row, (text, limit) in enumerate(zip(TEXTS, limits, strict=True)):
        ids, drawn = ids_of(model, text), []
        while len(drawn) < limit and not (model.separate_texts and drawn[-1:] == [BOUNDARY]):
            distribution = oracle.distribution(ids)
            distribution[UNKNOWN] = 0
            drawn.append(int(distribution.argmax()))
            ids.append(drawn[-1])
        expected = model.tokenizer.detokenize(tf.constant([drawn], tf.int32)).numpy()[0].decode()
        if model.separate_texts:
            expected = expected.removesuffix("\n")
        assert generated["text"][row].decode() == expected
        assert generated["num_tokens"][row] == len(drawn)
        log_prob = oracle.log_probs(np.array(ids))[len(ids) - len(drawn) - 1 :].sum()
        np.testing.assert_allclose(generated["log_prob"][row], log_prob, rtol=1e-4, atol=1e-6)


def test_there_is_nothing_to_train_and_no_embedding(model, signatures):
    assert model.trainable_variables == []
    assert sorted(signatures) == sorted(model.requests())
    assert not {"contrastive", "embed"} & set(signatures)


# Learning


@pytest.mark.parametrize("kind", ["ngram sentences", "snm sentences"])
def test_the_text_is_counted_whole_however_it_comes(kind, model):
    assert_same_weights(learned(KINDS[kind], TEXT.splitlines(keepends=True)), model)


@pytest.mark.parametrize("options", [NGRAM, SNM], ids=["ngram", "snm"])
def test_there_is_nothing_across_separate_texts(options):
    with pytest.raises(ValueError, match="--across_lines: there is nothing across"):
        learned({**options, "separate_texts": True, "across_lines": True})


# Model directory and export


@pytest.mark.parametrize("kind", ["ngram sentences", "snm sentences"])
def test_a_model_directory_holds_it(kind, model, tmp_path):
    write_model(tmp_path, model, {"task": "language_model", "config": {}, "model": KINDS[kind]})
    write_tensors(tmp_path / "best" / "weights.safetensors", tensors_of(model.weights), {})
    assert_same_weights(load_model(tmp_path), model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ngram sentences", "snm tied alone"])
def test_exported(model, signatures, tmp_path):
    """The export compares what it wrote, in a graph session, with the model; here, loaded in Python."""
    loaded = tf.saved_model.load(str(export(model, tmp_path))).signatures
    expected = signatures["score"](tf.constant(TEXTS))["log_prob"]
    np.testing.assert_allclose(loaded["score"](text=tf.constant(TEXTS))["log_prob"], expected, rtol=1e-6)
