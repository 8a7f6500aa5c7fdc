"""The client library, synchronous and asynchronous, over real sockets: predictions and texts."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from grpc_stub import DEADLINE, GENERATE, PREDICT, Stub, answering, inputs_of, stub_of, with_client

from serving.client import AsyncClient, Client
from serving.client_results import (
    Generation,
    Score,
    Token,
    Translation,
)
from serving.messages import (
    predict_pb2,
)

SPELLED = "déjà vu, encore".encode()
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def ask(kind):
    """Asks a server something with either client."""

    def ask(address, use, **options):
        return with_client(kind, address, use, **options)

    return ask


def float32(*values):
    return np.array(values, np.float32)


def test_predict(ask, arithmetic):
    outputs = ask(arithmetic.address, lambda client: client.predict({"x": float32(1, 2)}))
    assert {alias: array.tolist() for alias, array in outputs.items()} == {
        "y": [3.0, 5.0],
        "x_again": [1.0, 2.0],
    }
    assert (outputs.version, outputs["y"].dtype) == (3, np.float32)


def test_predict_of_a_signature_and_only_some_outputs(ask, arithmetic):
    outputs = ask(
        arithmetic.address,
        lambda client: client.predict({"text": np.array([["1.5", "2"]])}, "number", ["text"]),
    )
    assert (list(outputs), outputs["text"].tolist()) == (["text"], [[b"1.5", b"2"]])


def test_strings_of_all_kinds_are_sent_as_bytes(ask):
    inputs = {
        "text": np.array(["é"]),
        "bytes": np.array([b"ab"]),
        "mixed": np.array(["é", b"\xff"], np.object_),
    }
    with stub_of(answering()) as (address, requests):
        ask(address, lambda client: client.predict(inputs))
    assert inputs_of(requests[0])[1] == {
        "text": ["é".encode()],
        "bytes": [b"ab"],
        "mixed": ["é".encode(), b"\xff"],
    }


def test_a_dtype_that_cannot_be_sent(ask):
    with pytest.raises(TypeError, match=r"'when' is of dtype datetime64\[D\], which cannot be sent"):
        ask("127.0.0.1:1", lambda client: client.predict({"when": np.array(["2020-01-01"], "datetime64[D]")}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (0, "")), ({"version": 4}, (4, "")), ({"version_label": "canary"}, (0, "canary"))],
)
def test_which_version_is_asked(ask, options, expected):
    with stub_of(answering()) as (address, requests):
        ask(address, lambda client: client.predict({}), **options)
    spec = predict_pb2.PredictRequest.FromString(requests[0]).model_spec
    assert (spec.name, spec.version.value, spec.version_label) == ("model", *expected)


def test_a_version_has_a_number_or_a_label(kind):
    with pytest.raises(ValueError, match="not by both"):
        with_client(kind, "127.0.0.1:1", lambda client: client.status(), version=1, version_label="stable")


def test_generate(ask, language):
    whole = ask(language.address, lambda client: client.generate("Say: "))
    assert whole == Generation(SPELLED[:6].decode(), 6, -6.0, version=7)
    assert ask(
        language.address, lambda client: client.generate("", max_new_tokens=8, temperature=0.5, seed=3)
    ) == Generation("<3><0>", 8, -4.0, version=7)


def test_score(ask, language):
    score = ask(language.address, lambda client: client.score("four"))
    assert score == Score(-2.0, 4, pytest.approx(np.exp(0.5)), version=7)


def test_stream(ask, language):
    tokens = ask(language.address, lambda client: client.stream("Say: ", max_new_tokens=100, temperature=0.5))
    last = len(SPELLED) - 1
    assert tokens == [
        Token(SPELLED[place : place + 1], place, -0.5, place == last, version=7) for place in range(last + 1)
    ]


def test_a_stream_is_as_long_as_a_generation_by_default(ask, language):
    assert len(ask(language.address, lambda client: client.stream(""))) == 6


def token_messages(tokens, per_message):
    for start in range(0, len(tokens), per_message):
        piece = tokens[start : start + per_message]
        yield answering(
            token=[token.text for token in piece],
            token_id=np.int32([token.id for token in piece]),
            log_prob=float32(*(token.log_prob for token in piece)),
            done=[token.done for token in piece],
        )


TOKENS = [Token(b"a", 3, -0.5, False, 5), Token(b"\xff", 4, -1.0, False, 5), Token(b"", 0, -2.0, True, 5)]


def test_tokens_may_come_several_at_once(ask):
    requests = []

    def generate(body, _):
        requests.append(body)
        yield from token_messages(TOKENS, 2)

    with Stub({GENERATE: generate}) as stub:
        tokens = ask(
            stub.address,
            lambda client: client.stream(
                "é", max_new_tokens=9, top_k=2, top_p=0.5, seed=8, tokens_per_message=2
            ),
        )
    assert tokens == TOKENS
    assert inputs_of(requests[0]) == (
        "generate",
        {
            "prompt": ["é".encode()],
            "max_new_tokens": [9],
            "top_k": [2],
            "top_p": [0.5],
            "seed": [[8, 0]],
            "tokens_per_message": [2],
        },
    )


@pytest.fixture
def stock_server(language):
    """The language model on a server without a service for streams."""
    requests = []

    def forwarded(path):
        method = language.channel.unary_unary(path)

        def forward(body, _):
            requests.append((path, body))
            return SimpleNamespace(SerializeToString=lambda: method(body, timeout=DEADLINE))

        return forward

    with Stub({path: forwarded(path) for path in (PREDICT, METADATA)}) as stub:
        yield SimpleNamespace(address=stub.address, requests=requests)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 4, "seed": 11},
        {"max_new_tokens": 100, "temperature": 0.25},
        {},
        {"max_new_tokens": 0},
    ],
)
def test_a_server_without_streams_is_driven_to_the_same_tokens(ask, language, stock_server, options):
    expected = ask(language.address, lambda client: client.stream("Say", **options))
    assert ask(stock_server.address, lambda client: client.stream("Say", **options)) == expected
    specs = [
        predict_pb2.PredictRequest.FromString(body).model_spec
        for path, body in stock_server.requests
        if path == PREDICT
    ]
    assert [spec.signature_name for spec in specs] == ["start"] + ["step"] * len(expected)
    assert [spec.version.value for spec in specs] == [0] + [7] * len(expected)


def closed_early(kind, address):
    """Takes one token of a stream and no more."""
    if kind == "sync":
        with Client(address) as client, contextlib.closing(client.stream("")) as tokens:
            return next(tokens)

    async def take_one():
        async with AsyncClient(address) as client, contextlib.aclosing(client.stream("")) as tokens:
            return await anext(tokens)

    return asyncio.run(take_one())


def test_a_stream_that_is_left_ends_on_the_server(kind):
    ended = threading.Event()

    def generate(_, context):
        context.add_callback(ended.set)
        yield from token_messages(TOKENS, 1)
        assert ended.wait(DEADLINE)

    with Stub({GENERATE: generate}) as stub:
        assert closed_early(kind, stub.address) == TOKENS[0]
        assert ended.wait(DEADLINE)


def test_both_clients_have_the_same_methods():
    methods = {name for name in vars(Client) if not name.startswith("_")}
    assert methods == {name for name in vars(AsyncClient) if not name.startswith("_")}
    assert {"predict", "stream", "is_serving", "close"} <= methods
    for name in methods:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert ours.parameters == theirs.parameters
        assert getattr(Client, name).__doc__ == getattr(AsyncClient, name).__doc__ != None  # noqa: E711


def test_methods_are_described_as_what_they_are():
    signature = inspect.signature(Client.translate)
    assert list(signature.parameters) == ["self", "text", "beam_width", "max_new_tokens"]
    assert signature.return_annotation is Translation
    assert inspect.iscoroutinefunction(AsyncClient.translate)


def test_neither_tensorflow_nor_absl_is_needed():
    code = (
        "import sys, serving.client, serving.bench\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert 'grpc' in loaded\n"
        "assert not loaded & {'absl', 'zoo', 'training', 'keras'}, loaded\n"
        "assert 'tensorflow' not in sys.modules and 'tensorflow.python' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE)
