"""The classifier against its equations in NumPy, one text at a time, and what it answers when served."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import log_softmax, pooled, stacked, weights_of

from zoo.metrics import Confusion, LabelSets
from zoo.models.classifier import Classifier, example
from zoo.pooling import POOLINGS
from zoo.text import Characters
from zoo.vocabulary import Labels

LABELS = ("animal", "colour", "number")
TEXTS = ["", "a", "cab", "bead é xx", "one two three\nfour", "abc" * 20]
TOKENIZER = Characters.learn(tf.data.Dataset.from_tensors("abcdeé \n"))
CASES = {
    "maximum": {"cell": "gru"},
    "both": {"cell": "lstm", "bidirectional": True, "pooling": "final", "embedding_size": 3},
    "attention": {"cell": "elman", "pooling": "attention", "skip": "residual", "layers": 2},
}


@pytest.fixture(scope="module", params=CASES)
def model(request, randomize):
    options = {"units": 5, "precision": "float64", **CASES[request.param]}
    return randomize(Classifier(TOKENIZER, Labels(dict.fromkeys(LABELS, 1)), **options), scale=1.0)


def ids_of(text):
    return [TOKENIZER.pieces.index(p) if (p := c.encode()) in TOKENIZER.pieces else 0 for c in text] + [1]


def batch_of(model, records):
    features = model.features({name: tf.constant(values) for name, values in records.items()})
    inputs = features.pop("inputs")
    padded = inputs.to_tensor()
    return {**features, "inputs": padded, "mask": tf.sequence_mask(inputs.row_lengths(), tf.shape(padded)[1])}


def logits_in_numpy(model, text):
    name = {pooling: name for name, pooling in POOLINGS.items()}[type(model.pooling)]
    outputs = stacked(model.stack, model.embedding.embeddings.numpy()[ids_of(text)])
    encoding = pooled(name, weights_of(model.pooling), outputs, model.pooling.bidirectional)
    return encoding @ model.head.kernel.numpy() + model.head.bias.numpy()


def test_logits_are_those_of_each_text_alone(model):
    logits = model.encoded(tf.constant(TEXTS))["logits"].numpy()
    np.testing.assert_allclose(logits, [logits_in_numpy(model, text) for text in TEXTS], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_is_the_cross_entropy(model, smoothing, monkeypatch):
    monkeypatch.setattr(model.labelling, "smoothing", smoothing)
    labels = [2, 0, 1, 1, 0, 2]
    batch = batch_of(model, {"text": TEXTS, "label": [LABELS[label] for label in labels]})
    loss, count = model.loss(batch, model(batch))
    expected = 0.0
    for text, label in zip(TEXTS, labels, strict=True):
        log_prob = log_softmax(logits_in_numpy(model, text))
        expected -= (1 - smoothing) * log_prob[label] + smoothing * log_prob.mean()
    assert count == len(TEXTS)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)


def test_metrics_count_right_answers_and_unsmoothed_nats(model):
    labels = [0, 1, 2, 0, 1, 2]
    batch = batch_of(model, {"text": TEXTS, "label": [LABELS[label] for label in labels]})
    model.confusion.reset_state()
    model.update_metrics(batch, model(batch))
    result = {name: float(value) for name, value in model.confusion.result().items()}
    log_probs = [log_softmax(logits_in_numpy(model, text)) for text in TEXTS]
    right = [log_prob.argmax() == label for log_prob, label in zip(log_probs, labels, strict=True)]
    nats = -np.mean([log_prob[label] for log_prob, label in zip(log_probs, labels, strict=True)])
    assert result["accuracy"] == pytest.approx(np.mean(right))
    assert result["nats_per_example"] == pytest.approx(nats)
    assert model.objective(result) == 1 - result["accuracy"]


def test_signatures_agree(model):
    signatures = model.signatures()
    default = signatures["serving_default"](text=tf.constant(TEXTS))
    probabilities = np.exp([log_softmax(logits_in_numpy(model, text)) for text in TEXTS])
    np.testing.assert_allclose(default["probabilities"], probabilities, rtol=1e-4, atol=1e-6)
    assert default["labels"].numpy().tolist() == [[label.encode() for label in LABELS]] * len(TEXTS)
    assert default["label"].numpy().tolist() == [LABELS[row.argmax()].encode() for row in probabilities]
    examples = [example(text).SerializeToString() for text in TEXTS]
    classified = signatures["classify"](inputs=tf.constant(examples))
    np.testing.assert_array_equal(classified["scores"], default["probabilities"])
    np.testing.assert_array_equal(classified["classes"], default["labels"])
    embedding = signatures["embed"](text=tf.constant(TEXTS))["embedding"].numpy()
    kernel, bias = model.head.kernel.numpy(), model.head.bias.numpy()
    expected = [logits_in_numpy(model, text) for text in TEXTS]
    np.testing.assert_allclose(embedding @ kernel + bias, expected, rtol=1e-3, atol=1e-4)


def test_a_model_from_its_assets_is_the_same(model, randomize):
    options = {"tokenizer": "characters", "units": 5, "precision": "float64"}
    records = tf.data.Dataset.from_tensor_slices({"text": ["ab", "c", "d"], "label": ["y\nz", "x", "y\nz"]})
    learned = randomize(Classifier.learn(records, {**options, "vocabulary_size": 0}))
    assert learned.labels.names == ("x", "y\nz")
    restored = randomize(Classifier.restore(options, learned.assets()))
    assert restored.labels.names == learned.labels.names
    for ours, theirs in zip(
        learned.encoded(["abd"]).values(), restored.encoded(["abd"]).values(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_one_class_is_none():
    records = tf.data.Dataset.from_tensor_slices({"text": ["ab", "c"], "label": ["x", "x"]})
    with pytest.raises(ValueError, match="the only label in training is 'x'"):
        Classifier.learn(records, {"tokenizer": "characters", "vocabulary_size": 0})


def test_an_unseen_label_is_named(model):
    with pytest.raises(tf.errors.InvalidArgumentError, match="no training example has the label plant"):
        model.features({"text": tf.constant(["a", "b"]), "label": tf.constant(["animal", "plant"])})


class TestConfusion:
    ACTUAL, PREDICTED = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2]

    def values(self, labels="abcd"):
        metric = Confusion(labels)
        for part in (slice(0, 2), slice(2, 6)):
            metric.update_state(self.ACTUAL[part], self.PREDICTED[part], nats=1.5)
        return {name: float(value) for name, value in metric.result().items()}

    def test_by_hand(self):
        """F1: a 2/(2+2), b 2/(1+2), c 4/(3+2), d, which is nowhere, 0."""
        result = self.values()
        assert result["examples"] == 6
        assert result["accuracy"] == pytest.approx(4 / 6)
        assert result["macro_f1"] == pytest.approx((2 / 4 + 2 / 3 + 4 / 5 + 0) / 4)
        assert result["nats_per_example"] == pytest.approx(3.0 / 6)

    def test_as_keras_has_it(self):
        keras_f1 = keras.metrics.F1Score(average="macro")
        keras_f1.update_state(np.eye(3)[self.ACTUAL], np.eye(3)[self.PREDICTED])
        assert self.values("abc")["macro_f1"] == pytest.approx(float(keras_f1.result()))

    def test_without_examples(self):
        assert set(Confusion("ab").result()) == {"examples", "nats_per_example", "accuracy", "macro_f1"}
        assert all(float(value) == 0 for value in Confusion("ab").result().values())


class TestSeveralLabels:
    def model(self, randomize, **options):
        records = {"text": ["ab", "c", "d"], "label": ["x| y", "x", "z"]}
        settings = {"tokenizer": "characters", "vocabulary_size": 0, "units": 4, "precision": "float64"}
        settings |= {"label_separator": "|", **options}
        return randomize(Classifier.learn(tf.data.Dataset.from_tensor_slices(records), settings))

    def test_each_label_has_a_probability_of_its_own(self, randomize):
        model = self.model(randomize)
        assert model.labels.names == ("x", "y", "z")
        assert model.labels.counts == (2, 1, 1)
        batch = batch_of(model, {"text": ["ab", "c"], "label": ["y|x|x", "z"]})
        np.testing.assert_array_equal(batch["label"], [[1, 1, 0], [0, 0, 1]])
        outputs = model(batch)
        chance = 1 / (1 + np.exp(-outputs["logits"].numpy()))
        loss, count = model.loss(batch, outputs)
        expected = -np.log(np.where(batch["label"].numpy() > 0, chance, 1 - chance)).sum()
        np.testing.assert_allclose([loss, count], [expected, 2], rtol=1e-9)
        answer = model.signatures()["serving_default"](text=tf.constant(["ab", "c"]))
        np.testing.assert_allclose(answer["probabilities"], chance, rtol=1e-5)
        for said, row in zip(answer["label"].numpy(), chance, strict=True):
            assert said.decode() == "|".join(name for name, p in zip("xyz", row, strict=True) if p > 0.5)
        model.confusion.reset_state()
        model.update_metrics(batch, outputs)
        result = {name: float(value) for name, value in model.confusion.result().items()}
        exact = np.all((chance > 0.5) == (batch["label"].numpy() > 0), axis=1)
        assert result["accuracy"] == exact.mean()
        assert result["nats_per_example"] == pytest.approx(expected / 2)

    def test_smoothing_and_weights(self, randomize):
        model = self.model(randomize, label_smoothing=0.2, class_weights="balanced")
        batch = batch_of(model, {"text": ["ab"], "label": ["y"]})
        outputs = model(batch)
        chance = 1 / (1 + np.exp(-outputs["logits"].numpy()[0]))
        share = np.array([0.1, 0.9, 0.1])
        nats = -share * np.log(chance) - (1 - share) * np.log(1 - chance)
        weights = 4 / (3 * np.array([2, 1, 1]))
        np.testing.assert_allclose(model.loss(batch, outputs)[0], (weights * nats).sum(), rtol=1e-6)

    def test_metrics_by_hand(self):
        metric = LabelSets("abc")
        actual = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
        said = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], bool)
        metric.update_state(actual[:2], said[:2], nats=3.0)
        metric.update_state(actual[2:], said[2:], nats=0.0)
        result = {name: float(value) for name, value in metric.result().items()}
        f1 = (2 * 2 / (3 + 2) + 2 * 1 / (1 + 2) + 0) / 3
        assert result == pytest.approx(
            {"examples": 3, "nats_per_example": 1, "accuracy": 1 / 3, "macro_f1": f1}
        )
        assert metric.table().splitlines()[1].split() == ["a", "2", "3", "2"]

    def test_an_unseen_label_is_named(self, randomize):
        with pytest.raises(tf.errors.InvalidArgumentError, match="no training example has the label w"):
            batch_of(self.model(randomize), {"text": ["a"], "label": ["x|w"]})

    def test_baseline_is_the_frequency_of_each(self, randomize):
        model = self.model(randomize)
        targets = np.array([[1, 0, 0], [1, 1, 0]], np.float32)
        result = model.baseline([{"label": targets}], [{"label": targets[:1]}])
        assert result["nats_per_example"] == pytest.approx(-np.log([3 / 4, 2 / 4, 3 / 4]).sum())


def test_balanced_errors_count_by_the_rarity_of_their_class(model, monkeypatch):
    labels = Labels({"animal": 6, "colour": 1, "number": 1})
    monkeypatch.setattr(model.labelling, "weights", labels.balance())
    np.testing.assert_allclose(labels.balance(), [8 / 18, 8 / 3, 8 / 3])
    batch = batch_of(model, {"text": ["a", "cab"], "label": ["animal", "number"]})
    nats = [-log_softmax(logits_in_numpy(model, text))[label] for text, label in (("a", 0), ("cab", 2))]
    np.testing.assert_allclose(
        model.loss(batch, model(batch))[0], 8 / 18 * nats[0] + 8 / 3 * nats[1], rtol=1e-6
    )


def test_confusion_is_shown_as_a_table():
    metric = Confusion(["cat", "dog"])
    metric.update_state([0, 1, 1, 1], [0, 0, 1, 1], nats=0.0)
    assert metric.table() == "     cat  dog\ncat    1    0\ndog    1    2"


def test_encode_is_what_embed_gives(model):
    text = tf.constant(TEXTS)
    np.testing.assert_allclose(
        model.encode(text), model.signatures()["embed"](text=text)["embedding"], rtol=1e-5
    )


def test_layer_groups_are_all_weights_from_the_output_on(model):
    groups = model.layer_groups()
    assert len(groups) == 2 + len(model.stack.cells)
    assert {v.path for group in groups for v in group} == {v.path for v in model.trainable_variables}
    assert sum(map(len, groups)) == len(model.trainable_variables)
    assert any("head" in v.path for v in groups[0])
    assert [v.path for v in groups[-1]] == [model.embedding.embeddings.path]
