"""zoo-query as a process, asking the fake language model."""

import json
import signal
import socket
import subprocess

import pytest

DEADLINE = 60
SPELLED = "déjà vu, encore"


@pytest.fixture
def zoo_query(program_command, language):
    def command(*arguments):
        return program_command("serving.client", f"--server={language.address}", "--model=model", *arguments)

    return command


@pytest.fixture
def query(zoo_query):
    """Runs zoo-query: exit code, lines on stdout, stderr."""

    def run(*arguments):
        done = subprocess.run(
            zoo_query(*arguments), capture_output=True, text=True, encoding="utf-8", timeout=DEADLINE
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr

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


def test_status(query):
    code, lines, _ = query("status")
    assert (code, lines[0]) == (0, "model version 7 is AVAILABLE")
    version = {"version": 7, "state": "AVAILABLE", "error_code": "OK", "error_message": ""}
    assert json.loads(lines[1]) == {"model": "model", "versions": [version]}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            [],
            2,
            "expected one command out of generate, score, classify, tag, translate, answer, embed, ",
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
        (["status", "--server=localhost"], 2, "--server=localhost is not HOST:PORT"),
        (["status", "--model=nobody"], 1, "does not serve the model 'nobody'; is --model right?"),
        (["generate", "--prompt=a", "--model=nobody"], 1, "does not serve the model 'nobody'"),
        (["generate", "--prompt=a", "--top_k=3"], 1, "refused: INVALID_ARGUMENT: "),
    ],
)
def test_what_goes_wrong_is_one_line(query, arguments, code, message):
    returned, lines, err = query(*arguments)
    assert (returned, lines, len(err.splitlines())) == (code, [], 1)
    assert err.startswith("zoo-query: ")
    assert message in err


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
