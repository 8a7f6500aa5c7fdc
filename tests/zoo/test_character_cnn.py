"""The character CNN against its equations in NumPy, one word at a time, and in language models."""

from __future__ import annotations

import pydoc_data.topics

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import randomize
from language_models import TEXTS, TOKENIZER
from oracles import sigmoid

from serving.export import export
from zoo.character_cnn import CharacterCNN
from zoo.models.language_model import LanguageModel
from zoo.text import Whitespace

WORDS = [
    b" <unk>",
    b"\n",
    b" a",
    b"the",
    " garçon".encode(),
    b"",
    b" antidisestablishmentarianism",
    b"\xff\x00",
]
SIZE = 5
OPTIONS = {"character_size": 3, "filters": "2/3/4", "highways": 2}


def layer_of(words=WORDS, dtype="float64", **options) -> CharacterCNN:
    layer = CharacterCNN(words, SIZE, dtype=dtype, **{**OPTIONS, **options})
    layer.build()
    return randomize(layer, seed=4)


def in_numpy(layer: CharacterCNN, word: bytes) -> np.ndarray:
    """Kim et al. 2016, equations 5 to 8, and a projection."""
    weights = {weight.name: weight.numpy() for weight in layer.weights}
    symbols = [256, *word[: layer.longest], 257]
    read = weights["character_embedding"][symbols]
    parts = []
    for width in range(1, len(layer.filters) + 1):
        kernel, bias = weights[f"kernel_{width}"], weights[f"bias_{width}"]
        beyond = np.concatenate([read, np.zeros((width, layer.character_size))])
        sums = [
            sum(beyond[place + i] @ kernel[i] for i in range(width)) + bias for place in range(len(symbols))
        ]
        activate = np.tanh if layer.activation.__name__ == "tanh" else lambda values: np.maximum(values, 0)
        parts.append(activate(np.array(sums)).max(axis=0))
    y = np.concatenate(parts)
    for index in range(layer.highways):
        share = sigmoid(y @ weights[f"gate_{index}"] + weights[f"gate_bias_{index}"])
        new = np.maximum(y @ weights[f"transform_{index}"] + weights[f"transform_bias_{index}"], 0)
        y = share * new + (1 - share) * y
    return y @ weights["projection"] + weights["projection_bias"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu"},
        {"highways": 0},
        {"filters": [7]},
        {"longest": 4},
        {"filters": "1/1/1/1/1/1"},
    ],
    ids=str,
)
def test_vectors_are_those_of_the_equations(options):
    layer = layer_of(**options)
    expected = [in_numpy(layer, word) for word in WORDS]
    np.testing.assert_allclose(layer(tf.range(len(WORDS))), expected, rtol=1e-10)
    shaped = layer(tf.constant([[3, 4], [4, 6], [0, 4]]))
    assert shaped.shape == (3, 2, SIZE)
    np.testing.assert_allclose(shaped[1, 1], expected[6], rtol=1e-10)
    np.testing.assert_allclose(shaped[2, 1], expected[4], rtol=1e-10)


def test_a_words_vector_does_not_depend_on_the_words_beside_it():
    """The longest of a batch decides how far the others are padded."""
    layer = layer_of()
    together = layer(tf.range(len(WORDS)))
    for word in range(len(WORDS)):
        np.testing.assert_allclose(layer(tf.constant([word]))[0], together[word], rtol=1e-12)


def test_each_distinct_word_is_computed_once(monkeypatch):
    layer, seen = layer_of(), []
    compute = layer._of_words
    monkeypatch.setattr(layer, "_of_words", lambda ids: seen.append(ids.numpy().tolist()) or compute(ids))
    layer(tf.constant([[2, 3, 2], [2, 2, 7]]))
    assert seen == [[2, 3, 7]]


def test_gradients_are_finite_differences():
    layer, ids = layer_of(activation="tanh"), tf.constant([2, 6, 2, 7])
    direction = tf.constant(np.random.default_rng(1).normal(size=(4, SIZE)))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(direction * layer(ids))
    gradients = tape.gradient(value, [weight.value for weight in layer.trainable_variables])
    for weight, gradient in zip(layer.trainable_variables, gradients, strict=True):
        slope, start, step = tf.convert_to_tensor(gradient), weight.numpy(), 1e-6
        change = np.random.default_rng(2).normal(size=start.shape)
        values = []
        for sign in (1, -1):
            weight.assign(start + sign * step * change)
            values.append(float(tf.reduce_sum(direction * layer(ids))))
        weight.assign(start)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(np.sum(slope * change), rel=1e-5)


def test_matrices_of_one_shape_start_differently():
    for start in (None, "glorot_uniform"):
        layer = CharacterCNN(WORDS, SIZE, start, **OPTIONS)
        layer.build()
        weights = {weight.name: weight.numpy() for weight in layer.weights}
        assert not np.allclose(weights["transform_0"], weights["gate_0"])
        assert np.all(weights["gate_bias_1"] == -2)


def test_words_begin_apart_from_each_other():
    """What all vectors share is less than how far they differ, or a recurrent layer saturates."""
    words = [word.encode() for word in pydoc_data.topics.topics["assignment"].split()]
    layer = CharacterCNN(sorted(set(words)), 100)
    layer.build()
    vectors = layer(tf.range(len(set(words)))).numpy()
    assert 0.2 < np.mean(vectors.std(axis=0)) < 2
    assert np.mean(np.abs(vectors.mean(axis=0))) < np.mean(vectors.std(axis=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": "3/x"}, "filters=3/x: expected"),
        ({"filters": "3/0"}, "filters=3/0: expected"),
        ({"filters": []}, "filters="),
        ({"highways": -1}, "highways=-1: must be at least 0"),
        ({"longest": 0}, "longest=0: must be at least 1"),
        ({"activation": "sigmoid"}, "activation=sigmoid: must be one of tanh, relu"),
    ],
    ids=str,
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        layer_of(**options)


# In language models


def language_model(tokenizer=TOKENIZER, **options) -> LanguageModel:
    return LanguageModel(
        tokenizer, units=6, input_layer="character_cnn", input_options={"filters": "8/8/8"}, **options
    )


def test_it_has_no_vector_to_tie():
    with pytest.raises(ValueError, match="--input_layer=character_cnn has no vector a word to share"):
        language_model(tie_embeddings=True)


@pytest.mark.parametrize("precision", ["float64", "mixed_bfloat16"])
def test_other_precisions(precision):
    scores = []
    for name in ("float32", precision):
        model = randomize(language_model(precision=name), seed=3)
        scores.append(model.signatures()["score"](tf.constant(TEXTS))["log_prob"])
    np.testing.assert_allclose(*scores, rtol=0.05 if precision == "mixed_bfloat16" else 1e-4, atol=0.5)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return randomize(language_model(embedding_size=3), seed=3)


@pytest.mark.slow
def test_exported_it_answers_as_in_memory(model, tmp_path):
    loaded, in_memory = tf.saved_model.load(str(export(model, tmp_path))).signatures, model.signatures()
    for signature in ("score", "start", "step", "generate"):
        given = {key: tf.constant(value) for key, value in model.requests()[signature].items()}
        expected = in_memory[signature](**given)
        for key, value in loaded[signature](**given).items():
            if value.dtype.is_floating:
                np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-5, err_msg=key)
            else:
                np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_step_by_step_as_all_at_once(model):
    in_memory = model.signatures()
    state = in_memory["start"](tf.constant(["bead"]))["state"]
    text = b""
    for _ in range(5):
        answer = in_memory["step"](state, temperature=tf.constant([0.0]))
        state, text = answer["state"], text + answer["token"].numpy()[0]
    whole = in_memory["generate"](
        tf.constant(["bead"]), max_new_tokens=tf.constant([5]), temperature=tf.constant([0.0])
    )
    assert text == whole["text"].numpy()[0]


@pytest.mark.slow
def test_it_learns_from_the_spelling_what_an_embedding_cannot():
    """After a word in -a comes A, after one in -o comes O; of a half of these words nothing was learned."""
    keras.utils.set_random_seed(1)
    stems = [first + vowel + last for first in "bdfgklm" for vowel in "eiu" for last in "rstvw"]
    words = [f" {stem}{end}".encode() for stem in stems for end in "ao"]
    tokenizer = Whitespace((b" <unk>", b"\n", b" A", b" O", *words))
    ids = np.random.default_rng(1).permutation(4 + np.arange(len(words)).reshape(-1, 2))  # [stems, 2]

    def batch(stems):
        inputs = ids[stems].reshape(-1, 1)
        targets = tf.constant(2 + inputs % 2, tf.int32)
        return {"inputs": tf.constant(inputs), "targets": targets, "mask": tf.ones(inputs.shape, bool)}

    learned, unseen = batch(slice(0, None, 2)), batch(slice(1, None, 2))

    def perplexity_of_unseen(model):
        model.head.bias.assign([0.0 if token in (2, 3) else -20.0 for token in range(4 + len(words))])
        variables, optimizer = model.trainable_variables, keras.optimizers.Adam(0.01)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                loss, count = model.loss(learned, model(learned, training=True))
                loss /= count
            optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
            return loss

        for _ in range(100):
            loss = step()
        assert loss < 0.1
        return np.exp(-tf.reduce_mean(model.token_log_prob(unseen, model(unseen))))

    assert perplexity_of_unseen(language_model(tokenizer)) < 1.1
    assert perplexity_of_unseen(LanguageModel(tokenizer, units=6)) > 2
