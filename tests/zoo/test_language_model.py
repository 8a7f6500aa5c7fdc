"""Language models against the lecture's equations in NumPy, and against themselves once exported."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import CASES, ORACLES, log_softmax, run, sampling_distribution, weights_of

from zoo.cells import CELLS
from zoo.models import TASKS
from zoo.models.language_model import LanguageModel
from zoo.models.language_model_serving import MAX_NEW_TOKENS
from zoo.text import Characters, Words

CORPUS = "abcdeé \n"
TEXTS = ["", "a", "xyz", "abcabc", "\n\n", "bead é xx cab\nbade", "é", "a b c d e"]
UNKNOWN, BOUNDARY = 0, 1
TOKENIZER = Characters.learn(tf.data.Dataset.from_tensors(CORPUS))
KINDS = ("elman", "lstm", "gru")  # the conformance suite has them all
PIECES = [piece.decode() for piece in TOKENIZER.pieces]


def make(randomize, **options) -> LanguageModel:
    """A tiny model with random weights, so confident that texts differ widely in probability."""
    model = LanguageModel(TOKENIZER, **{"units": 5, **options})
    return randomize(model, seed=3, scale=1.0)


@pytest.fixture(scope="module")
def stream(randomize) -> LanguageModel:
    """Of one continuous text; two layers of LSTM."""
    return make(randomize, cell="lstm", layers=2, skip="residual", embedding_size=4)


@pytest.fixture(scope="module")
def separate(randomize) -> LanguageModel:
    """Of separate texts, which end; one layer of GRU."""
    return make(randomize, cell="gru", separate_texts=True)


@pytest.fixture(scope="module")
def signatures(stream, separate) -> dict[str, Any]:
    return {"stream": stream.signatures(), "separate": separate.signatures()}


@pytest.fixture(params=["stream", "separate"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def model(kind, request) -> LanguageModel:
    return request.getfixturevalue(kind)


@pytest.fixture
def score(kind, signatures):
    return signatures[kind]["score"]


@pytest.fixture
def generate(kind, signatures):
    return functools.partial(call_generate, signatures[kind]["generate"])


def call_generate(signature, prompts, **settings) -> dict[str, np.ndarray]:
    types = {"temperature": np.float32, "top_p": np.float32}
    given = {name: np.array(value, types.get(name, np.int32)) for name, value in settings.items()}
    return {
        name: value.numpy() for name, value in signature(tf.constant(prompts, tf.string), **given).items()
    }


class InNumpy:
    """The model's equations, one text at a time, from its weights alone."""

    def __init__(self, model: LanguageModel, cell_options=None):
        self.model = model
        self.embedding = np.asarray(model.embedding.embeddings, np.float64)
        tied = model.head.tied_to is not None
        self.output_embedding = (
            self.embedding if tied else np.asarray(model.head.output_embedding, np.float64)
        )
        self.bias = np.asarray(model.head.bias, np.float64)
        names = {cell_class: name for name, cell_class in CELLS.items()}
        self.steps = [
            functools.partial(ORACLES[names[type(cell)]], weights_of(cell), **(cell_options or {}))
            for cell in model.stack.cells
        ]

    def logits(self, ids) -> np.ndarray:
        """[tokens, vocabulary]: after each of the ids, from the zero state."""
        outputs = self.embedding[ids][np.newaxis]
        for cell, step in zip(self.model.stack.cells, self.steps, strict=True):
            inputs, zeros = outputs, [np.zeros((1, size)) for size in cell.state_size]
            outputs, _, _ = run(step, inputs, zeros)
            if self.model.stack.skip == "residual" and inputs.shape == outputs.shape:
                outputs = inputs + outputs
        return outputs[0] @ self.output_embedding.T + self.bias

    def targets(self, text: str) -> list[int]:
        end = [BOUNDARY] if self.model.separate_texts else []
        return ids_of(text) + end

    def log_prob(self, text: str) -> float:
        targets = self.targets(text)
        if not targets:
            return 0.0
        log_prob = log_softmax(self.logits([BOUNDARY, *targets[:-1]]))
        return sum(log_prob[now, target] for now, target in enumerate(targets))

    def generate(self, prompt: str, limit: int, uniform=None, **settings) -> tuple[str, int, float]:
        """The continuation, its number of tokens, and their log-probability."""
        ids, drawn, log_prob = [BOUNDARY, *ids_of(prompt)], [], 0.0
        for now in range(limit):
            logits = self.logits(ids)[-1]
            allowed = np.where(np.arange(len(logits)) == UNKNOWN, -np.inf, logits)
            if uniform is None:
                token = int(allowed.argmax())
            else:
                cumulative = np.cumsum(sampling_distribution(allowed, **settings))
                token = int(np.searchsorted(cumulative, uniform[now], side="right"))
            log_prob += log_softmax(logits)[token]
            ids.append(token)
            drawn.append(token)
            if self.model.separate_texts and token == BOUNDARY:
                break
        ended = self.model.separate_texts and drawn[-1:] == [BOUNDARY]
        return "".join(PIECES[token] for token in (drawn[:-1] if ended else drawn)), len(drawn), log_prob


def ids_of(text: str) -> list[int]:
    return [PIECES.index(character) if character in PIECES else UNKNOWN for character in text]


def decoded(texts) -> list[str]:
    return [text.decode() for text in texts]


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


# Score


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_score_is_the_sum_of_the_equations_log_probabilities(case, tie_embeddings, randomize):
    cell, cell_options = CASES[case]
    model = make(randomize, cell=cell, cell_options=cell_options, layers=2, tie_embeddings=tie_embeddings)
    log_prob = model.signatures()["score"](tf.constant(TEXTS))["log_prob"]
    oracle = InNumpy(model, cell_options)
    np.testing.assert_allclose(log_prob, [oracle.log_prob(text) for text in TEXTS], rtol=1e-5, atol=1e-5)


def test_score(model, score):
    result = {name: value.numpy() for name, value in score(tf.constant(TEXTS)).items()}
    oracle = InNumpy(model)
    log_prob = np.array([oracle.log_prob(text) for text in TEXTS])
    num_tokens = np.array([len(oracle.targets(text)) for text in TEXTS])
    np.testing.assert_allclose(result["log_prob"], log_prob, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result["num_tokens"], num_tokens)
    perplexity = np.exp(-log_prob / np.maximum(num_tokens, 1))
    np.testing.assert_allclose(result["perplexity"], perplexity, rtol=1e-4)
    assert result["num_tokens"].dtype == np.int32
    assert result["log_prob"].dtype == result["perplexity"].dtype == np.float32


def test_score_does_not_depend_on_the_texts_beside(score):
    together = score(tf.constant(TEXTS))["log_prob"]
    alone = [score(tf.constant([text]))["log_prob"][0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    padded = score(tf.constant([*TEXTS, "abc" * 50]))["log_prob"][:-1]
    np.testing.assert_allclose(together, padded, rtol=1e-5, atol=1e-5)


def test_an_empty_text_is_certain_unless_texts_end(signatures, separate):
    result = signatures["stream"]["score"](tf.constant([""]))
    assert [result[name].numpy().tolist() for name in ("log_prob", "num_tokens", "perplexity")] == [
        [0],
        [0],
        [1],
    ]
    result = signatures["separate"]["score"](tf.constant([""]))
    assert result["num_tokens"].numpy().tolist() == [1]
    np.testing.assert_allclose(result["log_prob"], [InNumpy(separate).log_prob("")], rtol=1e-5)


def test_score_of_no_rows(score):
    assert score(tf.constant([], tf.string))["log_prob"].shape == (0,)


@pytest.mark.parametrize("length", [1, 2])
def test_probabilities_of_all_texts_of_a_length_sum_to_one(signatures, length):
    letters = ["?", *PIECES[1:]]  # the question mark is unknown
    texts = ["".join(letters) for letters in itertools.product(letters, repeat=length)]
    log_prob = signatures["stream"]["score"](tf.constant(texts))["log_prob"]
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)


# Generation


def test_greedy_generation(model, generate):
    """Prompts of all lengths, each as far as it wants, in one batch."""
    limits = [0, 7, 3, 1, 12, 5, 2, 9]
    result = generate(TEXTS, temperature=[0], max_new_tokens=limits)
    oracle = InNumpy(model)
    expected = [oracle.generate(text, limit) for text, limit in zip(TEXTS, limits, strict=True)]
    texts, num_tokens, log_prob = zip(*expected, strict=True)
    assert decoded(result["text"]) == list(texts)
    assert result["num_tokens"].tolist() == list(num_tokens)
    np.testing.assert_allclose(result["log_prob"], log_prob, rtol=1e-4, atol=1e-5)


def test_sampling_uses_each_rows_own_random_numbers(model, generate):
    settings = [(1.0, 0, 1.0), (0.7, 3, 1.0), (2.0, 0, 0.8), (1.3, 4, 0.9)]
    prompts = ["ab", "", "é", "xyz"]
    seeds = [[1, 2], [3, 4], [0, 0], [-1, 7]]
    temperature, top_k, top_p = zip(*settings, strict=True)
    result = generate(
        prompts, max_new_tokens=[15], temperature=temperature, top_k=top_k, top_p=top_p, seed=seeds
    )
    oracle = InNumpy(model)
    for row, prompt in enumerate(prompts):
        uniform = tf.random.stateless_uniform([MAX_NEW_TOKENS], seeds[row]).numpy()
        cuts = dict(zip(("temperature", "top_k", "top_p"), settings[row], strict=True))
        text, num_tokens, log_prob = oracle.generate(prompt, 15, uniform, **cuts)
        assert result["text"][row].decode() == text
        assert result["num_tokens"][row] == num_tokens
        np.testing.assert_allclose(result["log_prob"][row], log_prob, rtol=1e-4)


def test_a_row_is_generated_alike_alone_and_beside_any_others(generate):
    rows = len(TEXTS)
    settings = {
        "max_new_tokens": [5, 9, 0, 20, 7, 7, 1, 3],
        "temperature": [1.0, 0.0, 1.0, 2.0, 0.5, 1.0, 1.0, 0.0],
        "top_k": [0, 0, 3, 0, 2, 0, 0, 1],
        "top_p": [1.0, 1.0, 1.0, 0.9, 1.0, 0.5, 1.0, 1.0],
        "seed": [[7, row] for row in range(rows)],
    }
    together = generate(TEXTS, **settings)
    for row in range(rows):
        alone = generate([TEXTS[row]], **{name: [value[row]] for name, value in settings.items()})
        assert alone["text"][0] == together["text"][row]
        assert alone["num_tokens"][0] == together["num_tokens"][row]
        np.testing.assert_allclose(alone["log_prob"][0], together["log_prob"][row], rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_text_and_the_default_a_new_one(signatures):
    generate = functools.partial(call_generate, signatures["stream"]["generate"], max_new_tokens=[40])
    first, again, other = (generate(["ab"], seed=[seed])["text"][0] for seed in ([1, 2], [1, 2], [2, 1]))
    assert first == again
    assert first != other
    fresh = [*generate(["ab", "ab"])["text"], *generate(["ab", "ab"])["text"]]
    assert len(set(fresh)) == 4


def test_by_default_a_hundred_tokens(signatures):
    generate = functools.partial(call_generate, signatures["stream"]["generate"])
    assert generate(["a", ""])["num_tokens"].tolist() == [100, 100]


def test_nothing_to_generate(generate):
    result = generate(["ab", ""], max_new_tokens=[0])
    assert decoded(result["text"]) == ["", ""]
    assert result["num_tokens"].tolist() == [0, 0]
    assert result["log_prob"].tolist() == [0, 0]


def test_the_unknown_token_is_never_generated(randomize):
    model = make(randomize)
    model.head.bias.assign(np.where(np.arange(len(PIECES)) == UNKNOWN, 50.0, 0.0))
    for settings in ({}, {"temperature": [0.0]}, {"temperature": [3e38]}, {"top_k": [2]}, {"top_p": [0.5]}):
        result = call_generate(model.signatures()["generate"], ["ab"], max_new_tokens=[50], **settings)
        assert len(result["text"][0].decode()) == 50
        assert "\N{REPLACEMENT CHARACTER}" not in result["text"][0].decode()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": [-1]}, f"max_new_tokens must be between 0 and {MAX_NEW_TOKENS}"),
        ({"max_new_tokens": [5, MAX_NEW_TOKENS + 1]}, f"between 0 and {MAX_NEW_TOKENS}"),
        ({"temperature": [-1.0]}, "temperature must be at least 0"),
        ({"top_k": [-1]}, "top_k must be at least 0"),
        ({"top_p": [0.0]}, "top_p must be above 0 and at most 1"),
    ],
    ids=str,
)
def test_settings_out_of_range(signatures, settings, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call_generate(signatures["stream"]["generate"], ["a", "b"], **settings)
    if "max_new_tokens" not in settings:
        state = signatures["stream"]["start"](tf.constant(["a", "b"]))["state"]
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signatures["stream"]["step"](
                state, **{key: tf.constant(value) for key, value in settings.items()}
            )


# Start and step


def step_by_step(signatures, prompts, steps, **settings):
    """Texts and log-probabilities as a client of `start` and `step` puts them together."""
    state = signatures["start"](tf.constant(prompts))["state"]
    texts, log_prob, done = [""] * len(prompts), np.zeros(len(prompts)), np.zeros(len(prompts), bool)
    for _ in range(steps):
        result = signatures["step"](state, **settings)
        state = result["state"]
        for row in np.flatnonzero(~done):
            texts[row] += result["token"][row].numpy().decode()
            log_prob[row] += result["log_prob"][row]
        done |= result["done"].numpy()
    return texts, log_prob


def test_start_and_repeated_steps_are_generation(kind, signatures, generate):
    result = generate(TEXTS, max_new_tokens=[12], temperature=[0])
    texts, log_prob = step_by_step(signatures[kind], TEXTS, 12, temperature=tf.constant([0.0]))
    assert texts == decoded(result["text"])
    np.testing.assert_allclose(log_prob, result["log_prob"], rtol=1e-4, atol=1e-5)


def test_a_step_draws_from_the_distribution(kind, model, signatures):
    """2,000 rows in the same state, each with its own seed, by chi-square."""
    count = 2000
    state = tf.repeat(signatures[kind]["start"](tf.constant(["ab"]))["state"], count, axis=0)
    seeds = tf.stack([tf.range(count), tf.fill([count], 5)], axis=1)
    tokens = signatures[kind]["step"](state, temperature=tf.constant([1.5]), seed=seeds)["token_id"].numpy()
    logits = InNumpy(model).logits([BOUNDARY, *ids_of("ab")])[-1]
    logits[UNKNOWN] = -np.inf
    expected = sampling_distribution(logits, 1.5) * count
    counts = np.bincount(tokens, minlength=len(PIECES))
    assert counts[UNKNOWN] == 0
    possible = expected > 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert possible.sum() == 8
    assert chi_square < 24.32  # the 99.9 % point of 7 degrees of freedom


def test_step_tells_what_it_drew(kind, model, signatures):
    state = signatures[kind]["start"](tf.constant(["ab", "c"]))["state"]
    result = signatures[kind]["step"](state, seed=tf.constant([[1, 2], [3, 4]]))
    assert state.shape == result["state"].shape == (2, sum(model.stack.state_size.values()) + 1)
    for row, prompt in enumerate(["ab", "c"]):
        token = int(result["token_id"][row])
        expected = log_softmax(InNumpy(model).logits([BOUNDARY, *ids_of(prompt)])[-1])[token]
        np.testing.assert_allclose(result["log_prob"][row], expected, rtol=1e-5)
        ends = model.separate_texts and token == BOUNDARY
        assert bool(result["done"][row]) == ends
        assert result["token"][row].numpy().decode() == ("" if ends else PIECES[token])
    again = signatures[kind]["step"](state, seed=tf.constant([[1, 2], [3, 4]]))
    np.testing.assert_array_equal(again["state"], result["state"])


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


# Export


@pytest.fixture(scope="module")
def exported(stream, separate, signatures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for name, model in (("stream", stream), ("separate", separate)):
        module = tf.Module()
        module.weights = [variable.value for variable in model.variables]
        module.tokenizer = model.tokenizer
        tf.saved_model.save(module, str(folder / name), signatures=signatures[name])
    return folder


def ask(session, signature_def, inputs):
    feeds = {signature_def.inputs[name].name: value for name, value in inputs.items()}
    # What the caller leaves out, the server fills in.
    for name, default in signature_def.defaults.items():
        feeds.setdefault(signature_def.inputs[name].name, tf.make_ndarray(default))
    fetches = {name: info.name for name, info in signature_def.outputs.items()}
    return session.run(fetches, feeds)


SETTINGS = {"top_k": [0], "top_p": [1.0], "seed": [[1, 2]]}


def test_exported_to_a_graph_session(kind, exported, score, generate, signatures):
    scored = {name: value.numpy() for name, value in score(tf.constant(TEXTS)).items()}
    generated = generate(TEXTS, temperature=[0], max_new_tokens=[8])
    started = signatures[kind]["start"](tf.constant(TEXTS))["state"].numpy()
    stepped = signatures[kind]["step"](tf.constant(started), seed=tf.constant([[1, 2]]))["token_id"].numpy()

    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(exported / kind)).signature_def
        answer = {name: functools.partial(ask, session, loaded[name]) for name in loaded}
        for name, value in answer["score"]({"text": TEXTS}).items():
            np.testing.assert_allclose(value, scored[name], rtol=1e-6, atol=1e-6)
        for name in ("generate", "serving_default"):
            result = answer[name]({"prompt": TEXTS, "temperature": [0.0], "max_new_tokens": [8]})
            assert result["text"].tolist() == generated["text"].tolist()
            np.testing.assert_allclose(result["log_prob"], generated["log_prob"], rtol=1e-5, atol=1e-6)
        state = answer["start"]({"prompt": TEXTS})["state"]
        np.testing.assert_allclose(state, started, rtol=1e-6, atol=1e-6)
        result = answer["step"]({"state": started, "seed": [[1, 2]]})
        assert result["token_id"].tolist() == stepped.tolist()
        fresh = [answer["generate"]({"prompt": ["a"] * 4})["text"].tolist() for _ in range(2)]
        assert fresh[0] != fresh[1]


def test_exported_to_python(kind, exported, score, generate):
    loaded = tf.saved_model.load(str(exported / kind)).signatures
    for name, value in loaded["score"](text=tf.constant(TEXTS)).items():
        np.testing.assert_allclose(value, score(tf.constant(TEXTS))[name], rtol=1e-6, atol=1e-6)
    for settings in (
        {"temperature": [0.0], "max_new_tokens": [20]},
        {"temperature": [0.8], "max_new_tokens": [20]},
    ):
        given = {name: tf.constant(value) for name, value in {**SETTINGS, **settings}.items()}
        result = loaded["serving_default"](prompt=tf.constant(TEXTS), **given)
        expected = generate(TEXTS, **SETTINGS, **settings)
        assert result["text"].numpy().tolist() == expected["text"].tolist()


def test_signature_defaults(exported):
    saved = tf.compat.v1.saved_model.load
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = saved(session, ["serve"], str(exported / "stream")).signature_def

    def defaults(name):
        return {key: tf.make_ndarray(value).tolist() for key, value in loaded[name].defaults.items()}

    settings = {"temperature": [1.0], "top_k": [0], "top_p": [1.0], "seed": [[-1, -1]]}
    assert defaults("generate") == defaults("serving_default") == {**settings, "max_new_tokens": [100]}
    assert defaults("step") == settings
    assert defaults("score") == defaults("start") == {}


def test_signatures_are_the_contracts(exported, stream):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(exported / "stream")).signature_def

    def described(infos):
        return {
            name: (tf.as_dtype(info.dtype).name, [axis.size for axis in info.tensor_shape.dim])
            for name, info in infos.items()
        }

    size = sum(stream.stack.state_size.values()) + 1
    settings = {
        "temperature": ("float32", [-1]),
        "top_k": ("int32", [-1]),
        "top_p": ("float32", [-1]),
        "seed": ("int32", [-1, 2]),
    }
    strings, floats, integers = ("string", [-1]), ("float32", [-1]), ("int32", [-1])
    state = {"state": ("float32", [-1, size])}
    generated = {"text": strings, "num_tokens": integers, "log_prob": floats}
    stepped = {"token": strings, "token_id": integers, "log_prob": floats, "done": ("bool", [-1]), **state}
    scored = {"log_prob": floats, "num_tokens": integers, "perplexity": floats}
    expected = {
        "generate": ({"prompt": strings, "max_new_tokens": integers, **settings}, generated),
        "score": ({"text": strings}, scored),
        "start": ({"prompt": strings}, state),
        "step": ({**state, **settings}, stepped),
    }
    expected["serving_default"] = expected["generate"]
    for name, (inputs, outputs) in expected.items():
        assert described(loaded[name].inputs) == inputs
        assert described(loaded[name].outputs) == outputs
