"""A trained model's encoder inside a Keras model of an app's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.encoder import TextEncoder
from zoo.models.language_model import LanguageModel
from zoo.models.reader import Reader
from zoo.models.tagger import Tagger
from zoo.models.translator import Translator
from zoo.text import Characters
from zoo.vocabulary import Labels, Vocabulary

CHARACTERS = Characters.learn(tf.data.Dataset.from_tensors("abcdefgh \n"))
WORDS = Vocabulary([b"bad", b"cab", b"fed"])
TEXTS = ["bad cab", "fed", "", "a b c d e f g h" * 5]


def make(name):
    if name == "tagger":
        tags = Labels({"x": 1, "y": 1})
        return Tagger(WORDS, CHARACTERS, tags, units=4, character_units=2, bidirectional=True)
    if name == "reader":
        return Reader(WORDS, CHARACTERS, None, units=4, character_units=2, bidirectional=True)
    if name == "translator":
        return Translator(CHARACTERS, CHARACTERS, units=4, bidirectional=True)
    return LanguageModel(CHARACTERS, "gru", units=4, layers=2)


@pytest.fixture(params=["language_model", "tagger", "translator", "reader"])
def model(request, randomize):
    return randomize(make(request.param))


def test_a_text_alone_has_the_same_vector(model):
    vectors = model.encode(tf.constant(TEXTS)).numpy()
    assert vectors.shape == (len(TEXTS), model.encoding_size)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(model.encode(tf.constant([text]))[0], vector, rtol=1e-4, atol=1e-6)
    embedded = model.signatures()["embed"](text=tf.constant(TEXTS))["embedding"]
    np.testing.assert_allclose(embedded, vectors, rtol=1e-5, atol=1e-6)


def test_of_a_language_model_it_is_the_state_after_the_last_token(randomize):
    model = randomize(make("language_model"))
    ids = [1, *model.tokenizer.tokenize(["bad cab"])[0].numpy()]
    outputs, _ = model.stack(model.embedding(np.array([ids])))
    np.testing.assert_allclose(model.encode(tf.constant(["bad cab"])), outputs[:, -1], rtol=1e-5)


@pytest.fixture
def app(model):
    inputs = keras.Input((), dtype="string")
    return keras.Model(inputs, keras.layers.Dense(1)(TextEncoder(model)(inputs)))


@pytest.mark.filterwarnings("error:Gradients do not exist")
@pytest.mark.slow
def test_it_is_trained_along_unless_it_is_frozen(model, app):
    encoder = app.layers[1]
    app.compile("adam", "mse")
    before = [weight.numpy() for weight in encoder.trainable_weights]
    assert 0 < len(before) < len(model.trainable_weights)
    app.fit(tf.constant(TEXTS), np.ones(len(TEXTS)), epochs=1, verbose=0)
    moved = [
        not np.array_equal(w.numpy(), old) for w, old in zip(encoder.trainable_weights, before, strict=True)
    ]
    assert all(moved)
    encoder.trainable = False
    app.compile("adam", "mse")
    before = [weight.numpy() for weight in model.weights]
    app.fit(tf.constant(TEXTS), np.ones(len(TEXTS)), epochs=1, verbose=0)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    np.testing.assert_allclose(encoder(tf.constant(TEXTS)), model.encode(tf.constant(TEXTS)), rtol=1e-6)


def test_an_app_is_exported_with_its_vocabulary(app, tmp_path):
    app.export(str(tmp_path), verbose=False)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path)).signature_def["serve"]
        [asked], [answer] = signature.inputs.values(), signature.outputs.values()
        outputs = session.run(answer.name, {asked.name: TEXTS})
    np.testing.assert_allclose(outputs, app(tf.constant(TEXTS)), rtol=1e-5)
