"""From text to answers over the network with the programs alone, each a process of its own."""

import json
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tiny import DEADLINE, flags_of, program_command, tiny

MAX_NEW_TOKENS = 4096  # what DESIGN promises to refuse more than


def run(name, *arguments):
    return subprocess.run(program_command(name, *arguments), capture_output=True, text=True, timeout=DEADLINE)


def last_line(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Trained, evaluated, exported: what each program said."""
    folder = tmp_path_factory.mktemp("programs")
    config = tiny(folder, tokenizer="words", learning_rate=0.05, max_steps=40)
    base = str(folder / "base")
    return SimpleNamespace(
        config=config,
        base=base,
        train=last_line(run("zoo_train", *flags_of(config))),
        evaluate=last_line(run("zoo_evaluate", f"--model_dir={config.output_dir}")),
        export=last_line(run("zoo_export", f"--model_dir={config.output_dir}", f"--export_base={base}")),
    )


@pytest.fixture(scope="module")
def address(pipeline):
    command = program_command(
        "zoo_serve", "--model_name=roses", f"--model_base_path={pipeline.base}", "--port=0"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield f"127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0


@pytest.fixture(scope="module")
def query(address):
    def ask(command, *flags):
        return run("zoo_query", command, f"--server={address}", "--model=roses", "--json", *flags)

    return ask


def test_evaluation_repeats_what_training_said(pipeline):
    best = {name: value for name, value in pipeline.train["best"].items() if name != "step"}
    assert pipeline.evaluate == {"task": "language_model", "split": "validation", **best}


def test_the_server_scores_as_the_export_does(pipeline, query):
    score = tf.saved_model.load(pipeline.export["path"]).signatures["score"]
    for text in ("a rose is a rose", "unheard-of words", ""):
        expected = {name: value.numpy()[0] for name, value in score(text=tf.constant([text])).items()}
        got = last_line(query("score", f"--text={text}"))
        assert got["num_tokens"] == expected["num_tokens"]
        np.testing.assert_allclose(got["log_prob"], expected["log_prob"], rtol=1e-5)
        np.testing.assert_allclose(got["perplexity"], expected["perplexity"], rtol=1e-5)


@pytest.mark.parametrize("prompt", ["", "unheard-of", "a rose"])
def test_any_prompt_is_continued_with_known_words(query, prompt):
    """An empty one, one of unknown words only; streamed or not, with a seed the text is the same."""
    flags = (f"--prompt={prompt}", "--max_new_tokens=7", "--seed=3")
    whole = last_line(query("generate", *flags))
    assert whole["num_tokens"] == 7
    assert "<unk>" not in whole["text"]
    assert last_line(query("generate", *flags))["text"] == whole["text"]
    greedy = (*flags, "--temperature=0")
    assert (
        last_line(query("generate", *greedy, "--stream"))["text"]
        == last_line(query("generate", *greedy))["text"]
    )


def test_no_new_tokens(query):
    answer = last_line(query("generate", "--prompt=a", "--max_new_tokens=0"))
    assert (answer["text"], answer["num_tokens"], answer["log_prob"]) == ("", 0, 0)


def test_more_new_tokens_than_allowed(query):
    done = query("generate", "--prompt=a", f"--max_new_tokens={MAX_NEW_TOKENS + 1}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"max_new_tokens must be between 0 and {MAX_NEW_TOKENS}" in done.stderr
