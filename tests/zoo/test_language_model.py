"""Language models in training, against the lecture's equations in NumPy."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from language_models import BOUNDARY, KINDS, PIECES, TEXTS, TOKENIZER, InNumpy, call_generate, ids_of, make

from zoo.models import TASKS
from zoo.models.language_model import LanguageModel
from zoo.text import Words


@pytest.fixture
def model(kind, request) -> LanguageModel:
    return request.getfixturevalue(kind)


def test_it_is_a_task():
    assert TASKS["language_model"] is LanguageModel


# Features


def test_inputs_are_the_targets_one_step_later(model):
    features = model.features({"text": tf.constant(TEXTS)})
    targets = [InNumpy(model).targets(text) for text in TEXTS]
    assert features["targets"].to_list() == targets
    assert features["inputs"].to_list() == [[BOUNDARY, *ids][:-1] for ids in targets]
    assert features["inputs"].dtype == features["targets"].dtype == tf.int32


def test_separate_texts_end_with_the_boundary(separate):
    features = separate.features({"text": tf.constant(["", "ab"])})
    assert [ids[-1] for ids in features["targets"].to_list()] == [BOUNDARY, BOUNDARY]


def test_features_of_no_text_at_all(stream):
    features = stream.features({"text": tf.constant(["", ""])})
    assert features["inputs"].to_list() == features["targets"].to_list() == [[], []]


# Training


def padded(model: LanguageModel, texts) -> dict[str, tf.Tensor]:
    features = model.features({"text": tf.constant(texts)})
    lengths = features["targets"].row_lengths()
    batch = {name: ragged.to_tensor() for name, ragged in features.items()}
    return {**batch, "mask": tf.sequence_mask(lengths)}


def plain_loss(model: LanguageModel, batch) -> tf.Tensor:
    """The loss in stock Keras and TensorFlow, differentiated automatically."""
    outputs = tf.gather(tf.convert_to_tensor(model.embedding.embeddings), batch["inputs"])
    for cell in model.stack.cells:
        inputs, outputs = outputs, keras.layers.RNN(cell, return_sequences=True)(outputs)
        if model.stack.skip == "residual" and inputs.shape[-1] == outputs.shape[-1]:
            outputs += inputs
    embedding = model.head.tied_to.embeddings if model.head.tied_to else model.head.output_embedding
    logits = tf.einsum("btu,vu->btv", outputs, embedding) + model.head.bias
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch["targets"], logits=logits)
    return tf.reduce_sum(tf.where(batch["mask"], nats, 0.0))


def gradients(model, loss):
    with tf.GradientTape() as tape:
        value = loss()
    dense = [
        tf.convert_to_tensor(gradient)
        for gradient in tape.gradient(value, [weight.value for weight in model.trainable_variables])
    ]
    return [value, *dense]


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_loss_and_gradients_are_those_of_a_plain_model(cell, tie_embeddings, randomize):
    model = make(randomize, cell=cell, layers=2, skip="residual", tie_embeddings=tie_embeddings)
    batch = padded(model, TEXTS)

    @tf.function
    def trained():
        return gradients(model, lambda: model.loss(batch, model(batch, training=True))[0])

    expected = gradients(model, lambda: plain_loss(model, batch))
    for ours, theirs in zip(trained(), expected, strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_loss_is_minus_the_log_probability(model):
    batch = padded(model, TEXTS)
    loss, count = model.loss(batch, model(batch, training=True))
    oracle = InNumpy(model)
    assert float(count) == sum(len(oracle.targets(text)) for text in TEXTS)
    np.testing.assert_allclose(loss, -sum(oracle.log_prob(text) for text in TEXTS), rtol=1e-5)


def test_states_carry_a_text_across_batches(stream):
    """Truncated back-propagation's two halves are the whole."""
    batch = padded(stream, ["abcabc", "bead é"])
    whole = stream(batch)
    states, hidden = stream.initial_states(2), []
    for part in (slice(0, 2), slice(2, 6)):
        outputs = stream({name: tensor[:, part] for name, tensor in batch.items()}, states=states)
        states = outputs["states"]
        hidden.append(outputs["hidden"])
    np.testing.assert_allclose(tf.concat(hidden, 1), whole["hidden"], rtol=1e-5, atol=1e-6)
    assert states.keys() == whole["states"].keys()
    for name, final in whole["states"].items():
        np.testing.assert_allclose(states[name], final, rtol=1e-5, atol=1e-6)


def test_dropout_in_training_only(randomize):
    model, plain = make(randomize, dropout=0.5), make(randomize)
    batch = padded(model, ["abc" * 20])
    np.testing.assert_array_equal(model(batch)["hidden"], plain(batch)["hidden"])
    dropped = model(batch, training=True)["hidden"].numpy()
    assert 0.3 < np.mean(dropped == 0) < 0.7  # the output layer's inputs, of 300


def test_metrics(model):
    """Perplexity per token, and bits per character, of which an unknown one counts as one."""
    model.perplexity.reset_state()
    for texts in (TEXTS[:4], TEXTS[4:]):
        batch = padded(model, texts)
        model.update_metrics(batch, model(batch))
    oracle = InNumpy(model)
    nats = -sum(oracle.log_prob(text) for text in TEXTS)
    tokens = sum(len(oracle.targets(text)) for text in TEXTS)
    result = {name: float(value) for name, value in model.perplexity.result().items()}
    assert result["tokens"] == tokens
    assert result["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-5)
    assert result["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-4)
    # Each token of this tokenizer is a character, the end of a separate text a newline.
    assert result["bits_per_character"] == pytest.approx(nats / np.log(2) / tokens, rel=1e-5)
    model.perplexity.reset_state()


def test_bits_per_character_count_characters_not_tokens_or_bytes(randomize):
    corpus = "déjà vu, déjà"
    model = LanguageModel(Words.learn(tf.data.Dataset.from_tensors(corpus)), units=2)
    batch = padded(model, [corpus])
    model.update_metrics(batch, model(batch))
    result = {name: float(value) for name, value in model.perplexity.result().items()}
    assert result["tokens"] == 4  # "déjà", " vu", ",", " déjà"
    expected = result["nats_per_token"] * 4 / np.log(2) / len(corpus)
    assert result["bits_per_character"] == pytest.approx(expected, rel=1e-6)


def test_baseline_is_the_unigram_with_one_added():
    model = LanguageModel(TOKENIZER, units=2)
    training, validation = ["aaab", "abc"], ["abx", "a"]

    def batches(texts):
        return [{name: value.numpy() for name, value in padded(model, [text, ""]).items()} for text in texts]

    counts = np.ones(len(PIECES))
    for text in training:
        for token in ids_of(text):
            counts[token] += 1
    log_prob = np.log(counts / counts.sum())
    nats = -sum(log_prob[token] for text in validation for token in ids_of(text))
    result = model.baseline(batches(training), batches(validation))
    assert result["tokens"] == 4
    assert result["nats_per_token"] == pytest.approx(nats / 4, rel=1e-12)
    assert result["perplexity"] == pytest.approx(np.exp(nats / 4), rel=1e-12)
    assert result["bits_per_character"] == pytest.approx(nats / 4 / np.log(2), rel=1e-12)


# Regularization


def test_embedding_dropout_drops_words(randomize):
    """With dense connections the embeddings are part of the outputs, where they can be seen."""
    model = make(randomize, skip="dense", embedding_dropout=0.5)
    embeddings = model.embedding.embeddings.numpy()
    ids = np.tile(np.arange(len(PIECES)), (3, 4))  # every token twelve times
    batch = {"inputs": tf.constant(ids, tf.int32)}
    np.testing.assert_allclose(model(batch)["hidden"][..., :5], embeddings[ids], rtol=1e-6)
    dropped = set()
    for _ in range(10):
        seen = model(batch, training=True)["hidden"].numpy()[..., :5]
        kept = [token for token in range(len(PIECES)) if seen[0, token].any()]
        scale = np.isin(ids, kept) / (1 - 0.5)
        np.testing.assert_allclose(seen, embeddings[ids] * scale[..., np.newaxis], rtol=1e-6)
        dropped.add(frozenset(kept))
    assert len(dropped) > 1


def test_regularization_is_of_the_activations_and_of_their_change(randomize):
    alpha, beta = 2.0, 3.0
    options = {"activation_regularization": alpha, "temporal_activation_regularization": beta}
    model = make(randomize, layers=2, dropout=0.5, **options)
    batch = padded(model, TEXTS)
    outputs = model(batch, training=True)
    hidden, undropped = outputs["hidden"].numpy(), outputs["undropped"].numpy()
    np.testing.assert_allclose(hidden[hidden != 0], 2 * undropped[hidden != 0], rtol=1e-6)
    assert (hidden == 0).any()
    expected = 0.0
    for row, length in enumerate(batch["mask"].numpy().sum(axis=1)):
        for now in range(length):
            expected += alpha * np.mean(hidden[row, now] ** 2)
            if now:
                expected += beta * np.mean((undropped[row, now] - undropped[row, now - 1]) ** 2)
    np.testing.assert_allclose(model.regularization(batch, outputs), expected, rtol=1e-5)
    plain = make(randomize, layers=2)
    assert float(plain.regularization(batch, plain(batch))) == 0.0


# Precision


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-6), ("mixed_bfloat16", 0.05)])
@pytest.mark.slow
def test_other_precisions_give_nearly_the_same(stream, randomize, precision, tolerance):
    options = {"cell": "lstm", "layers": 2, "skip": "residual", "embedding_size": 4}
    model = make(randomize, precision=precision, **options)
    expected, signatures = stream.signatures(), model.signatures()
    texts = tf.constant(TEXTS)
    for name, value in expected["score"](texts).items():
        ours = signatures["score"](texts)[name]
        assert ours.dtype == value.dtype
        if name != "perplexity":
            np.testing.assert_allclose(ours, value, rtol=tolerance, atol=10 * tolerance)
    state = signatures["start"](texts)["state"]
    np.testing.assert_allclose(state, expected["start"](texts)["state"], rtol=tolerance, atol=tolerance)
    for name, value in expected["step"](state).items():
        assert signatures["step"](state)[name].dtype == value.dtype
    assert call_generate(signatures["generate"], ["ab"], max_new_tokens=[5])["num_tokens"] == 5


@pytest.mark.parametrize("precision", ["float64", "mixed_bfloat16"])
def test_gradients_of_other_precisions(stream, randomize, precision):
    options = {"cell": "lstm", "layers": 2, "skip": "residual", "embedding_size": 4}
    model = make(randomize, precision=precision, **options)
    batch = padded(model, TEXTS)

    def of(model):
        return gradients(model, lambda: model.loss(batch, model(batch, training=True))[0])

    for ours, theirs in zip(of(model), of(stream), strict=True):
        assert ours.dtype == model.variable_dtype
        error = np.linalg.norm(ours - tf.cast(theirs, ours.dtype)) / np.linalg.norm(theirs)
        assert error < {"float64": 1e-5, "mixed_bfloat16": 0.1}[precision]
    states = model(batch)["states"]
    assert {state.dtype for state in states.values()} == {tf.as_dtype(model.variable_dtype)}


# Making a model


def test_restored_model_has_the_learned_ones_vocabulary():
    options = {"tokenizer": "words", "vocabulary_size": 5, "cell": "gru", "cell_options": {}, "layers": 2}
    options |= {"units": 3, "skip": "residual", "embedding_size": 2, "dropout": 0.1, "tie_embeddings": False}
    options |= {
        "input_dropout": 0.0,
        "initializer_scale": 0.1,
        "separate_texts": True,
        "not_the_models_business": object(),
    }
    records = tf.data.Dataset.from_tensor_slices({"text": ["a rose is a rose", "is a rose"]})
    learned = LanguageModel.learn(records, options)
    assets = learned.assets()
    assert all(isinstance(value, bytes) for value in assets.values())
    restored = LanguageModel.restore(options, assets)
    assert learned.tokenizer.vocabulary_size == 5
    assert restored.tokenizer.pieces == learned.tokenizer.pieces
    assert [weight.path for weight in restored.weights] == [weight.path for weight in learned.weights]
    restored.set_weights(learned.get_weights())
    text = tf.constant(["a rose is", "thorn"])
    for name, value in learned.signatures()["score"](text).items():
        np.testing.assert_array_equal(restored.signatures()["score"](text)[name], value)


def test_options_reach_the_layers():
    model = LanguageModel(
        TOKENIZER,
        cell="lstm",
        cell_options={"forget_bias": 0.25},
        layers=3,
        units=4,
        skip="residual",
        embedding_size=3,
        dropout=0.5,
    )
    assert [cell.forget_bias for cell in model.stack.cells] == [0.25] * 3
    assert [cell.units for cell in model.stack.cells] == [4] * 3
    assert (model.stack.skip, model.stack.dropout, model.output_dropout.rate) == ("residual", 0.5, 0.5)
    assert model.embedding.embeddings.shape == (len(PIECES), 3)


def test_regularizers_and_initializers_reach_the_layers():
    shares = {"recurrent_dropout": 0.1, "zoneout": 0.2, "weight_drop": 0.3}
    starts = {"kernel_initializer": "zeros", "recurrent_initializer": "identity", "bias_initializer": "ones"}
    rates = {"dropout": 0.4, "output_dropout": 0.5, "locked_dropout": True}
    model = LanguageModel(
        TOKENIZER, "elman", layers=2, units=4, recompute_every=7, **shares, **starts, **rates
    )
    for cell in model.stack.cells:
        assert {name: getattr(cell, name) for name in shares} == shares
        np.testing.assert_array_equal(cell.input_kernel, np.zeros((4, 4)))
        np.testing.assert_array_equal(cell.recurrent_kernel, np.eye(4))
        np.testing.assert_array_equal(cell.bias, np.ones(4))
    assert [dropout.rate for dropout in model.stack.dropouts] == [0.4, 0.4]
    assert model.output_dropout.rate == 0.5
    locked = keras.layers.SpatialDropout1D
    assert {type(layer) for layer in (*model.stack.dropouts, model.output_dropout)} == {locked}
    assert {layer.recompute_every for layer in model.stack.recurrents.values()} == {7}


def test_cell_options_overrule_flags_for_all_cells():
    model = LanguageModel(TOKENIZER, "gru", {"zoneout": 0.5, "bias_initializer": "ones"}, zoneout=0.1)
    assert model.stack.cells[0].zoneout == 0.5
    np.testing.assert_array_equal(model.stack.cells[0].bias, np.ones(3 * 256))


@pytest.mark.parametrize("skip", ["dense", "highway"])
def test_skips_reach_the_stack(skip):
    model = LanguageModel(TOKENIZER, units=4, layers=2, skip=skip)
    width = {"dense": 3 * 4, "highway": 4}[skip]
    assert model(padded(model, TEXTS))["hidden"].shape[-1] == model.head.output_embedding.shape[-1] == width


def test_tied_embeddings_are_one_weight():
    tied = LanguageModel(TOKENIZER, units=4, tie_embeddings=True)
    free = LanguageModel(TOKENIZER, units=4)
    sizes = [sum(np.prod(weight.shape) for weight in model.weights) for model in (tied, free)]
    assert sizes[1] - sizes[0] == len(PIECES) * 4
    with pytest.raises(ValueError, match="tied embeddings need"):
        LanguageModel(TOKENIZER, units=4, embedding_size=3, tie_embeddings=True)


def test_initializer_scale():
    """All matrices are uniform in [-scale, scale], and no two of them, nor two gates, alike."""
    scale = 0.1
    options = {"initializer_scale": scale, "cell_options": {"forget_bias": 0.0}}
    model = LanguageModel(TOKENIZER, layers=3, units=20, **options)
    matrices = {weight.path: weight.numpy() for weight in model.weights if len(weight.shape) == 2}
    assert len(matrices) == 8
    for path, matrix in matrices.items():
        assert np.abs(matrix).max() <= scale
        np.testing.assert_allclose(matrix.std(), scale / np.sqrt(3), rtol=0.15, err_msg=path)
    blocks = [
        block
        for path, matrix in matrices.items()
        for block in (np.split(matrix, 4, axis=1) if "kernel" in path else [matrix])
        if block.shape == (20, 20)
    ]
    assert len(blocks) == 3 * 2 * 4
    for one, other in itertools.combinations(blocks, 2):
        assert np.abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.3


def test_layers_start_differently_without_a_scale():
    model = LanguageModel(TOKENIZER, layers=2, units=8)
    first, second = (cell.recurrent_kernel.numpy() for cell in model.stack.cells)
    assert np.abs(first - second).max() > 0.1
