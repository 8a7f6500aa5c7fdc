"""All that a language model can be asked, by both clients and zoo-query, against its equations in NumPy."""

from __future__ import annotations

import json
import math
import operator

import numpy as np
import pytest
import tensorflow as tf
from grpc_stub import GENERATE, PREDICT, Stub, answering, inputs_of, stub_of, with_client
from language_models import BOUNDARY, PIECES, UNKNOWN, InNumpy, ids_of, make
from oracles import log_softmax

from serving import query as program
from serving.client import ServerError
from serving.client_results import (
    Alternative,
    Continuation,
    Continuations,
    Generation,
    GenerationDetails,
    ScoreDetails,
    TokenDetails,
)
from serving.export import write_saved_model
from zoo.models.language_model_serving import MAX_NEW_TOKENS

VERSION = 7


@pytest.fixture(scope="module")
def model(randomize):
    """Of separate texts, so that generations may end."""
    return make(randomize, cell="elman", separate_texts=True)


@pytest.fixture(scope="module")
def served(model, serve, publish, tmp_path_factory):
    """The model on a server that streams."""
    folder = tmp_path_factory.mktemp("served")
    write_saved_model(model, folder / "export")
    publish(folder / "export", folder / "base", VERSION)
    return serve(folder / "base")


@pytest.fixture(params=["sync", "async"])
def ask(request):
    return lambda address, use: with_client(request.param, address, use)


@pytest.fixture
def query(run_program, served):
    """Runs zoo-query: the lines for people, and the result."""

    def run(*arguments, server=served.address):
        code, out, err = run_program(program, f"--server={server}", "--model=model", *arguments)
        assert (code, err) == (0, "")
        *lines, last = out.splitlines()
        return lines, json.loads(last)

    return run


def log_probs(model, prompt, targets):
    """[targets, vocabulary]: of each of the ids after the prompt and those before it."""
    prompt = ids_of(prompt)
    read = [BOUNDARY, *prompt, *targets]
    return log_softmax(InNumpy(model).logits(read[:-1]))[len(prompt) :]


def check_tokens(model, prompt, targets, tokens):
    expected = log_probs(model, prompt, targets)
    pieces = ["" if each == BOUNDARY else PIECES[each] for each in range(len(PIECES))]
    assert [token.text.decode() for token in tokens] == [pieces[target] for target in targets]
    for token, target, row in zip(tokens, targets, expected, strict=True):
        assert token.log_prob == pytest.approx(row[target], rel=1e-4, abs=1e-5)
        best = np.argsort(-row)[:5]
        assert [each.text.decode() for each in token.alternatives] == [pieces[each] for each in best]
        np.testing.assert_allclose(
            [each.log_prob for each in token.alternatives], row[best], rtol=1e-4, atol=1e-5
        )


def uniform_of(seed):
    return tf.random.stateless_uniform([MAX_NEW_TOKENS], seed).numpy()


SETTINGS = [
    ({"min_p": 0.2, "typical_p": 0.7}, {"min_p": 0.2, "typical_p": 0.7}),
    ({"repetition_penalty": 4.0}, {"penalty": 4.0}),
    ({"stop": ["b", "dé"]}, {"stop": ["b", "dé"]}),
    ({"stop": "é"}, {"stop": ["é"]}),
    ({"bad_words": ["a", "bc"], "top_k": 4}, {"bad_words": ["a", "bc"], "top_k": 4}),
]


@pytest.mark.parametrize(("asked", "in_numpy"), SETTINGS)
def test_generate_with_every_setting(ask, served, model, asked, in_numpy):
    oracle, plain = InNumpy(model), 0
    for seed in range(6):
        options = {"max_new_tokens": 12, "seed": seed, **asked}
        got = ask(served.address, operator.methodcaller("generate", "cab", **options))
        text, num_tokens, log_prob = oracle.generate("cab", 12, uniform_of([seed, 0]), **in_numpy)
        assert got == (text, num_tokens, pytest.approx(log_prob, rel=1e-4), VERSION)
        plain += text == oracle.generate("cab", 12, uniform_of([seed, 0]))[0]
    assert plain < 6


def test_generate_details(ask, served, model):
    got = ask(
        served.address, lambda client: client.generate_details("cab", max_new_tokens=9, seed=1, stop=["d"])
    )
    whole = ask(served.address, lambda client: client.generate("cab", max_new_tokens=9, seed=1, stop=["d"]))
    assert got[:3] == whole[:3]
    assert len(got.tokens) == got.num_tokens > 1
    targets = [BOUNDARY if not token.text else ids_of(token.text.decode())[0] for token in got.tokens]
    check_tokens(model, "cab", targets, got.tokens)
    assert math.fsum(token.log_prob for token in got.tokens) == pytest.approx(got.log_prob, rel=1e-4)


def test_nothing_to_generate(ask, served):
    got = ask(served.address, lambda client: client.generate_details("cab", max_new_tokens=0))
    assert got == GenerationDetails("", 0, 0.0, [], VERSION)


@pytest.mark.parametrize("text", ["", "bead é"])
def test_score_tokens(ask, served, model, text):
    got = ask(served.address, lambda client: client.score_tokens(text))
    score = ask(served.address, lambda client: client.score(text))
    check_tokens(model, "", [*ids_of(text), BOUNDARY], got.tokens)
    assert got.num_tokens == score.num_tokens == len(text) + 1
    assert (got.log_prob, got.perplexity) == pytest.approx((score.log_prob, score.perplexity), rel=1e-4)


def every_continuation(model, prompt):
    """All of up to two tokens: log probabilities and texts, the best first."""
    found = []
    for first in range(len(PIECES)):
        rows = log_probs(model, prompt, [first, BOUNDARY])
        if first == BOUNDARY:
            found.append((rows[0, first], ""))
            continue
        for second in range(len(PIECES)):
            last = "" if second == BOUNDARY else PIECES[second]
            if UNKNOWN not in (first, second):
                found.append((rows[0, first] + rows[1, second], PIECES[first] + last))
    return sorted(found, reverse=True)


def test_beam_finds_the_likeliest_of_all_continuations(ask, served, model):
    got = ask(served.address, lambda client: client.beam("cab", beam_width=16, max_new_tokens=2))
    expected = every_continuation(model, "cab")[:16]
    assert [each.text for each in got.continuations] == [text for _, text in expected]
    np.testing.assert_allclose(
        [each.log_prob for each in got.continuations], [each for each, _ in expected], rtol=1e-4
    )


def test_a_beam_with_fewer_continuations_than_columns(ask):
    response = answering(text=[["b", "", ""]], log_prob=np.float32([[-0.5, -2.0, -np.inf]]))
    with stub_of(response) as (address, _):
        got = ask(address, lambda client: client.beam("a"))
    assert got == Continuations([Continuation("b", -0.5), Continuation("", -2.0)], 5)


def test_contrastive_without_a_penalty_is_greedy(ask, served, model):
    got = ask(served.address, lambda client: client.contrastive("cab", max_new_tokens=8, alpha=0.0))
    text, num_tokens, log_prob = InNumpy(model).generate("cab", 8)
    assert got == (text, num_tokens, pytest.approx(log_prob, rel=1e-4), VERSION)


def test_a_stream_draws_each_token_with_min_p_and_typical_p(ask, served, model):
    settings = {"min_p": 0.2, "typical_p": 0.7}
    tokens = ask(served.address, lambda client: client.stream("cab", max_new_tokens=12, seed=4, **settings))
    uniform = np.concatenate([tf.random.stateless_uniform([1], [4, step]).numpy() for step in range(12)])
    text, num_tokens, log_prob = InNumpy(model).generate("cab", 12, uniform, **settings)
    assert b"".join(token.text for token in tokens).decode() == text
    assert (len(tokens), math.fsum(token.log_prob for token in tokens)) == (
        num_tokens,
        pytest.approx(log_prob, rel=1e-4),
    )


GENERATED = {"text": ["b"], "num_tokens": [1], "log_prob": np.float32([-1])}
DETAILS = {
    "tokens": [["b"]],
    "token_log_probs": np.float32([[-1]]),
    "top_tokens": [[["a", "b"]]],
    "top_log_probs": np.float32([[[-0.5, -1]]]),
}
DETAILED = [TokenDetails(b"b", -1.0, [Alternative(b"a", -0.5), Alternative(b"b", -1.0)])]
ALL_SETTINGS = {
    **{"max_new_tokens": 9, "temperature": 0.5, "top_k": 2, "top_p": 0.5, "seed": 8, "min_p": 0.25},
    **{"typical_p": 0.75, "repetition_penalty": 2.0, "stop": ["é", "b"], "bad_words": ["c"]},
}
ALL_SENT = {
    **{name: [value] for name, value in ALL_SETTINGS.items()},
    **{"prompt": [b"a"], "seed": [[8, 0]], "stop": [["é".encode(), b"b"]], "bad_words": [[b"c"]]},
}


@pytest.mark.parametrize(
    ("method", "settings", "response", "signature", "sent", "answer"),
    [
        ("generate", ALL_SETTINGS, GENERATED, "generate", ALL_SENT, Generation("b", 1, -1.0, 5)),
        (
            "generate_details",
            ALL_SETTINGS,
            GENERATED | DETAILS,
            "generate_details",
            ALL_SENT,
            GenerationDetails("b", 1, -1.0, DETAILED, 5),
        ),
        (
            "contrastive",
            {"max_new_tokens": 9, "top_k": 3, "alpha": 0.5},
            GENERATED,
            "contrastive",
            {"prompt": [b"a"], "max_new_tokens": [9], "top_k": [3], "alpha": [0.5]},
            Generation("b", 1, -1.0, 5),
        ),
        (
            "beam",
            {"beam_width": 2, "max_new_tokens": 9, "length_penalty": 0.5},
            {"text": [["b", "c"]], "log_prob": np.float32([[-1, -2]])},
            "beam",
            {"prompt": [b"a"], "beam_width": [2], "max_new_tokens": [9], "length_penalty": [0.5]},
            Continuations([Continuation("b", -1.0), Continuation("c", -2.0)], 5),
        ),
        (
            "score_tokens",
            {},
            {"num_tokens": [1], **DETAILS},
            "score_tokens",
            {"text": [b"a"]},
            ScoreDetails(-1.0, 1, math.e, DETAILED, 5),
        ),
    ],
)
def test_what_is_sent(ask, method, settings, response, signature, sent, answer):
    with stub_of(answering(**response)) as (address, requests):
        got = ask(address, lambda client: getattr(client, method)("a", **settings))
        ask(address, lambda client: getattr(client, method)("a"))
    assert inputs_of(requests[0]) == (signature, sent)
    (text,) = {"prompt", "text"} & set(sent)
    assert inputs_of(requests[1]) == (signature, {text: [b"a"]})
    assert got == answer


def test_details_that_do_not_fit_each_other(ask):
    response = answering(**GENERATED, **{**DETAILS, "token_log_probs": np.float32([[-1, -2]])})
    with stub_of(response) as (address, _), pytest.raises(ServerError, match="is not a model that can do"):
        ask(address, lambda client: client.generate_details("a"))


def test_query_generate_details(query, served, model):
    arguments = ("--prompt=cab", "--max_new_tokens=4", "--seed=1", "--stop=zz", "--stop=z")
    lines, result = query("generate", *arguments, "--details")
    _, plain = query("generate", *arguments)
    assert list(plain) == ["model", "version", "prompt", "text", "num_tokens", "log_prob"]
    assert {name: result[name] for name in plain} == plain
    (tokens,) = (result[name] for name in result if name not in plain)
    assert "".join(token["text"] for token in tokens) == result["text"]
    assert [len(token["alternatives"]) for token in tokens] == [5] * result["num_tokens"]
    shown = "cab" + result["text"]
    assert "\n".join(lines).startswith(shown + "\n\n")
    below = lines[-len(tokens) :]
    assert [float(line.split()[0]) for line in below] == [round(token["log_prob"], 4) for token in tokens]


def test_query_score_details(query):
    lines, result = query("score", "--text=bead", "--details")
    _, plain = query("score", "--text=bead")
    for name, value in plain.items():
        assert result[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)
    assert set(result) - set(plain) == {"tokens"}
    assert [token["text"] for token in result["tokens"]] == ["b", "e", "a", "d", ""]
    assert (lines[0].split()[:2], lines[1]) == (["log", "probability"], "")
    assert [line.split('"')[1] for line in lines[2:]] == ["b", "e", "a", "d", ""]


def test_query_beam(query, model):
    lines, result = query("beam", "--prompt=cab", "--beam_width=3", "--max_new_tokens=2")
    expected = every_continuation(model, "cab")[:3]
    assert (result["prompt"], result["version"]) == ("cab", VERSION)
    assert [each["text"] for each in result["continuations"]] == [text for _, text in expected]
    assert [float(line.split()[0]) for line in lines] == pytest.approx(
        [each for each, _ in expected], rel=1e-3
    )


def test_query_contrastive(query, model):
    lines, result = query("contrastive", "--prompt=cab", "--max_new_tokens=5", "--alpha=0", "--top_k=2")
    text, num_tokens, _ = InNumpy(model).generate("cab", 5)
    assert "\n".join(lines) == "cab" + text
    assert (result["text"], result["num_tokens"]) == (text, num_tokens)


@pytest.mark.parametrize(
    ("command", "signature", "sent"),
    [
        (
            ["generate", "--stop=b", "--stop=c", "--bad_words=d", "--repetition_penalty=2", "--min_p=0.5"],
            "generate",
            {"stop": [[b"b", b"c"]], "bad_words": [[b"d"]], "repetition_penalty": [2.0], "min_p": [0.5]},
        ),
        (
            ["generate", "--stream", "--min_p=0.5", "--typical_p=0.5"],
            "generate",
            {"min_p": [0.5], "typical_p": [0.5]},
        ),
        (["beam", "--length_penalty=0.5"], "beam", {"length_penalty": [0.5]}),
        (["contrastive", "--alpha=0.5", "--top_k=3"], "contrastive", {"alpha": [0.5], "top_k": [3]}),
    ],
)
def test_what_the_flags_send(query, command, signature, sent):
    requests = []

    def predict(body, _):
        requests.append(body)
        return answering(**GENERATED)

    def generate(body, _):
        requests.append(body)
        yield answering(token=["b"], token_id=np.int32([1]), log_prob=np.float32([-1]), done=[True])

    with Stub({PREDICT: predict, GENERATE: generate}) as stub:
        query(*command, "--prompt=a", server=stub.address)
    assert inputs_of(requests[0]) == (signature, {"prompt": [b"a"], **sent})


@pytest.mark.parametrize("command", ["beam", "contrastive", "generate"])
def test_bench(query, command):
    _, result = query("bench", command, "--prompt=cab", "--max_new_tokens=2", "--details", "--seconds=0.2")
    assert (result["command"], result["errors"]) == (command, {})
    assert result["requests"] > 0
