"""Sparse non-negative matrices as task models: what they answer in graph, against the model in NumPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from language_models import call_generate
from tiny import prose

from serving.export import export
from zoo.model_directory import load_model, tensors_of, write_model, write_tensors
from zoo.models.snm_model import SparseMatrixModel
from zoo.ngram.backoff import NONE
from zoo.snm.model import SnmModel

UNKNOWN, BOUNDARY = 0, 1
TEXT = prose(300) + "so is the\n"
OPTIONS = {
    "tokenizer": "whitespace",
    "vocabulary_size": 0,
    "separate_texts": False,
    "order": 3,
    "skip_words": 3,
    "skips": 1,
    "tied_skips": 4,
    "closed_vocabulary": False,
    "across_lines": False,
    "epochs": 2,
    "learning_rate": 0.1,
    "seed": 1,
}
TEXTS = ["", "a", " rose is", "a rose\nis a\n\n", "no such words", " red" * 9, "a tulip is red and grey\n"]
KINDS = {
    "order 1": {"order": 1, "skip_words": 0},
    "n-grams": {"order": 4, "skip_words": 0},
    "sentences": {},
    "stream": {"across_lines": True, "skips": 2},
    "texts": {"separate_texts": True},
    "tied alone": {"order": 2, "skip_words": 2, "skips": 0, "closed_vocabulary": True},
}


def learned(text: str = TEXT, **options) -> SparseMatrixModel:
    given = {**OPTIONS, **options}
    texts = text.splitlines() if given["separate_texts"] else [text]
    return SparseMatrixModel.learn(tf.data.Dataset.from_tensor_slices({"text": texts}), given)


def ids_of(model: SparseMatrixModel, text: str) -> list[int]:
    return [BOUNDARY, *model.tokenizer.tokenize(tf.constant([text])).values.numpy().tolist()]


@pytest.fixture(scope="module")
def models() -> dict[str, SparseMatrixModel]:
    return {name: learned(**options) for name, options in KINDS.items()}


@pytest.fixture(params=KINDS)
def model(request, models) -> SparseMatrixModel:
    return models[request.param]


@pytest.fixture
def oracle(model) -> SnmModel:
    return model.skip_grams.model()


@pytest.fixture(scope="module")
def signatures_of(models):
    """Signatures by kind of model, each traced once."""
    return functools.cache(lambda kind: models[kind].signatures())


@pytest.fixture
def signatures(request, model, signatures_of):
    return signatures_of(request.node.callspec.params["model"])


def test_the_layer_is_the_model_in_numpy(model, oracle):
    ids = np.array(ids_of(model, TEXT[-400:]))[np.newaxis]
    before = np.full([1, model.skip_grams.history_size], NONE)
    tokens = tf.constant(np.concatenate([before, ids], axis=1))
    log_prob = model.skip_grams(tokens, targets=ids.shape[1] - 1)
    assert log_prob.shape == (1, ids.shape[1] - 1)
    np.testing.assert_allclose(log_prob[0], oracle.log_probs(ids[0]), rtol=1e-5)


def test_the_distribution_of_the_layer(model, oracle):
    histories = [
        *([BOUNDARY, 3, 4, 2, 6, 4], [3, 3, 3, 4, 5, 3], [2, UNKNOWN, 3, 2, 5, 4], [4, 3, BOUNDARY, 3, 5, 2]),
        *([NONE] * 5 + [BOUNDARY], [NONE, NONE, BOUNDARY, 3, 4, 5]),
    ]
    padded = np.pad(histories, [(0, 0), (9, 0)], constant_values=NONE)
    distribution = np.exp(model.skip_grams.distribution(tf.constant(padded)))
    np.testing.assert_allclose(distribution.sum(axis=1), 1, rtol=1e-5)
    for row, history in enumerate(histories):
        known = [word for word in history if word != NONE]
        np.testing.assert_allclose(distribution[row], oracle.distribution(known), rtol=1e-5)


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


@pytest.mark.parametrize("model", ["order 1", "sentences", "texts"], indirect=True)
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


def test_the_text_is_counted_whole_however_it_comes(models):
    parts = tf.data.Dataset.from_tensor_slices({"text": TEXT.splitlines(keepends=True)})
    again = SparseMatrixModel.learn(parts, OPTIONS)
    for variable, other in zip(again.weights, models["sentences"].weights, strict=True):
        np.testing.assert_array_equal(variable, other)


def test_words_not_in_training(signatures_of):
    for kind, possible in {"sentences": True, "tied alone": False}.items():
        log_prob = signatures_of(kind)["score"](tf.constant(["a rose", "a tulip"]))["log_prob"].numpy()
        assert np.isfinite(log_prob).tolist() == [True, possible]


@pytest.mark.parametrize("text", ["a\n", "\n", "a rose is red\n"], ids=repr)
def test_a_text_of_one_sentence(text):
    model = learned(text, order=12, skip_words=12, skips=2, tied_skips=32)
    assert np.isfinite(model.signatures()["score"](tf.constant(["", text, "a rose"]))["log_prob"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separate_texts": True, "across_lines": True}, "--across_lines: there is nothing across"),
        ({"skip_words": 4}, "skip-grams go on from 4 words, n-grams have only 3"),
    ],
    ids=str,
)
def test_options_that_do_not_work(options, message):
    with pytest.raises(ValueError, match=message):
        learned(**options)


def test_there_is_nothing_to_train(model):
    assert model.trainable_variables == []
    assert "embed" not in model.signatures()


def test_a_model_directory_holds_it(models, tmp_path):
    model = models["sentences"]
    options = {**OPTIONS, "model": "snm"}
    write_model(tmp_path, model, {"task": "language_model", "config": {}, "model": options})
    write_tensors(tmp_path / "best" / "weights.safetensors", tensors_of(model.weights), {})
    again = load_model(tmp_path)
    assert again.skip_grams.chains == model.skip_grams.chains
    assert again.skip_grams.boundary == BOUNDARY
    for variable, other in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(variable, other)


@pytest.mark.slow
def test_exported(models, signatures_of, tmp_path):
    """The export compares what it wrote, in a graph session, with the model; here, loaded in Python."""
    folder = export(models["tied alone"], tmp_path)
    loaded = tf.saved_model.load(str(folder)).signatures
    expected = signatures_of("tied alone")["score"](tf.constant(TEXTS))["log_prob"]
    np.testing.assert_allclose(loaded["score"](text=tf.constant(TEXTS))["log_prob"], expected, rtol=1e-6)
