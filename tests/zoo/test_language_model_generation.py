"""What can be asked of a language model's generation, against its equations in NumPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from language_models import (
    BOUNDARY,
    PIECES,
    TEXTS,
    UNKNOWN,
    InNumpy,
    call_generate,
    decoded,
    ids_of,
)
from oracles import log_softmax, sampling_distribution, softmax

from zoo.models.language_model import LanguageModel
from zoo.models.language_model_serving import MAX_NEW_TOKENS
from zoo.text import Words


@pytest.fixture
def model(kind, request) -> LanguageModel:
    return request.getfixturevalue(kind)


@pytest.fixture
def ask(kind, signatures):
    """Calls a signature by name."""
    return lambda name, *arguments, **settings: call_generate(signatures[kind][name], *arguments, **settings)


SETTINGS = [
    {},
    {"min_p": 0.2, "temperature": 2.0},
    {"typical_p": 0.5},
    {"penalty": 4.0},
    {"penalty": 0.5, "temperature": 0.7, "top_k": 3},
    {"bad_words": ["a", "bc", "éa"]},
    {"stop": ["b", "dé"]},
    {"penalty": 2.0, "bad_words": ["c"], "stop": ["a", "ee"], "typical_p": 0.8, "min_p": 0.01, "top_p": 0.97},
]
SIGNATURE_NAMES = {"penalty": "repetition_penalty"}


def rows_of(settings) -> dict[str, list]:
    """The signature's inputs, a row for each of the settings; strings are padded with empty ones."""
    neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "penalty": 1.0}
    rows = {
        SIGNATURE_NAMES.get(name, name): [each.get(name, value) for each in settings]
        for name, value in neutral.items()
    }
    for name in ("stop", "bad_words"):
        width = max(len(each.get(name, [])) for each in settings) or 1
        rows[name] = [[*each.get(name, []), *[""] * (width - len(each.get(name, [])))] for each in settings]
    return rows


def test_every_setting_against_numpy(model, ask):
    """Each row has its own; three seeds each."""
    settings = SETTINGS * 3
    prompts = [TEXTS[row % len(TEXTS)] for row in range(len(settings))]
    seeds = [[row, 7] for row in range(len(settings))]
    result = ask("generate", prompts, max_new_tokens=[15], seed=seeds, **rows_of(settings))
    oracle, stopped = InNumpy(model), 0
    for row, prompt in enumerate(prompts):
        uniform = tf.random.stateless_uniform([MAX_NEW_TOKENS], seeds[row]).numpy()
        text, num_tokens, log_prob = oracle.generate(prompt, 15, uniform, **settings[row])
        assert result["text"][row].decode() == text
        assert result["num_tokens"][row] == num_tokens
        np.testing.assert_allclose(result["log_prob"][row], log_prob, rtol=1e-4, atol=1e-5)
        stopped += num_tokens < 15
    assert stopped > 3


def test_a_row_is_generated_alike_alone_and_beside_any_others(ask):
    rows = {**rows_of(SETTINGS), "seed": [[row, 3] for row in range(len(SETTINGS))]}
    together = ask("generate_details", TEXTS, max_new_tokens=[12], **rows)
    for row, prompt in enumerate(TEXTS):
        alone = ask(
            "generate_details",
            [prompt],
            max_new_tokens=[12],
            **{name: [each[row]] for name, each in rows.items()},
        )
        length = alone["num_tokens"][0]
        assert alone["text"][0] == together["text"][row]
        assert length == together["num_tokens"][row]
        np.testing.assert_array_equal(alone["tokens"][0, :length], together["tokens"][row, :length])
        np.testing.assert_allclose(
            alone["top_log_probs"][0, :length], together["top_log_probs"][row, :length], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("settings", [{"min_p": 0.15}, {"typical_p": 0.6}, {"min_p": 0.02, "typical_p": 0.9}])
def test_a_step_draws_from_the_distribution(kind, model, signatures, settings):
    """2,000 rows in the same state, each with its own seed, by chi-square."""
    count = 2000
    state = tf.repeat(signatures[kind]["start"](tf.constant(["ab"]))["state"], count, axis=0)
    seeds = tf.stack([tf.range(count), tf.fill([count], 6)], axis=1)
    given = {name: tf.constant([value]) for name, value in {"temperature": 1.5, **settings}.items()}
    tokens = signatures[kind]["step"](state, seed=seeds, **given)["token_id"].numpy()
    logits = InNumpy(model).logits([BOUNDARY, *ids_of("ab")])[-1]
    logits[UNKNOWN] = -np.inf
    expected = sampling_distribution(logits, 1.5, **settings) * count
    counts = np.bincount(tokens, minlength=len(PIECES))
    possible = expected > 0
    assert not counts[~possible].any()
    assert 1 < possible.sum() < 8
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < [10.83, 13.82, 16.27, 18.47, 20.52, 22.46][possible.sum() - 2]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("generate", {"min_p": [1.5]}, r"min_p must be between 0 and 1 \(0: all tokens\)"),
        ("generate", {"typical_p": [0.0]}, "typical_p must be above 0 and at most 1"),
        ("generate", {"repetition_penalty": [0.0]}, r"repetition_penalty must be above 0 \(1: no penalty\)"),
        ("generate", {"repetition_penalty": [1.0, np.nan]}, "repetition_penalty must be above 0"),
        ("generate_details", {"max_new_tokens": [-1]}, "max_new_tokens must be between 0 and 4096"),
        ("beam", {"beam_width": [0]}, "beam_width must be between 1 and 32"),
        ("beam", {"beam_width": [2, 33]}, "beam_width must be between 1 and 32"),
        ("beam", {"max_new_tokens": [0]}, "max_new_tokens must be between 1 and 4096"),
        ("beam", {"length_penalty": [-0.5]}, r"length_penalty must be at least 0 \(0: none\)"),
        ("contrastive", {"top_k": [0]}, "top_k must be between 1 and 32"),
        ("contrastive", {"alpha": [1.1]}, r"alpha must be between 0 \(greedy\) and 1"),
        ("contrastive", {"max_new_tokens": [4097]}, "max_new_tokens must be between 0 and 4096"),
    ],
    ids=str,
)
def test_settings_out_of_range(signatures, name, settings, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call_generate(signatures["stream"][name], ["a", "b"], **settings)


# Words, and texts that are not cut as the strings are


@pytest.fixture(scope="module")
def of_words(randomize) -> LanguageModel:
    tokenizer = Words.learn(tf.data.Dataset.from_tensors("the cat, the dog. cats and don't\n(the end)"))
    return randomize(LanguageModel(tokenizer, units=6), seed=4, scale=1.0)


@pytest.fixture(scope="module")
def say(of_words):
    signature = of_words.signatures()["generate"]
    seeds = [[row, 1] for row in range(40)]
    return functools.partial(call_generate, signature, ["the cat"] * 40, max_new_tokens=[25], seed=seeds)


def test_stop_strings_are_bytes_of_the_text_and_not_tokens(say):
    """They begin and end inside words, and take in several."""
    plain = decoded(say()["text"])
    for stop in ("at", "g.", "e cat", "s and d", ",", "nowhere"):
        cut = decoded(say(stop=[[stop]])["text"])
        assert cut == [text.split(stop)[0] for text in plain]
        assert (cut == plain) == (stop == "nowhere")


def test_the_tokens_of_a_stop_string_are_counted(of_words, say):
    """Up to the one that holds the end of the string."""
    plain, stopped = say(), say(stop=[["e c"]])
    details = of_words.signatures()["generate_details"]
    tokens = call_generate(details, say.args[1], **say.keywords)["tokens"]
    for row in np.flatnonzero(plain["text"] != stopped["text"]):
        whole = [b"".join(tokens[row, :count]) for count in range(26)]
        assert stopped["num_tokens"][row] == next(count for count in range(26) if b"e c" in whole[count])
        is_shorter = stopped["num_tokens"][row] < 25
        assert (stopped["log_prob"][row] > plain["log_prob"][row]) == is_shorter
    assert (stopped["num_tokens"] < 25).any()


def test_bad_words_with_and_without_a_space_before_them(of_words, say):
    tokens = [piece.decode() for piece in of_words.tokenizer.pieces]
    assert {" the", "the", " cat", " cats"} <= set(tokens)
    plain, without = ("".join(decoded(say(bad_words=[words])["text"])) for words in ([""], ["the", "cat,"]))
    assert "the" in plain
    assert "the" not in without
    assert "cat," in plain
    assert "cat," not in without
    assert " cat" in without


def test_a_bad_word_of_unknown_tokens_forbids_nothing(say):
    assert say(bad_words=[["zebra", "the zebra"]])["text"].tolist() == say()["text"].tolist()


# Token by token


def expected_details(model, before, ids):
    """log P of each of the ids after those before, and of the five best, from NumPy."""
    log_prob = log_softmax(InNumpy(model).logits([BOUNDARY, *before, *ids])[len(before) : -1])
    best = np.argsort(-log_prob, axis=1)[:, :5]
    return log_prob[range(len(ids)), ids], np.take_along_axis(log_prob, best, axis=1), best


def check_details(model, result, row, before, ids):
    count = len(ids)
    end = BOUNDARY if model.separate_texts else None
    names = ["" if token == end else PIECES[token] for token in range(len(PIECES))]
    log_probs, top_log_probs, top = expected_details(model, before, ids)
    assert decoded(result["tokens"][row]) == [
        *(names[token] for token in ids),
        *[""] * (result["tokens"].shape[1] - count),
    ]
    np.testing.assert_allclose(result["token_log_probs"][row, :count], log_probs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["top_log_probs"][row, :count], top_log_probs, rtol=1e-4, atol=1e-5)
    for now in range(count):
        assert decoded(result["top_tokens"][row, now]) == [names[token] for token in top[now]]
    assert not result["token_log_probs"][row, count:].any()
    assert not result["top_log_probs"][row, count:].any()
    assert set(result["top_tokens"][row, count:].flatten()) <= {b""}


def test_score_tokens(model, ask):
    result, oracle = ask("score_tokens", TEXTS), InNumpy(model)
    for row, text in enumerate(TEXTS):
        ids = oracle.targets(text)
        assert result["num_tokens"][row] == len(ids)
        if ids:
            check_details(model, result, row, [], ids)
    np.testing.assert_allclose(
        result["token_log_probs"].sum(axis=1), ask("score", TEXTS)["log_prob"], rtol=1e-4, atol=1e-5
    )


def test_generated_details(model, ask):
    """Those of each token, a stop string's included; and beside them what `generate` says."""
    asked = {"max_new_tokens": [0, 9, 5, 1, 12, 9, 9, 7], "seed": [[row, 2] for row in range(8)]}
    asked["stop"] = [[["", "a"][row % 2]] for row in range(8)]
    result, plain = ask("generate_details", TEXTS, **asked), ask("generate", TEXTS, **asked)
    assert result["tokens"].shape == result["token_log_probs"].shape == result["top_tokens"].shape[:2]
    for name in plain:
        np.testing.assert_array_equal(result[name], plain[name])
    np.testing.assert_allclose(result["token_log_probs"].sum(axis=1), plain["log_prob"], rtol=1e-4, atol=1e-5)
    for row, prompt in enumerate(TEXTS):
        count = result["num_tokens"][row]
        tokens = decoded(result["tokens"][row, :count])
        ids = [PIECES.index(token) if token else BOUNDARY for token in tokens]
        if ids:
            check_details(model, result, row, ids_of(prompt), ids)
        assert "".join(tokens).startswith(result["text"][row].decode())


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_nothing_to_tell(signatures, texts):
    result = call_generate(signatures["stream"]["score_tokens"], texts)
    assert result["tokens"].shape == (len(texts), 0)
    assert result["top_tokens"].shape == (len(texts), 0, 5)
    result = call_generate(signatures["stream"]["generate_details"], texts, max_new_tokens=[0])
    assert result["tokens"].shape == (len(texts), 0)


# Searches


def test_beam_search_finds_the_likeliest_of_all_continuations(kind, model, ask):
    """By brute force over all texts of three tokens, and for a separate text all shorter ones that end."""
    result = ask("beam", ["ab", "é"], max_new_tokens=[3], beam_width=[32, 2])
    assert result["text"].shape == result["log_prob"].shape == (2, 32)
    oracle = InNumpy(model)
    for row, (prompt, count) in enumerate([("ab", 3), ("é", 1)]):
        best = sorted(continuations(oracle, ids_of(prompt), 3), key=lambda found: -found[1])[:count]
        for place, (ids, log_prob) in enumerate(best):
            assert result["text"][row, place].decode() == "".join(PIECES[token] for token in ids)
            np.testing.assert_allclose(result["log_prob"][row, place], log_prob, rtol=1e-4)
    assert np.isneginf(result["log_prob"][1, 2:]).all()
    assert set(result["text"][1, 2:]) == {b""}
    assert (np.diff(result["log_prob"][0]) <= 0).all()


def continuations(oracle, before, left):
    """(ids, log-probability) of all that can follow."""
    if left == 0:
        yield [], 0.0
        return
    log_prob = log_softmax(oracle.logits([BOUNDARY, *before])[-1])
    for token in range(1, len(PIECES)):
        if oracle.model.separate_texts and token == BOUNDARY:
            yield [], log_prob[token]
            continue
        for ids, rest in continuations(oracle, [*before, token], left - 1):
            yield [token, *ids], log_prob[token] + rest


def test_a_beam_of_one_is_greedy_generation(ask):
    beam = ask("beam", TEXTS, max_new_tokens=[9], beam_width=[1])
    greedy = ask("generate", TEXTS, max_new_tokens=[9], temperature=[0.0])
    assert beam["text"][:, 0].tolist() == greedy["text"].tolist()
    np.testing.assert_allclose(beam["log_prob"][:, 0], greedy["log_prob"], rtol=1e-4, atol=1e-5)


def test_the_length_penalty_prefers_longer_texts(signatures):
    texts = [
        call_generate(signatures["separate"]["beam"], TEXTS, max_new_tokens=[20], length_penalty=[penalty])
        for penalty in (0.0, 3.0)
    ]
    short, long = (sum(map(len, decoded(each["text"][:, 0]))) for each in texts)
    assert short < long


def test_contrastive_search_is_the_papers_equation(model, ask):
    settings = [
        (9, 4, 0.6),
        (7, 2, 0.9),
        (0, 3, 0.5),
        (9, 8, 0.3),
        (9, 1, 0.6),
        (5, 5, 0.0),
        (9, 3, 1.0),
        (9, 6, 0.5),
    ]
    limits, top_k, alpha = zip(*settings, strict=True)
    result = ask("contrastive", TEXTS, max_new_tokens=limits, top_k=top_k, alpha=alpha)
    oracle = InNumpy(model)
    for row, prompt in enumerate(TEXTS):
        text, num_tokens, log_prob = contrastive(oracle, prompt, *settings[row])
        assert result["text"][row].decode() == text
        assert result["num_tokens"][row] == num_tokens
        np.testing.assert_allclose(result["log_prob"][row], log_prob, rtol=1e-4, atol=1e-5)


def contrastive(oracle, prompt, limit, top_k, alpha):
    ids, text, log_prob = [BOUNDARY, *ids_of(prompt)], "", 0.0
    for now in range(limit):
        logits = oracle.logits(ids)[-1]
        probability = softmax(np.where(np.arange(len(logits)) == UNKNOWN, -np.inf, logits))
        scores = {}
        for token in [token for token in np.argsort(-probability)[:top_k] if token != UNKNOWN]:
            hidden = oracle.hidden([*ids, int(token)])
            unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
            scores[int(token)] = (1 - alpha) * probability[token] - alpha * (unit[:-1] @ unit[-1]).max()
        token = max(scores, key=scores.get)
        log_prob += log_softmax(logits)[token]
        if oracle.model.separate_texts and token == BOUNDARY:
            return text, now + 1, log_prob
        ids.append(token)
        text += PIECES[token]
    return text, limit, log_prob


@pytest.mark.parametrize("name", ["beam", "contrastive"])
def test_a_search_is_alike_alone_and_beside_any_others(ask, name):
    limits = [5, 9, 3, 8, 7, 9, 2, 9]
    settings = {
        "beam": {"beam_width": [1, 4, 2, 3, 1, 2, 4, 3]},
        "contrastive": {"top_k": [1, 4, 2, 8, 3, 5, 2, 2]},
    }
    rows = {"max_new_tokens": limits, **settings[name]}
    together = ask(name, TEXTS, **rows)
    for row, text in enumerate(TEXTS):
        alone = ask(name, [text], **{key: [value[row]] for key, value in rows.items()})
        width = rows["beam_width"][row] if name == "beam" else None
        assert (
            np.atleast_1d(alone["text"][0]).tolist() == np.atleast_1d(together["text"][row])[:width].tolist()
        )
        np.testing.assert_allclose(
            np.atleast_1d(alone["log_prob"][0]), np.atleast_1d(together["log_prob"][row])[:width], rtol=1e-4
        )
