"""N-gram models as task models: what they answer in graph, against the back-off model in NumPy."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from language_models import call_generate, decoded
from oracles import sampling_distribution
from tiny import prose

from serving.export import export
from zoo.model_directory import load_model, tensors_of, write_model, write_tensors
from zoo.models.ngram_model import NgramModel
from zoo.ngram import BackoffModel
from zoo.ngram.backoff import NONE

UNKNOWN, BOUNDARY = 0, 1
TEXT = prose(300) + "so is the\n"
OPTIONS = {
    "tokenizer": "whitespace",
    "vocabulary_size": 0,
    "separate_texts": False,
    "order": 3,
    "prune": [],
    "discount_fallback": [0.5, 1.0, 1.5],
    "closed_vocabulary": False,
    "across_lines": False,
}
TEXTS = ["", "a", " rose is", "a rose\nis a\n\n", "no such words", " red" * 9, "a tulip is red and grey\n"]


def learned(**options) -> NgramModel:
    given = {**OPTIONS, **options}
    texts = TEXT.splitlines() if given["separate_texts"] else [TEXT]
    return NgramModel.learn(tf.data.Dataset.from_tensor_slices({"text": texts}), given)


def ids_of(model: NgramModel, text: str) -> list[int]:
    return [BOUNDARY, *model.tokenizer.tokenize(tf.constant([text])).values.numpy().tolist()]


KINDS = {
    "order 1": {"order": 1},
    "order 2": {"order": 2},
    "sentences": {"prune": [0, 0, 1]},
    "stream": {"across_lines": True, "order": 4},
    "texts": {"separate_texts": True, "order": 5},
    "closed": {"closed_vocabulary": True},
}


@pytest.fixture(scope="module")
def models() -> dict[str, NgramModel]:
    return {name: learned(**options) for name, options in KINDS.items()}


@pytest.fixture(params=KINDS)
def model(request, models) -> NgramModel:
    return models[request.param]


@pytest.fixture(scope="module")
def signatures_of(models):
    """Signatures by kind of model, each traced once."""
    return functools.cache(lambda kind: models[kind].signatures())


@pytest.fixture
def signatures(request, model, signatures_of):
    return signatures_of(request.node.callspec.params["model"])


@pytest.fixture
def oracle(model) -> BackoffModel:
    return model.ngrams.model()


# In graph


def test_the_layer_is_the_back_off_model(model, oracle):
    ids = np.array(ids_of(model, TEXT[-400:]))[np.newaxis]
    before = np.full([1, model.ngrams.order - 1], NONE)
    tokens = tf.constant(np.concatenate([before, ids], axis=1))
    log_prob = model.ngrams(tokens, targets=ids.shape[1] - 1)
    assert log_prob.shape == (1, ids.shape[1] - 1)
    np.testing.assert_allclose(log_prob[0], oracle.log_probs(ids[0]), rtol=1e-5)


def test_the_distribution_of_the_layer(model, oracle):
    histories = [[BOUNDARY, 3, 4], [5, BOUNDARY, 3], [2, UNKNOWN, 3], [NONE, NONE, BOUNDARY], [3, 4, 2]]
    padded = np.pad(histories, [(0, 0), (9, 0)], constant_values=NONE)
    log_prob = model.ngrams.distribution(tf.constant(padded))
    for row, history in enumerate(histories):
        known = [word for word in history if word != NONE]
        np.testing.assert_allclose(np.exp(log_prob[row]), oracle.distribution(known), rtol=1e-5)


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


GENERATING = pytest.mark.parametrize("model", ["order 1", "sentences", "texts"], indirect=True)


@GENERATING
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


@GENERATING
def test_start_and_repeated_steps_are_generation(model, signatures):
    generated = call_generate(signatures["generate"], TEXTS, temperature=[0.0], max_new_tokens=[6])
    state = signatures["start"](tf.constant(TEXTS))["state"]
    assert state.shape == (len(TEXTS), max(model.ngrams.order - 2, 1) + 1)
    texts, done = [""] * len(TEXTS), np.zeros(len(TEXTS), bool)
    for _ in range(6):
        result = signatures["step"](state, temperature=tf.constant([0.0]))
        state = result["state"]
        for row in np.flatnonzero(~done):
            texts[row] += result["token"][row].numpy().decode()
        done |= result["done"].numpy()
    assert texts == decoded(generated["text"])


def test_a_step_draws_from_the_distribution(models, signatures_of):
    model, signatures, count = models["sentences"], signatures_of("sentences"), 3000
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
    model = learned(tokenizer="characters", across_lines=True)
    letters = ["?", *(piece.decode() for piece in model.tokenizer.pieces[1:])]  # the question mark is unknown
    texts = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    log_prob = model.signatures()["score"](tf.constant(texts))["log_prob"]
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)


# Learning


def test_the_text_is_counted_whole_however_it_comes():
    parts = tf.data.Dataset.from_tensor_slices({"text": TEXT.splitlines(keepends=True)})
    again, expected = NgramModel.learn(parts, OPTIONS), learned()
    for variable, other in zip(again.ngrams.weights, expected.ngrams.weights, strict=True):
        np.testing.assert_array_equal(variable, other)


def test_lines_as_texts_of_their_own_give_the_model_of_their_stream():
    """Where no line is empty, and n-grams do not reach across."""
    stream, separate = learned(), learned(separate_texts=True)
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
        ({"separate_texts": True, "across_lines": True}, "--across_lines: there is nothing across"),
    ],
    ids=str,
)
def test_options_that_do_not_work(options, message):
    with pytest.raises(ValueError, match=message):
        learned(**options)


def test_there_is_nothing_to_train_and_no_embedding(model):
    assert model.trainable_variables == []
    signatures = sorted(model.signatures())
    assert signatures == sorted(model.requests())
    assert not {"contrastive", "embed"} & set(signatures)


# Model directory and export


def test_a_model_directory_holds_it(models, tmp_path):
    model = models["sentences"]
    write_model(
        tmp_path, model, {"task": "language_model", "config": {}, "model": {**OPTIONS, "model": "ngram"}}
    )
    write_tensors(tmp_path / "best" / "weights.safetensors", tensors_of(model.weights), {})
    again = load_model(tmp_path)
    for variable, other in zip(again.ngrams.weights, model.ngrams.weights, strict=True):
        np.testing.assert_array_equal(variable, other)


@pytest.mark.slow
def test_exported(models, signatures_of, tmp_path):
    """The export compares what it wrote, in a graph session, with the model; here, loaded in Python."""
    folder = export(models["sentences"], tmp_path)
    loaded = tf.saved_model.load(str(folder)).signatures
    expected = signatures_of("sentences")["score"](tf.constant(TEXTS))["log_prob"]
    np.testing.assert_allclose(loaded["score"](text=tf.constant(TEXTS))["log_prob"], expected, rtol=1e-6)
