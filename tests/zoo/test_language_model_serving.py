"""What a language model answers, against its equations in NumPy, and once exported."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from language_models import (
    BOUNDARY,
    KINDS,
    PIECES,
    TEXTS,
    UNKNOWN,
    InNumpy,
    call_generate,
    decoded,
    ids_of,
    make,
)
from oracles import CASES, log_softmax, sampling_distribution

from serving.export import write_saved_model
from zoo.models.language_model import LanguageModel
from zoo.models.language_model_serving import MAX_NEW_TOKENS


@pytest.fixture
def model(kind, request) -> LanguageModel:
    return request.getfixturevalue(kind)


@pytest.fixture
def score(kind, signatures):
    return signatures[kind]["score"]


@pytest.fixture
def generate(kind, signatures):
    return functools.partial(call_generate, signatures[kind]["generate"])


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


# Export


@pytest.fixture(scope="module")
def exported(stream, separate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for name, model in (("stream", stream), ("separate", separate)):
        write_saved_model(model, folder / name)
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
    settings |= {"min_p": [0.0], "typical_p": [1.0]}
    assert defaults("step") == settings
    settings |= {"max_new_tokens": [100], "repetition_penalty": [1.0]}
    settings |= {"stop": [[b""]], "bad_words": [[b""]]}
    for name in ("generate", "serving_default", "generate_details"):
        assert defaults(name) == settings
    assert defaults("score") == defaults("start") == defaults("score_tokens") == {}
    assert defaults("beam") == {"beam_width": [4], "max_new_tokens": [100], "length_penalty": [0.0]}
    assert defaults("contrastive") == {"max_new_tokens": [100], "top_k": [4], "alpha": [pytest.approx(0.6)]}


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
        got = described(loaded[name].inputs)
        assert {key: got[key] for key in inputs} == inputs
        assert set(got) - set(inputs) == set(got) & {
            *("min_p", "typical_p", "repetition_penalty", "stop", "bad_words")
        }
        assert described(loaded[name].outputs) == outputs
    in_python = tf.saved_model.load(str(exported / "stream")).signatures
    assert set(in_python) == set(loaded) - {"__saved_model_init_op"}
    for name, (inputs, _) in expected.items():
        assert set(in_python[name].structured_input_signature[1]) == set(inputs)
