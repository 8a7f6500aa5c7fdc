"""Language models with each output layer: in training, answering, and once exported."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from cases import randomize
from language_models import BOUNDARY, PIECES, TEXTS, UNKNOWN, call_generate, ids_of, make
from output_layers import ALL, OPTIONS, quickly

from serving.export import export
from training.layer_options import parse_options
from zoo.models.language_model import LanguageModel


def options_of(name: str) -> dict:
    return parse_options("output_options", OPTIONS.get(name, ""))


def language_model(name: str, **options) -> LanguageModel:
    model = make(randomize, output_layer=name, output_options=options_of(name), **options)
    if model.head.needs_counts:
        model.head.set_counts(np.arange(len(PIECES)))
    return model


@pytest.fixture(scope="module", params=ALL)
def model(request) -> LanguageModel:
    return language_model(request.param)


def distributions(model: LanguageModel, ids) -> np.ndarray:
    """log P of all tokens after each of the ids, [ids, vocabulary], from the initial states."""
    outputs = model({"inputs": tf.constant([ids])})
    return tf.nn.log_softmax(model.head(outputs["hidden"], history=outputs.get("history")))[0].numpy()


def test_score_is_the_sum_of_the_tokens_log_probabilities(model):
    result = model.signatures()["score"](tf.constant(TEXTS))
    for text, log_prob in zip(TEXTS, result["log_prob"].numpy(), strict=True):
        ids = ids_of(text)
        log_prob_of = distributions(model, [BOUNDARY, *ids])
        expected = sum(log_prob_of[now, token] for now, token in enumerate(ids))
        np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


def test_generation_takes_the_most_probable_token(model):
    prompts = ["", "bead é"]
    result = call_generate(model.signatures()["generate"], prompts, temperature=[0], max_new_tokens=[4])
    for row, prompt in enumerate(prompts):
        ids, total = [BOUNDARY, *ids_of(prompt)], 0.0
        for _ in range(4):
            log_prob = distributions(model, ids)[-1]
            ids.append(int(np.where(np.arange(len(PIECES)) == UNKNOWN, -np.inf, log_prob).argmax()))
            total += log_prob[ids[-1]]
        assert result["text"][row].decode() == "".join(PIECES[token] for token in ids[-4:])
        np.testing.assert_allclose(result["log_prob"][row], total, rtol=1e-4, atol=1e-4)


# Exports take long, and the one with a history has the most to go wrong.
@pytest.mark.parametrize("name", quickly("maxent"))
@pytest.mark.slow
def test_exported_it_answers_as_in_memory(name, tmp_path):
    model = language_model(name)
    signatures = tf.saved_model.load(str(export(model, tmp_path))).signatures
    in_memory = model.signatures()
    for signature in ("score", "start", "step", "generate"):
        inputs = model.requests()[signature]
        given = {key: tf.constant(value) for key, value in inputs.items()}
        expected = in_memory[signature](**given)
        for key, value in signatures[signature](**given).items():
            if value.dtype.is_floating:
                np.testing.assert_allclose(
                    value, expected[key], rtol=1e-4, atol=1e-4, err_msg=f"{signature} {key}"
                )
            else:
                np.testing.assert_array_equal(value, expected[key], err_msg=f"{signature} {key}")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("precision", [pytest.param("float64", marks=pytest.mark.slow), "mixed_bfloat16"])
def test_other_precisions(name, precision):
    model = language_model(name, precision=precision)
    batch = {"inputs": tf.constant([[1, 2, 3], [4, 5, 6]]), "targets": tf.constant([[2, 3, 4], [5, 6, 0]])}
    batch["mask"] = tf.constant([[True, True, True], [True, True, False]])
    with tf.GradientTape() as tape:
        loss, count = model.loss(batch, model(batch, training=True))
    assert count == 5
    assert loss.dtype == model.variable_dtype
    variables = [variable.value for variable in model.trainable_variables]
    gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    single = language_model(name).signatures()["score"](tf.constant(TEXTS))["log_prob"]
    other = model.signatures()["score"](tf.constant(TEXTS))["log_prob"]
    np.testing.assert_allclose(other, single, rtol=0.05 if precision == "mixed_bfloat16" else 1e-4, atol=0.5)


# The words before


@pytest.fixture(scope="module")
def with_history() -> LanguageModel:
    return language_model("maxent")


def test_each_position_sees_the_words_up_to_it(with_history):
    outputs = with_history({"inputs": tf.constant([[1, 5, 6, 7], [1, 2, 3, 4]])})
    expected = [[1, 1, 1], [1, 1, 5], [1, 5, 6], [5, 6, 7]]  # a text begins after line ends
    np.testing.assert_array_equal(outputs["history"][0], expected)
    np.testing.assert_array_equal(outputs["states"]["history"], [[5, 6, 7], [2, 3, 4]])


def test_history_is_carried_from_batch_to_batch(with_history):
    inputs = tf.constant([[1, 5, 6, 7, 2], [1, 2, 3, 4, 4]])
    whole = with_history({"inputs": inputs})
    states, parts = with_history.initial_states(2), []
    for part in (inputs[:, :1], inputs[:, 1:3], inputs[:, 3:]):
        outputs = with_history({"inputs": part}, states=states)
        states = outputs["states"]
        parts.append(outputs["history"])
    np.testing.assert_array_equal(tf.concat(parts, 1), whole["history"])
    np.testing.assert_array_equal(states["history"], whole["states"]["history"])


def test_history_ends_where_a_prompt_does(with_history):
    inputs = tf.constant([[1, 5, 6, 7, 2], [1, 2, 0, 0, 0], [0, 0, 0, 0, 0]])
    contexts, states = with_history.read(inputs, tf.constant([5, 2, 0]))
    np.testing.assert_array_equal(states["history"], [[6, 7, 2], [1, 1, 2], [1, 1, 1]])
    np.testing.assert_array_equal(
        contexts["history"][0], [[1, 1, 1], [1, 1, 5], [1, 5, 6], [5, 6, 7], [6, 7, 2]]
    )


def test_only_words_within_reach_matter(with_history):
    """With recurrent weights of zero the state says nothing, and the order is 4: three words do."""
    model = language_model("maxent")
    for cell in model.stack.cells:
        for weight in cell.weights:
            weight.assign(tf.zeros(weight.shape))
    last, beyond, within = (
        distributions(model, ids)[-1] for ids in ([5, 2, 3, 4], [6, 2, 3, 4], [5, 6, 3, 4])
    )
    np.testing.assert_allclose(beyond, last, rtol=1e-6)
    assert np.abs(within - last).max() > 1e-3


# Counts


def test_words_are_counted_where_the_vocabulary_is_learned():
    options = {"tokenizer": "characters", "vocabulary_size": 4, "units": 2, "output_layer": "blackout"}
    records = tf.data.Dataset.from_tensor_slices({"text": ["aab\n", "a", "c"]})
    model = LanguageModel.learn(records, {**options, "separate_texts": False})
    counts = dict(zip(model.tokenizer.pieces, model.head.counts.numpy(), strict=True))
    assert counts == {"\N{REPLACEMENT CHARACTER}".encode(): 1, b"\n": 1, b"a": 3, b"b": 1}
    ended = LanguageModel.learn(records, {**options, "separate_texts": True})
    assert ended.head.counts.numpy()[BOUNDARY] == 4


def test_restored_weights_bring_their_counts():
    model = language_model("nce")
    copy = LanguageModel(model.tokenizer, units=5, output_layer="nce", output_options=options_of("nce"))
    model.head.set_counts(np.arange(len(PIECES)) + 7)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy.head.counts, np.arange(len(PIECES)) + 7)
