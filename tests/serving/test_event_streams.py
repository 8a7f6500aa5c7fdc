"""Texts token by token over HTTP, from a real server."""

import contextlib
import http.client
import json
import threading

import pytest

from serving.generation import StreamLimits

DEADLINE = 60
SPELLED = "déjà vu, encore"


@pytest.fixture(scope="module")
def server(serve, publish, exports, tmp_path_factory):
    """Version 7 of the fake language model, with HTTP."""
    base_path = tmp_path_factory.mktemp("language_http")
    publish(exports["language"], base_path, 7)
    return serve(base_path, rest_api_port=0)


@contextlib.contextmanager
def posted(server, path, body):
    """The response to a POST, its body yet to be read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server.rest_api_port, timeout=DEADLINE)
    try:
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body))
        yield connection.getresponse()
    finally:
        connection.close()


def post(server, path, body):
    """Status and text."""
    with posted(server, path, body) as response:
        return response.status, response.read().decode()


def events(server, path, body):
    """What the events say; the last, [DONE], is checked and left out."""
    with posted(server, path, body) as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = response.read().decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    contents = [line.removeprefix("data: ") for line in lines]
    assert contents.pop() == "[DONE]"
    return [json.loads(content) for content in contents]


@pytest.mark.parametrize("path", ["", "/versions/7"])
def test_a_text_token_by_token(server, path):
    body = {"prompt": "Say", "max_new_tokens": 100}
    found = events(server, f"/v1/models/model{path}:generate", body)
    assert len(found) == len(SPELLED.encode())
    assert "".join(event["text"] for event in found) == SPELLED
    assert [event["token_ids"] for event in found] == [[n] for n in range(len(found))]
    assert [event["log_probs"] for event in found] == [[-1.0]] * len(found)
    assert [event["done"] for event in found] == [False] * (len(found) - 1) + [True]


def test_characters_come_whole(server):
    """é is two tokens of this model."""
    found = events(server, "/v1/models/model:generate", {"prompt": "", "max_new_tokens": 3})
    assert [event["text"] for event in found] == ["d", "", "é"]
    found = events(server, "/v1/models/model:generate", {"prompt": "", "max_new_tokens": 2})
    assert [event["text"] for event in found] == ["d", "\ufffd"]


def test_several_tokens_an_event(server):
    body = {"prompt": "", "max_new_tokens": 7, "tokens_per_message": 3}
    found = events(server, "/v1/models/model:generate", body)
    assert [len(event["token_ids"]) for event in found] == [3, 3, 1]


def test_settings(server):
    body = {"prompt": "", "max_new_tokens": 2, "temperature": 2, "seed": 5}
    found = events(server, "/v1/models/model:generate", body)
    assert [event["text"] for event in found] == ["<5><0>", "<5><1>"]
    assert found[0]["log_probs"] == [-2.0]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "JSON Parse error: The document is empty"),
        (b"[1]", 400, "the request is a JSON Array, and has to be an Object"),
        ({}, 400, "prompt is missing"),
        ({"prompt": 1}, 400, "prompt is a JSON Number, and has to be a String"),
        ({"prompt": "", "top": 1}, 400, "'top' is no setting; there are prompt, max_new_tokens, temperature"),
        ({"prompt": "", "temperature": "1"}, 400, 'temperature is "1", and has to be a finite number'),
        (b'{"prompt": "", "temperature": NaN}', 400, "temperature is NaN, and has to be a finite number"),
        ({"prompt": "", "max_new_tokens": 1.5}, 400, "max_new_tokens is 1.5, and has to be an integer"),
        ({"prompt": "", "max_new_tokens": 2**31}, 400, "max_new_tokens is 2147483648, and has to be an"),
        ({"prompt": "", "max_new_tokens": 5000}, 400, "max_new_tokens is 5000, and has to be between 0 and"),
        ({"prompt": "", "seed": [1]}, 400, "seed has to be an integer, or a pair of them, of 32 bits"),
        ({"prompt": "", "tokens_per_message": 0}, 400, "tokens_per_message is 0, and has to be an integer"),
        ({"prompt": "", "top_k": 1}, 400, "unknown inputs top_k; there are"),
    ],
)
def test_what_is_wrong_is_said(server, body, status, message):
    answered, text = post(server, "/v1/models/model:generate", body)
    assert answered == status
    assert json.loads(text)["error"].startswith(message)


def test_a_model_that_is_not_served(server):
    status, text = post(server, "/v1/models/other:generate", {"prompt": ""})
    assert (status, json.loads(text)["error"]) == (404, "Servable not found for request: Latest(other)")


def test_completions(server):
    status, text = post(server, "/v1/completions", {"model": "model", "prompt": "Say", "max_tokens": 100})
    answer = json.loads(text)
    assert status == 200
    assert (answer["object"], answer["model"]) == ("text_completion", "model")
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": SPELLED, "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"] == {"completion_tokens": len(SPELLED.encode())}


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        ({"max_tokens": 4}, "déj"[:2] + "j", "length"),
        ({"max_tokens": 0}, "", "length"),
        ({"max_tokens": 100, "stop": "vu"}, "déjà ", "stop"),
        ({"max_tokens": 100, "stop": ["xyz", " e", ", "]}, "déjà vu", "stop"),
        ({"max_tokens": 100, "stop": ["encores"]}, SPELLED, "stop"),
        ({"max_tokens": 100, "user": "me", "best_of": 1, "echo": False}, SPELLED, "stop"),
    ],
)
def test_where_completions_end(server, body, text, reason):
    _, answer = post(server, "/v1/completions", {"model": "model", **body})
    (choice,) = json.loads(answer)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, reason)


def test_several_completions_and_their_log_probs(server):
    body = {"model": "model", "prompt": ["a", "b"], "n": 2, "max_tokens": 2, "logprobs": 1}
    choices = json.loads(post(server, "/v1/completions", body)[1])["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert choices[3]["logprobs"]["token_logprobs"] == [-1, -1]
    assert choices[3]["logprobs"]["tokens"][0] == "d"


def test_completions_of_one_seed_differ(server):
    body = {"model": "model", "n": 2, "max_tokens": 1, "seed": 9}
    first, second = json.loads(post(server, "/v1/completions", body)[1])["choices"]
    assert first["text"] != second["text"]
    assert first["text"] == "<9><0>"


def test_streamed_completions(server):
    body = {"model": "model", "prompt": "Say", "max_tokens": 100, "stream": True, "stop": "core"}
    found = events(server, "/v1/completions", body)
    choices = [event["choices"][0] for event in found]
    assert "".join(choice["text"] for choice in choices) == "déjà vu, en"
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert {event["id"] for event in found} == {found[0]["id"]}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "model is missing, the name of a language model that is served"),
        ({"model": "other"}, 404, "Servable not found for request: Latest(other)"),
        ({"model": "other", "stream": True}, 404, "Servable not found for request: Latest(other)"),
        ({"model": "model", "n": 65}, 400, "n is 65, and has to be an integer of 1 to 64"),
        (
            {"model": "model", "n": 8, "prompt": ["a"] * 9},
            400,
            "prompts times n is 72, and has to be between",
        ),
        ({"model": "model", "prompt": []}, 400, "prompts times n is 0, and has to be between 1 and 64"),
        ({"model": "model", "prompt": [1]}, 400, "prompt is a JSON Number, and has to be a String"),
        ({"model": "model", "max_tokens": -1}, 400, "max_tokens is -1, and has to be an integer of 0 to"),
        ({"model": "model", "stop": [""]}, 400, "stop has to be a string, or a list of them, none of them"),
        ({"model": "model", "stop": ["a"] * 5}, 400, "stop has 5 strings, and may have 4"),
        ({"model": "model", "echo": True}, 400, "echo is not offered"),
    ],
)
def test_errors_of_completions_have_openais_form(server, body, status, message):
    answered, text = post(server, "/v1/completions", body)
    error = json.loads(text)["error"]
    assert answered == status
    assert error["message"].startswith(message)
    assert error["type"] == ("invalid_request_error" if status == 400 else "server_error")


def test_a_caller_that_goes_away_frees_its_slot(serve, publish, exports, tmp_path, eventually):
    publish(exports["endless"], tmp_path, 1)
    server = serve(tmp_path, rest_api_port=0, limits=StreamLimits(max_streams=1))
    body = {"prompt": "", "max_new_tokens": 4096}
    with posted(server, "/v1/models/model:generate", body) as response:
        assert response.readline().startswith(b"data: ")
        status, text = post(server, "/v1/models/model:generate", body)
        assert (status, json.loads(text)["error"]) == (503, "all 1 streams are in use")
    eventually(lambda: post(server, "/v1/models/model:generate", {**body, "max_new_tokens": 1})[0] == 200)


def test_an_error_in_the_middle_is_an_event(serve, publish, exports, tmp_path):
    publish(exports["endless"], tmp_path, 1)
    server = serve(tmp_path, rest_api_port=0, limits=StreamLimits(max_seconds=3.0, max_tokens=10**6))
    found = events(server, "/v1/models/model:generate", {"prompt": "", "max_new_tokens": 10**6})
    assert found.pop() == {"error": "a stream lasts at most 3 s"}
    assert [token for event in found for token in event["token_ids"]] == list(range(len(found)))


def test_many_callers_at_once(serve, publish, exports, tmp_path):
    publish(exports["endless"], tmp_path, 1)
    server = serve(tmp_path, rest_api_port=0)
    results = {}

    def read(name):
        body = {"prompt": "", "max_new_tokens": 100, "tokens_per_message": 5}
        found = events(server, "/v1/models/model:generate", body)
        results[name] = [token for event in found for token in event["token_ids"]]

    threads = [threading.Thread(target=read, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert results == {name: list(range(100)) for name in range(8)}
