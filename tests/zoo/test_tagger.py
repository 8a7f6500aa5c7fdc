"""The tagger against its equations in NumPy, one sentence at a time, and what it answers when served."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from oracles import log_softmax, pooled, stacked, weights_of

from zoo.cutting import CUTS, SEPARATOR
from zoo.models.base import padded
from zoo.models.tagger import Tagger
from zoo.text import Characters
from zoo.vocabulary import Labels, Vocabulary

WORDS = Vocabulary([b"the", b"dog", b"barks", b"."])
CHARACTERS = Characters.learn(tf.data.Dataset.from_tensors("thedogbarks. T\n"))
TAGS = ("noun", "other", "verb")
SENTENCES = ["The dog barks .", "dog", "a cat and the dog and a bird bark , all of them .", "xyz " * 20]
TEXTS = [*SENTENCES, "", "שלום cafe\u0301 😀", "the " + "a" * 50, " ".join(["dog"] * 300)]
CASES = {
    "softmax": {"cell": "gru", "crf": False, "embedding_size": 3},
    "crf": {"cell": "lstm", "bidirectional": True, "character_units": 2},
    "deep": {"cell": "elman", "layers": 2, "skip": "residual", "character_units": 3, "bidirectional": True},
}


@pytest.fixture(scope="module", params=CASES)
def model(request, randomize):
    options = {"units": 4, "precision": "float64", **CASES[request.param]}
    return randomize(
        Tagger(WORDS, CHARACTERS, Labels(dict.fromkeys(TAGS, 1)), "whitespace", **options), scale=0.6
    )


def vectors(model, tokens):
    words = model.words
    ids = [WORDS.words.index(w) + 1 if w in WORDS.words else 0 for w in _looked_up(model, tokens)]
    embedded = words.embedding.embeddings.numpy()[ids]
    if not words.character_units:
        return embedded
    spelled = []
    for token in tokens:
        pieces = CHARACTERS.pieces
        ids = [pieces.index(c.encode()) if c.encode() in pieces else 0 for c in token[:31]] + [1]
        outputs = stacked(words.character_stack, words.character_embedding.embeddings.numpy()[ids])
        spelled.append(pooled("final", {}, outputs, True))
    return np.concatenate([embedded, spelled], axis=-1)


def _looked_up(model, tokens):
    return [(token.lower() if model.words.character_units else token).encode() for token in tokens]


def scores_in_numpy(model, tokens):
    outputs = stacked(model.stack, vectors(model, tokens))
    return outputs @ model.scores.kernel.numpy() + model.scores.bias.numpy()


def batch_of(model, sentences, tags=None):
    records = {"tokens": tf.constant([SEPARATOR.join(sentence.split()) for sentence in sentences])}
    if tags:
        records["tags"] = tf.constant([SEPARATOR.join(row) for row in tags])
    return padded(model.features(records))


def test_scores_are_those_of_each_sentence_alone(model):
    batch = batch_of(model, SENTENCES)
    scores = model(batch)["scores"].numpy()
    for row, sentence in enumerate(SENTENCES):
        tokens = sentence.split()
        expected = scores_in_numpy(model, tokens)
        np.testing.assert_allclose(scores[row, : len(tokens)], expected, rtol=1e-9, atol=1e-9)


def test_loss_is_that_of_the_marked_tags(model):
    rng = np.random.default_rng(1)
    tags = [[TAGS[i] for i in rng.integers(0, 3, len(sentence.split()))] for sentence in SENTENCES]
    batch = batch_of(model, SENTENCES, tags)
    loss, count = model.loss(batch, model(batch))
    assert count == sum(map(len, tags))
    expected = 0.0
    for sentence, row in zip(SENTENCES, tags, strict=True):
        scores = scores_in_numpy(model, sentence.split())
        ids = [TAGS.index(tag) for tag in row]
        expected -= sequence_log_prob(model, scores, ids)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)


def sequence_log_prob(model, scores, ids):
    if not has_crf(model):
        return sum(log_softmax(row)[tag] for row, tag in zip(scores, ids, strict=True))
    weights = weights_of(model.distribution)
    first, moves, last = weights["first"], weights["moves"], weights["last"]
    alpha = first + scores[0]
    for row in scores[1:]:
        alpha = np.logaddexp.reduce(alpha[:, np.newaxis] + moves, axis=0) + row
    path = first[ids[0]] + last[ids[-1]] + scores[range(len(ids)), ids].sum()
    return path + sum(moves[a, b] for a, b in itertools.pairwise(ids)) - np.logaddexp.reduce(alpha + last)


def has_crf(model):
    return bool(model.distribution.weights)


@pytest.mark.slow
def test_a_text_alone_is_tagged_the_same(model):
    together = {name: value.numpy() for name, value in model.tagged(tf.constant(TEXTS)).items()}
    words = CUTS["whitespace"](tf.constant(TEXTS))
    for row, text in enumerate(TEXTS):
        alone = {name: value.numpy()[0] for name, value in model.tagged(tf.constant([text])).items()}
        length = alone["lengths"]
        assert length == together["lengths"][row] == len(text.split())
        for name in ("tokens", "tags", "starts", "ends"):
            np.testing.assert_array_equal(together[name][row, :length], alone[name][:length])
        np.testing.assert_allclose(together["scores"][row, :length], alone["scores"][:length], rtol=1e-5)
        assert np.all(together["tags"][row, length:] == b"")
        assert alone["starts"][:length].tolist() == words.starts[row].numpy().tolist()


def test_scores_are_probabilities_of_the_tags_given(model):
    tagged = model.tagged(tf.constant(SENTENCES[:1]))
    scores = scores_in_numpy(model, SENTENCES[0].split())
    marginals = model.distribution.marginals(scores[np.newaxis], np.ones((1, 4), bool)).numpy()[0]
    ids = [TAGS.index(tag.decode()) for tag in tagged["tags"].numpy()[0]]
    np.testing.assert_allclose(tagged["scores"][0], marginals[range(4), ids], rtol=1e-6)


def learned(options, tags=("noun", "verb", "verb")):
    tokens = ["ab", "ab" + SEPARATOR + "c"]
    records = {"tokens": tokens, "tags": [tags[0], SEPARATOR.join(tags[1:])]}
    return Tagger.learn(tf.data.Dataset.from_tensor_slices(records), options)


OPTIONS = {"tokenizer": "words", "units": 4, "vocabulary_size": 0, "character_units": 3}


def test_a_model_from_its_assets_is_the_same(randomize):
    ours = randomize(learned(OPTIONS))
    theirs = randomize(Tagger.restore(OPTIONS, ours.assets()))
    assert ours.words.words.words == theirs.words.words.words == (b"ab",)  # the one that occurs twice
    assert ours.tags.names == theirs.tags.names == ("noun", "verb")
    for name, value in ours.tagged(tf.constant(["ab c d"])).items():
        np.testing.assert_array_equal(value, theirs.tagged(tf.constant(["ab c d"]))[name])


def test_metrics_of_spans_only_where_there_are_spans():
    assert learned(OPTIONS).spans is None
    assert learned(OPTIONS, ("B-x", "B-x", "I-x")).spans is not None


def test_what_cannot_be_learned():
    with pytest.raises(ValueError, match="only tag in training is 'noun'"):
        learned(OPTIONS, ("noun",) * 3)
    with pytest.raises(ValueError, match="--tokenizer=subwords: this task has one of characters"):
        learned({**OPTIONS, "tokenizer": "subwords"})


def test_an_unseen_tag_is_named(model):
    with pytest.raises(tf.errors.InvalidArgumentError, match="no training example has the tag adverb"):
        batch_of(model, ["dog"], [["adverb"]])


def test_baseline_is_each_words_most_frequent_tag():
    model = learned(OPTIONS)
    train = batch_of(model, ["ab ab ab q r"], [["verb", "noun", "verb", "noun", "noun"]])
    validation = batch_of(model, ["ab x ab"], [["verb", "noun", "noun"]])
    result = model.baseline([train_numpy(train)], [train_numpy(validation)])
    assert result == {"tokens": 3, "accuracy": pytest.approx(2 / 3)}


def train_numpy(batch):
    return {name: value.numpy() for name, value in batch.items()}
