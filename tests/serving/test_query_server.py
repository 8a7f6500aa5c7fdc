"""zoo-query asking servers about their models and themselves, and putting them under load."""

import itertools
import json
import re
import signal
import subprocess

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_stub import PREDICT, Stub, answering

from serving import query as program
from serving import query_server
from serving.client_results import ServedModel
from serving.messages import model_management_pb2

DEADLINE = 60


@pytest.fixture
def zoo_query(program_command, language):
    """The command line of a process that asks the language model."""

    def command(*arguments):
        return program_command("serving.query", f"--server={language.address}", "--model=model", *arguments)

    return command


@pytest.fixture
def query(run_program, language):
    """Runs zoo-query, here: exit code, lines on stdout, stderr."""

    def run(*arguments):
        code, out, err = run_program(program, f"--server={language.address}", "--model=model", *arguments)
        return code, out.splitlines(), err

    return run


def test_status(query):
    code, lines, _ = query("status")
    assert (code, lines[0]) == (0, "model version 7 is AVAILABLE")
    version = {"version": 7, "state": "AVAILABLE", "error_code": "OK", "error_message": ""}
    assert json.loads(lines[1]) == {"model": "model", "versions": [version]}


def test_metadata(query):
    code, lines, err = query("metadata")
    assert (code, err) == (0, "")
    assert lines[:2] == ["model version 7", "generate"]
    assert "  <- max_new_tokens  int32 [?], [6] if not given" in lines
    assert "  -> state   float [?, 1]" in lines
    result = json.loads(lines[-1])
    assert (result["model"], result["version"]) == ("model", 7)
    assert sorted(result["signatures"]) == ["generate", "score", "start", "step"]
    assert result["signatures"]["step"]["inputs"]["seed"] == {
        "dtype": "int32",
        "shape": [None, 2],
        "default": [[-1, -1]],
    }


def test_models(query, monkeypatch):
    asked = []

    def models(*arguments):
        asked.append(arguments)
        return [ServedModel("a", {2: "AVAILABLE", 1: "END"}), ServedModel("b", {})]

    monkeypatch.setattr(query_server, "models", models)
    code, lines, err = query("models", "--rest_server=localhost:1234", "--timeout_s=5")
    assert (code, err) == (0, "")
    assert lines[:-1] == ["a: version 2 is AVAILABLE, version 1 is END", "b: no version yet"]
    versions = [{"version": 2, "state": "AVAILABLE"}, {"version": 1, "state": "END"}]
    assert json.loads(lines[-1]) == {
        "models": [{"name": "a", "versions": versions}, {"name": "b", "versions": []}]
    }
    assert asked == [("localhost:1234", 5.0, "")]


def test_reload(query, tmp_path):
    requests = []

    def reload(body, _):
        requests.append(model_management_pb2.ReloadConfigRequest.FromString(body))
        return model_management_pb2.ReloadConfigResponse()

    config = tmp_path / "models.config"
    config.write_text('model_config_list { config { name: "a" base_path: "/a" } config { name: "b" } }')
    with Stub({"/tensorflow.serving.ModelService/HandleReloadConfigRequest": reload}) as stub:
        arguments = (f"--server={stub.address}", f"--model_config_file={config}")
        code, lines, err = query("reload", *arguments)
    assert (code, lines, err) == (0, [f"{stub.address} now serves a, b", '{"reloaded": ["a", "b"]}'], "")
    assert requests[0].config.model_config_list.config[0].base_path == "/a"


@pytest.mark.parametrize(
    ("status", "code", "shown", "message"),
    [
        ("SERVING", 0, ["{} is serving", '{{"serving": true}}'], ""),
        ("NOT_SERVING", 1, [], "zoo-query: {} is not serving: not all of its models can answer\n"),
    ],
)
def test_health(query, status, code, shown, message):
    response = health_pb2.HealthCheckResponse(status=status)
    with Stub({"/grpc.health.v1.Health/Check": lambda *_: response}) as stub:
        result = query("health", f"--server={stub.address}")
    assert result == (code, [line.format(stub.address) for line in shown], message.format(stub.address))


def test_health_that_is_not_told(query):
    with Stub({}) as stub:
        code, lines, err = query("health", f"--server={stub.address}")
    assert (code, lines) == (1, [])
    message = f"{stub.address} says nothing about its health; --enable_grpc_healthcheck_service lets it"
    assert err == f"zoo-query: {message}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "--text=four"],
        ["generate", "--prompt=", "--max_new_tokens=2", "--stream"],
        ["status", "--rate=50"],
    ],
)
def test_bench(query, arguments):
    code, lines, err = query("bench", *arguments, "--seconds=1.2", "--channels=2")
    assert code == 0
    assert err.splitlines()[0].startswith("1 s: ")
    result = json.loads(lines[-1])
    assert (result["model"], result["command"], result["errors"]) == ("model", arguments[0], {})
    assert result["requests"] > 0
    assert lines[0] == f"{result['requests_per_second']:.1f} requests/s ({result['requests']} in 1.2 s)"
    assert lines[1].startswith(f"latency: p50 {result['p50_ms']:.2f} ms, p90 ")
    if "--stream" in arguments:
        assert lines[2] == f"{result['tokens_per_second']:.1f} tokens/s"
        assert lines[3].startswith(f"first token: p50 {result['first_token_p50_ms']:.2f} ms, p99 ")
    else:
        assert (len(lines), result["tokens_per_second"]) == (3, None)


def test_bench_of_a_server_that_falters(query):
    """The first request, which would say what is wrong with all, is answered; then every other is refused."""
    count = itertools.count()

    def answer(_, context):
        if next(count) % 2:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return answering(embedding=np.zeros([1, 1], np.float32))

    with Stub({PREDICT: answer}) as stub:
        arguments = ("--text=a", f"--server={stub.address}", "--callers=2", "--seconds=0.5", "--json")
        code, lines, _ = query("bench", "embed", *arguments)
    assert (code, len(lines)) == (0, 1)
    assert 0 < json.loads(lines[0])["errors"]["RESOURCE_EXHAUSTED"] < next(count)


def test_bench_of_a_server_that_fails(query):
    count = itertools.count()

    def answer(_, context):
        if next(count):
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        return answering(embedding=np.zeros([1, 1], np.float32))

    with Stub({PREDICT: answer}) as stub:
        arguments = ("--text=a", f"--server={stub.address}", "--seconds=0.2")
        code, lines, err = query("bench", "embed", *arguments)
    assert (code, lines) == (1, [])
    assert re.fullmatch(r"zoo-query: no request was answered: \d+ INTERNAL\n", err)


def test_a_bench_that_is_interrupted(zoo_query):
    command = zoo_query("bench", "status", "--callers=3", "--seconds=1000")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline().startswith("1 s: ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err.splitlines()[-1]) == (130, "", "zoo-query: interrupted")
    assert all(re.fullmatch(r"\d+ s: \d+ requests answered", line) for line in err.splitlines()[:-1])
