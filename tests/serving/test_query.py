"""zoo-query asking the fake language model, and servers that answer what a test says."""

import json
import signal
import socket
import subprocess

import grpc
import numpy as np
import pytest
from grpc_stub import GENERATE, PREDICT, Stub, answering

from serving import query as program
from serving.client import Client, Tls
from serving.connection import Connection
from serving.messages import predict_pb2
from serving.model_config import ModelConfig, VersionPolicy
from serving.repository import LoadPolicy
from serving.versions import State

DEADLINE = 60
SPELLED = "déjà vu, encore"


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


def test_generate(query):
    code, lines, err = query("generate", "--prompt=Say: ", "--max_new_tokens=8")
    assert (code, err) == (0, "")
    assert lines[0] == "Say: déjà v"
    assert json.loads(lines[1]) == {
        "model": "model",
        "version": 7,
        "prompt": "Say: ",
        "text": "déjà v",
        "num_tokens": 8,
        "log_prob": -8.0,
    }
    assert len(lines) == 2


def test_only_json(query):
    code, lines, _ = query("generate", "--prompt=", "--json", "--temperature=0.5", "--seed=3")
    assert code == 0
    assert [json.loads(line)["text"] for line in lines] == ["<3><0>"]
    assert json.loads(lines[0])["log_prob"] == -3.0


def test_stream(query):
    code, lines, err = query("generate", "--prompt=Say: ", "--stream", "--max_new_tokens=100")
    assert (code, err) == (0, "")
    assert lines[0] == "Say: " + SPELLED
    result = json.loads(lines[1])
    assert (result["text"], result["version"]) == (SPELLED, 7)
    assert (result["num_tokens"], result["log_prob"]) == (17, -17.0)


def test_stream_in_the_middle_of_a_character(query):
    code, lines, _ = query("generate", "--prompt=", "--stream", "--max_new_tokens=2")
    assert (code, lines[0]) == (0, "d\ufffd")


def test_a_stream_is_as_long_as_a_generation_by_default(query):
    assert json.loads(query("generate", "--prompt=", "--stream")[1][-1])["num_tokens"] == 6


def test_each_step_of_a_stream_has_its_own_seed(query):
    code, lines, _ = query("generate", "--prompt=", "--stream", "--max_new_tokens=3", "--seed=11", "--json")
    assert (code, json.loads(lines[0])["text"]) == (0, "<11><0><11><1><11><2>")


def test_nothing_to_generate(query):
    for stream in ("--stream", "--nostream"):
        code, lines, _ = query("generate", "--prompt=Say", "--max_new_tokens=0", stream)
        assert (code, lines[0], json.loads(lines[1])["text"]) == (0, "Say", "")


def test_score(query):
    code, lines, err = query("score", "--text=four")
    assert (code, err) == (0, "")
    assert lines[0] == "log probability -2.0000 nats, 4 tokens, perplexity 1.6487"
    result = json.loads(lines[1])
    assert (result["text"], result["log_prob"], result["num_tokens"]) == ("four", -2.0, 4)
    assert result["perplexity"] == pytest.approx(1.6487213)


def test_what_is_not_finite_is_null_in_json(query):
    code, lines, _ = query("score", "--text=impossible")
    assert code == 0
    assert "-inf" in lines[0]
    assert json.loads(lines[1])["log_prob"] is None


def test_tokens_may_come_several_at_once(query):
    requests = []

    def generate(body, _):
        requests.append(predict_pb2.PredictRequest.FromString(body))
        yield answering(
            token=["dé".encode()[:2], "éj".encode()[1:]],
            token_id=np.int32([1, 2]),
            log_prob=np.float32([-1, -2]),
            done=[False, True],
        )

    with Stub({GENERATE: generate}) as stub:
        arguments = ("--stream", "--tokens_per_message=2", f"--server={stub.address}")
        code, lines, err = query("generate", "--prompt=", *arguments)
    assert (code, lines[0], err) == (0, "déj", "")
    result = {"model": "model", "version": 5, "prompt": "", "text": "déj", "num_tokens": 2, "log_prob": -3.0}
    assert json.loads(lines[1]) == result
    assert requests[0].inputs["tokens_per_message"].int_val == [2]


@pytest.mark.parametrize(
    ("arguments", "outputs", "shown", "result"),
    [
        (
            ["classify", "--text=a"],
            {"label": ["b"], "labels": [["a", "b"]], "probabilities": [[0.25, 0.75]]},
            [" 75.00%  b", " 25.00%  a"],
            {"text": "a", "label": "b", "probabilities": {"a": 0.25, "b": 0.75}},
        ),
        (
            ["tag", "--text=A b"],
            {
                **{"tokens": [["A", "bc", ""]], "tags": [["DET", "X", ""]], "scores": [[0.5, 0.25, 0.0]]},
                **{"starts": [[0, 2, 0]], "ends": [[1, 4, 0]], "lengths": [2]},
            },
            ["A   bc", "DET X"],
            {
                **{"text": "A b", "tokens": ["A", "bc"], "tags": ["DET", "X"], "scores": [0.5, 0.25]},
                **{"starts": [0, 2], "ends": [1, 4]},
            },
        ),
        (
            ["translate", "--text=a", "--beam_width=2"],
            {"translation": ["b"], "log_prob": [-0.5]},
            ["b"],
            {"text": "a", "translation": "b", "log_prob": -0.5},
        ),
        (
            ["answer", "--context=c", "--question=q"],
            {"answer": ["b"], "start": [3], "end": [4], "score": [0.5]},
            ["b  (50% sure)"],
            {"question": "q", "answer": "b", "start": 3, "end": 4, "score": 0.5},
        ),
        (
            ["embed", "--text=a"],
            {"embedding": np.arange(10, dtype=np.float32).reshape(1, 10)},
            ["10 numbers: 0.000 1.000 2.000 3.000 4.000 5.000 6.000 7.000 ..."],
            {"text": "a", "embedding": [float(number) for number in range(10)]},
        ),
    ],
)
def test_what_other_models_answer(query, arguments, outputs, shown, result):
    with Stub({PREDICT: lambda *_: answering(**outputs)}) as stub:
        code, lines, err = query(*arguments, f"--server={stub.address}")
    assert (code, lines[:-1], err) == (0, shown, "")
    assert json.loads(lines[-1]) == {"model": "model", "version": 5, **result}


@pytest.fixture(scope="module")
def versions(serve, publish, exports, eventually, tmp_path_factory):
    """Versions 3 and 4 of the fake language model, labelled, on a unix socket; its address."""
    folder = tmp_path_factory.mktemp("versions")
    for number in (3, 4):
        publish(exports["language"], folder / "base", number)
    model = ModelConfig("model", str(folder / "base"), VersionPolicy(latest=2), {"old": 3, "new": 4})
    policy = LoadPolicy(poll_seconds=0.02, allow_unavailable_labels=True)
    socket = str(folder / "socket")
    served = serve(folder / "base", models=[model], policy=policy, grpc_socket_path=socket).server.repository
    ready = {(3, State.AVAILABLE), (4, State.AVAILABLE)}  # it answers as soon as one of them is
    eventually(lambda: {(number, state) for number, state, _ in served.versions("model")} == ready)
    return f"unix:{socket}"


@pytest.mark.parametrize(
    ("arguments", "version"), [([], 4), (["--version=3"], 3), (["--label=old"], 3), (["--label=new"], 4)]
)
@pytest.mark.parametrize(
    "command",
    [
        ["score", "--text=four"],
        ["generate", "--prompt="],
        ["generate", "--prompt=", "--stream"],
        ["metadata"],
    ],
)
def test_which_version_is_asked(query, versions, command, arguments, version):
    code, lines, err = query(*command, *arguments, f"--server={versions}")
    assert (code, err) == (0, "")
    assert json.loads(lines[-1])["version"] == version


def test_status_of_a_version(query, versions):
    code, lines, err = query("status", "--version=3", f"--server={versions}")
    assert (code, lines[:-1], err) == (0, ["model version 3 is AVAILABLE"], "")


def test_bench_over_a_unix_socket(query, versions):
    arguments = ("--text=four", "--seconds=0.2", f"--server={versions}", "--version=3")
    code, lines, _ = query("bench", "score", *arguments)
    assert code == 0
    assert json.loads(lines[-1])["requests"] > 0


def test_a_token_from_a_file(query, tmp_path):
    (tmp_path / "token").write_text("open-sesame\n")
    with Stub({PREDICT: lambda *_: answering(embedding=np.zeros([1, 1], np.float32))}) as stub:
        arguments = ("embed", "--text=a", f"--server={stub.address}")
        assert query(*arguments, f"--bearer_token_file={tmp_path / 'token'}")[0] == 0
    assert [each["authorization"] for each in stub.metadata] == ["Bearer open-sesame"]


def test_retries(query):
    def refuse(_, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "full")

    with Stub({PREDICT: refuse}) as stub:
        arguments = ("embed", "--text=a", f"--server={stub.address}", "--retries=1")
        assert query(*arguments) == (1, [], f"zoo-query: {stub.address} cannot answer now: full\n")
    assert len(stub.calls) == 2


def test_certificates_from_files(query, tmp_path, monkeypatch):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_bytes(b"-----BEGIN " + name.encode())
    connections = []
    monkeypatch.setattr(Connection, "channel", lambda self, *_: connections.append(self) or grpc)
    paths = [f"--tls_{name}_file={tmp_path / name}" for name in ("ca", "cert", "key")]
    monkeypatch.setattr(Client, "ask", lambda *_: [])
    monkeypatch.setattr(Client, "close", lambda *_: None)
    assert query("status", *paths)[0] == 0
    assert query("status", paths[0])[0] == 0
    assert [each.tls for each in connections] == [
        Tls(b"-----BEGIN ca", b"-----BEGIN cert", b"-----BEGIN key"),
        Tls(b"-----BEGIN ca"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            [],
            2,
            "expected one command out of generate, score, beam, contrastive, classify, tag, translate, "
            "answer, embed, status, ",
        ),
        (["transcribe"], 2, "got transcribe"),
        (["generate"], 2, "--prompt=TEXT is missing"),
        (["score"], 2, "--text=TEXT is missing"),
        (["generate", "--prompt=a", "--max_new_tokens=-1"], 2, "max_new_tokens"),
        (["generate", "--prompt=a", "--max_new_tokens=9999999999"], 2, "max_new_tokens"),
        (["generate", "--prompt=a", "--temperature=-1"], 2, "temperature"),
        (["generate", "--prompt=a", "--temperature=nan"], 2, "--temperature=nan makes no sense"),
        (["generate", "--prompt=a", "--top_p=0"], 2, "--top_p=0.0 makes no sense"),
        (["generate", "--prompt=a", "--top_p=1.5"], 2, "top_p"),
        (["generate", "--prompt=a", "--top_k=-2"], 2, "top_k"),
        (["generate", "--prompt=a", "--seed=-1"], 2, "seed"),
        (["generate", "--prompt=a", "--timeout_s=0"], 2, "timeout_s"),
        (["generate", "--prompt=a", "--promt=b"], 2, "promt"),
        (["status", "--server=localhost"], 2, "--server=localhost is not HOST:PORT, nor unix:/PATH"),
        (["status", "--server=unix:"], 2, "--server=unix: is not HOST:PORT, nor unix:/PATH"),
        (["score", "--text=a", "--version=-1"], 2, "version"),
        (["score", "--text=a", "--version=1", "--label=b"], 2, "--version and --label are two ways"),
        (["score", "--text=a", "--version=9"], 1, "does not serve that version of the model 'model'; "),
        (["status", "--version=9"], 1, "(Could not find version 9 of model model)"),
        (["score", "--text=a", "--label=b"], 1, "Unrecognized servable version label: b"),
        (["bench", "score", "--text=a", "--version=9"], 1, "does not serve that version"),
        (["status", "--model=nobody"], 1, "does not serve the model 'nobody'; is --model right?"),
        (["generate", "--prompt=a", "--model=nobody"], 1, "does not serve the model 'nobody'"),
        (["generate", "--prompt=a", "--top_k=3"], 1, "refused: INVALID_ARGUMENT: "),
        (
            ["generate", "--prompt=a", "--min_p=0.1", "--stop=b"],
            1,
            "the model 'model' has no input min_p, stop; is it an earlier export? (Inputs contains invalid",
        ),
        (["generate", "--prompt=a", "--details"], 1, "is not a model that can do this: Serving signature"),
        (["score", "--text=a", "--details"], 1, "is not a model that can do this: Serving signature"),
        (["beam", "--prompt=a"], 1, "is not a model that can do this: Serving signature"),
        (["contrastive", "--prompt=a"], 1, "is not a model that can do this: Serving signature"),
        (["beam"], 2, "--prompt=TEXT is missing"),
        (["contrastive"], 2, "--prompt=TEXT is missing"),
        (["generate", "--prompt=a", "--stream", "--stop=b"], 2, "--stop does not go with --stream: "),
        (["generate", "--prompt=a", "--stream", "--bad_words=b"], 2, "--bad_words does not go with --stream"),
        (
            ["generate", "--prompt=a", "--stream", "--repetition_penalty=0"],
            2,
            "--repetition_penalty does not go with --stream",
        ),
        (["generate", "--prompt=a", "--stream", "--details"], 2, "--details does not go with --stream"),
        (["bench", "generate", "--prompt=a", "--stream", "--stop=b"], 2, "--stop does not go with --stream"),
        (["generate", "--prompt=a", "--stop="], 2, "--stop= is empty"),
        (["generate", "--prompt=a", "--bad_words=b", "--bad_words="], 2, "--bad_words= is empty"),
        (["generate", "--prompt=a", "--min_p=2"], 2, "min_p"),
        (["generate", "--prompt=a", "--typical_p=0"], 2, "--typical_p=0.0 makes no sense"),
        (["generate", "--prompt=a", "--repetition_penalty=0"], 2, "--repetition_penalty=0.0 makes no sense"),
        (["beam", "--prompt=a", "--length_penalty=nan"], 2, "--length_penalty=nan makes no sense"),
        (["beam", "--prompt=a", "--beam_width=0"], 2, "beam_width"),
        (["contrastive", "--prompt=a", "--alpha=1.5"], 2, "alpha"),
        (["score", "status", "--text=a"], 2, "got score status"),
        (["bench"], 2, "got bench"),
        (["bench", "reload"], 2, "bench takes one of generate, score, "),
        (["bench", "score"], 2, "--text=TEXT is missing"),
        (["bench", "status", "--callers=2", "--rate=3"], 2, "--callers and --rate are two ways"),
        (["bench", "status", "--model=nobody"], 1, "does not serve the model 'nobody'"),
        (["reload"], 2, "--model_config_file=FILE is missing"),
        (
            ["reload", "--model_config_file=/no/where"],
            1,
            "no such file or directory (--model_config_file=/no/where)",
        ),
        (["reload", f"--model_config_file={__file__}"], 1, "Error parsing text-format"),
        (["models", "--rest_server=localhost"], 2, "--rest_server=localhost is not HOST:PORT"),
        (["models", "--rest_server=unix:/a"], 2, "--rest_server=unix:/a is not HOST:PORT"),
        (["status", "--retries=5"], 2, "retries"),
        (["status", "--bearer_token_file=/no/where"], 1, "(--bearer_token_file=/no/where)"),
        (
            ["status", f"--bearer_token_file={__file__}"],
            1,
            "a token is one word of printable ASCII characters",
        ),
        (["status", "--tls_ca_file=/no/where"], 1, "(--tls_ca_file=/no/where)"),
        (["status", f"--tls_ca_file={json.__file__}"], 1, "nothing in PEM format (--tls_ca_file="),
        (["status", "--tls_cert_file=a", "--tls_key_file=b"], 2, "TLS takes --tls_ca_file"),
        (["status", "--tls_ca_file=a", "--tls_key_file=b"], 2, "both --tls_cert_file and --tls_key_file"),
    ],
)
def test_what_goes_wrong_is_one_line(query, arguments, code, message):
    returned, lines, err = query(*arguments)
    assert (returned, lines, len(err.splitlines())) == (code, [], 1)
    assert err.startswith("zoo-query: ")
    assert message in err


def test_a_stream_of_a_model_that_lacks_an_input(query):
    code, lines, err = query("generate", "--prompt=a", "--stream", "--min_p=0.1")
    assert (code, lines, len(err.splitlines())) == (1, ["a"], 1)
    assert "refused: INVALID_ARGUMENT: unknown inputs min_p; there are " in err


def test_a_server_that_is_not_there(query):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        code, lines, err = query("status", f"--server={address}")
    assert (code, lines, len(err.splitlines())) == (1, [], 1)
    assert f"no server answers at {address}; is zoo-serve running there?" in err


def test_a_model_that_is_no_language_model(query, arithmetic):
    code, _, err = query("score", "--text=a", f"--server={arithmetic.address}")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "is not a model that can do this" in err


@pytest.fixture
def silent_server():
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_server_that_does_not_answer(query, silent_server):
    address = f"127.0.0.1:{silent_server.getsockname()[1]}"
    code, _, err = query("status", f"--server={address}", "--timeout_s=0.3")
    assert (code, err) == (
        1,
        f"zoo-query: {address} gave no answer within 0.3 s; --timeout_s=N waits longer\n",
    )


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "zoo-query: interrupted\n"), (signal.SIGTERM, -signal.SIGTERM, "")],
)
def test_signals(zoo_query, silent_server, number, code, message):
    address = f"127.0.0.1:{silent_server.getsockname()[1]}"
    command = zoo_query("status", f"--server={address}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    silent_server.settimeout(DEADLINE)
    connection, _ = silent_server.accept()  # now it waits for the answer
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE)
    connection.close()
    assert (process.returncode, out, err) == (code, "", message)


def test_a_reader_that_has_seen_enough(zoo_query):
    command = zoo_query("generate", "--prompt=Say: ", "--stream")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(DEADLINE)) == ("", 1)


def test_as_a_process(zoo_query):
    """Without the modules that are here already."""
    done = subprocess.run(zoo_query("generate", "--prompt=é"), capture_output=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines()[0] == "édéjà"
