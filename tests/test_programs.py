"""From text to answers over the network with the programs alone, each a process of its own."""

import json
import signal
import subprocess
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tiny import DEADLINE, flags_of, program_command, tiny

from serving.messages import classification_pb2, prediction_service_pb2_grpc
from training.config import Config
from zoo.models.classifier import example

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


class TestClassification:
    """Colours by a word that tells them."""

    WORDS = ("rose", "blood", "sky", "sea", "grass", "leaf")
    KINDS = ("red", "red", "blue", "blue", "green", "green")

    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("classification")
        rows = [
            f"the {word} of day {n}\t{kind}\n"
            for n in range(40)
            for word, kind in zip(self.WORDS, self.KINDS, strict=True)
        ]
        (folder / "colours.tsv").write_text("text\tlabel\n" + "".join(rows))
        output_dir, base = str(folder / "model"), str(folder / "base")
        settings = {
            "units": 8,
            "tokenizer": "words",
            "learning_rate": 0.03,
            "max_steps": 60,
            "batch_size": 16,
        }
        config = Config(
            task="classification",
            dataset=f"tsv:{folder / 'colours.tsv'}",
            output_dir=output_dir,
            bidirectional=True,
            **settings,
        )
        return SimpleNamespace(
            base=base,
            train=last_line(run("zoo_train", *flags_of(config))),
            evaluate=last_line(run("zoo_evaluate", f"--model_dir={output_dir}")),
            export=last_line(run("zoo_export", f"--model_dir={output_dir}", f"--export_base={base}")),
        )

    def test_is_learned(self, made):
        assert made.train["best"]["accuracy"] == 1
        assert made.train["baseline"]["accuracy"] < 0.6
        assert made.evaluate["task"] == "classification"
        assert {name: made.evaluate[name] for name in ("examples", "accuracy", "macro_f1")} == {
            "examples": 24,
            "accuracy": 1,
            "macro_f1": 1,
        }
        assert made.export["signatures"] == ["classify", "embed", "serving_default"]

    def test_is_served(self, made):
        command = program_command("zoo_serve", "--model_name=c", f"--model_base_path={made.base}", "--port=0")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            address = f"127.0.0.1:{json.loads(server.stdout.readline())['port']}"
            ask = ("zoo_query", "classify", f"--server={address}", "--model=c")
            for word, kind in zip(self.WORDS, self.KINDS, strict=True):
                answer = last_line(run(*ask, "--json", f"--text=the {word} of day 7"))
                assert answer["label"] == kind
                assert sorted(answer["probabilities"]) == ["blue", "green", "red"]
                assert sum(answer["probabilities"].values()) == pytest.approx(1)
            shown = run(*ask, "--text=the sky").stdout.splitlines()
            assert shown[0].endswith("%  blue")
            check_classify_request(address, self.WORDS, self.KINDS)
            embed = ("zoo_query", "embed", f"--server={address}", "--model=c")
            sky, again, grass = (run(*embed, f"--text=the {word}") for word in ("sky", "sky", "grass"))
            assert last_line(sky)["embedding"] == last_line(again)["embedding"]
            assert last_line(sky)["embedding"] != last_line(grass)["embedding"]
            assert sky.stdout.startswith(f"{len(last_line(sky)['embedding'])} numbers: ")
            unlike = run("zoo_query", "score", f"--server={address}", "--model=c", "--text=a")
            assert unlike.returncode == 1
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE) == 0


def check_classify_request(address, words, kinds):
    """TensorFlow Serving's own request, with the signature's name and examples, alone or with a context."""
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "c", "classify"
    request.input.example_list.examples.extend(example(f"the {word}") for word in words)
    with grpc.insecure_channel(address) as channel:
        classify = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify
        answer = classify(request, timeout=DEADLINE)
        assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (1, "classify")
        assert len(answer.result.classifications) == len(words)
        for found, kind in zip(answer.result.classifications, kinds, strict=True):
            assert sorted(each.label for each in found.classes) == ["blue", "green", "red"]
            assert max(found.classes, key=lambda each: each.score).label == kind
            assert sum(each.score for each in found.classes) == pytest.approx(1)

        with_context = classification_pb2.ClassificationRequest(model_spec=request.model_spec)
        together = with_context.input.example_list_with_context
        together.context.CopyFrom(example("the grass"))
        together.examples.extend([tf.train.Example(), example("the sky")])
        found = classify(with_context, timeout=DEADLINE).result.classifications
        best = [max(each.classes, key=lambda each: each.score).label for each in found]
        assert best == ["green", "blue"]
