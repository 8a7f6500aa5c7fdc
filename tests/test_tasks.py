"""Every task from raw data to the answers of a server: trained, evaluated, exported, served, queried."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess

import grpc
import pytest
import tensorflow as tf
from tiny import DEADLINE, program_command

from serving import query
from serving.export import export
from serving.messages import classification_pb2, prediction_service_pb2_grpc
from training import evaluate
from training.config import make_config
from training.train import train
from zoo.model_directory import load_model
from zoo.models.classifier import example

pytestmark = pytest.mark.slow

SMALL = {"units": 16, "embedding_size": 8, "dropout": 0.0, "learning_rate": 0.02, "batch_size": 16}

WORDS = {"DET": ["the", "a"], "NOUN": ["dog", "cat", "bird"], "VERB": ["sees", "hears"]}
PATTERN = ("DET", "NOUN", "VERB", "DET", "NOUN")


def sentences(count):
    """Sentences of the pattern, in all combinations of words, one after the other."""
    for number in range(count):
        yield [
            (WORDS[tag][(number // (place + 1)) % len(WORDS[tag])], tag) for place, tag in enumerate(PATTERN)
        ]


@contextlib.contextmanager
def served(config, folder):
    """Trains, exports and serves; gives the training's result and the server's address."""
    result = train(config)
    export(load_model(config.output_dir), folder / "base")
    command = program_command(
        "zoo_serve", "--model_name=m", f"--model_base_path={folder / 'base'}", "--port=0"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield result, f"127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE) == 0


@pytest.fixture
def ask(run_program):
    """Runs zoo-query; gives what people see of its answer, and the JSON line."""

    def ask(address, command, *flags):
        code, out, err = run_program(query, command, f"--server={address}", "--model=m", *flags)
        assert (code, err) == (0, "")
        *shown, last = out.splitlines()
        return shown, json.loads(last)

    return ask


def test_classification(tmp_path, ask, run_program):
    """Colours by a word that tells them."""
    kinds = {"rose": "red", "blood": "red", "sky": "blue", "sea": "blue", "grass": "green", "leaf": "green"}
    rows = [f"the {word} of day {day}\t{kind}\n" for day in range(40) for word, kind in kinds.items()]
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(rows))
    given = {
        "task": "classification",
        "dataset": f"tsv:{tmp_path / 'a.tsv'}",
        "output_dir": str(tmp_path / "model"),
    }
    with served(make_config(None, {**SMALL, **given, "epochs": 4}), tmp_path) as (result, address):
        assert result["best"]["accuracy"] == 1
        assert result["baseline"]["accuracy"] < 0.6
        code, out, _ = run_program(evaluate, f"--model_dir={tmp_path / 'model'}")
        *table, line = out.splitlines()
        assert table[0].split() == ["blue", "green", "red"]
        figures = {"task": "classification", "examples": 24, "accuracy": 1, "macro_f1": 1}
        assert (code, {name: json.loads(line)[name] for name in figures}) == (0, figures)
        for word, kind in kinds.items():
            shown, answer = ask(address, "classify", f"--text=the {word} of day 7")
            assert answer["label"] == kind
            assert sorted(answer["probabilities"]) == ["blue", "green", "red"]
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
            assert shown[0].endswith(f"%  {kind}")
        signatures = load_model(str(tmp_path / "model")).signatures()
        assert sorted(signatures) == ["classify", "embed", "serving_default"]
        check_classify_request(address, kinds)
        shown, sky = ask(address, "embed", "--text=the sky")
        assert shown[0].startswith(f"{len(sky['embedding'])} numbers: ")
        assert ask(address, "embed", "--text=the sky")[1] == sky
        assert ask(address, "embed", "--text=the grass")[1]["embedding"] != sky["embedding"]
        code, _, err = run_program(query, "score", f"--server={address}", "--model=m", "--text=a")
        assert (code, err.count("\n")) == (1, 1)


def check_classify_request(address, kinds):
    """TensorFlow Serving's own request, with the signature's name and examples, alone or with a context."""
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "classify"
    request.input.example_list.examples.extend(example(f"the {word}") for word in kinds)
    with grpc.insecure_channel(address) as channel:
        classify = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify
        answer = classify(request, timeout=DEADLINE)
        assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (1, "classify")
        assert len(answer.result.classifications) == len(kinds)
        for found, kind in zip(answer.result.classifications, kinds.values(), strict=True):
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


def test_tagging(tmp_path, ask, run_program):
    rows = ["".join(f"{word}\t{tag}\n" for word, tag in sentence) for sentence in sentences(120)]
    (tmp_path / "a.conll").write_text("\n".join(rows))
    given = {
        "task": "tagging",
        "dataset": f"conll:{tmp_path / 'a.conll'}",
        "output_dir": str(tmp_path / "model"),
    }
    config = make_config(None, {**SMALL, **given, "character_units": 4, "epochs": 4})
    with served(config, tmp_path) as (result, address):
        assert result["best"]["accuracy"] == 1
        code, out, _ = run_program(evaluate, f"--model_dir={config.output_dir}")
        line = json.loads(out.splitlines()[-1])
        assert (code, line["task"], line["accuracy"], line["tokens"]) == (0, "tagging", 1, 60)
        shown, answer = ask(address, "tag", "--text=The dog sees  a bird.")
        assert answer["tokens"] == ["The", "dog", "sees", "a", "bird", "."]
        assert answer["tags"][:5] == list(PATTERN)
        assert answer["starts"] == [0, 4, 8, 14, 16, 20]
        assert answer["ends"] == [3, 7, 12, 15, 20, 21]
        assert all(0 < score <= 1 for score in answer["scores"])
        for word, tag in zip(answer["tokens"], answer["tags"], strict=True):
            assert shown[0].index(word) == shown[1].index(tag, shown[0].index(word))
        assert ask(address, "tag", "--text=")[1]["tokens"] == []
        long = "the dog " * 5000
        assert len(ask(address, "tag", f"--text={long}")[1]["tags"]) == 10_000
        mixed = "\u05e9\u05dc\u05d5\u05dd cafe\u0301"
        assert ask(address, "tag", f"--text={mixed}")[1]["tokens"] == mixed.split()


def test_translation(tmp_path, ask, run_program):
    words = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four"}
    pairs = [(a, b) for a in words for b in words] * 6
    (tmp_path / "a.de").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    (tmp_path / "a.en").write_text("".join(f"{words[a]} {words[b]}\n" for a, b in pairs))
    given = {
        "task": "translation",
        "dataset": f"parallel:{tmp_path / 'a.de'},{tmp_path / 'a.en'}",
        "output_dir": str(tmp_path / "model"),
        "tokenizer": "words",
    }
    with served(make_config(None, {**SMALL, **given, "epochs": 20}), tmp_path) as (result, address):
        assert result["best"]["nats_per_token"] < 0.1
        code, out, _ = run_program(evaluate, f"--model_dir={tmp_path / 'model'}")
        line = json.loads(out.splitlines()[-1])
        assert (code, line["task"], line["exact_match"]) == (0, "translation", 1)
        assert line["chrf"] == pytest.approx(100)
        assert 0 <= line["bleu"] <= 100
        shown, answer = ask(address, "translate", "--text=drei vier", "--beam_width=2")
        assert shown == [answer["translation"]] == ["three four"]
        assert -1 < answer["log_prob"] < 0
        assert (
            ask(address, "translate", "--text=drei vier", "--max_new_tokens=1")[1]["translation"] == "three"
        )
        code, _, err = run_program(
            query, "translate", f"--server={address}", "--model=m", "--text=a", "--beam_width=99"
        )
        assert code == 1
        assert "beam_width must be between 1 and 32" in err


def test_reading(tmp_path, ask, run_program):
    people, places = ("Mary", "John", "Ada"), ("garden", "kitchen", "caf\u00e9")
    moves = [f"{person} went to the {place}." for person in people for place in places]
    rows = [
        f"{first} {second}\tWhere is {person}?\t{(second if person in second else first).split()[-1][:-1]}\n"
        for first in moves
        for second in moves
        for person in sorted({first.split()[0], second.split()[0]})
    ]
    (tmp_path / "a.tsv").write_text("context\tquestion\tanswer\n" + "".join(rows))
    given = {"task": "reading", "dataset": f"tsv:{tmp_path / 'a.tsv'}", "output_dir": str(tmp_path / "model")}
    with served(make_config(None, {**SMALL, **given, "epochs": 8}), tmp_path) as (result, address):
        assert result["best"]["accuracy"] > result["baseline"]["accuracy"]
        code, out, _ = run_program(evaluate, f"--model_dir={tmp_path / 'model'}")
        line = json.loads(out.splitlines()[-1])
        assert (code, line["task"], line["examples"]) == (0, "reading", result["best"]["examples"])
        assert line["exact_match"] >= result["best"]["accuracy"]  # where the word comes twice, both are right
        assert line["f1"] >= line["exact_match"]
        context = "John went to the caf\u00e9. Mary went to the garden."
        shown, answer = ask(address, "answer", f"--context={context}", "--question=Where is Mary?")
        assert context.encode()[answer["start"] : answer["end"]].decode() == answer["answer"]
        assert shown == [f"{answer['answer']}  ({answer['score']:.0%} sure)"]


def test_answers_of_a_closed_set(tmp_path, ask):
    story = "1 Mary is {}.\n2 Is Mary in? \t{}\t1\n"
    stories = [story.format(*pair) for pair in (("in", "yes"), ("out", "no"))] * 30
    (tmp_path / "qa.txt").write_text("".join(stories))
    given = {
        "task": "reading",
        "dataset": f"babi:{tmp_path / 'qa.txt'}",
        "output_dir": str(tmp_path / "model"),
    }
    with served(make_config(None, {**SMALL, **given, "epochs": 8}), tmp_path) as (result, address):
        assert result["best"]["accuracy"] == 1
        _, answer = ask(address, "answer", "--context=Mary is out.", "--question=Is Mary in?")
        assert (answer["answer"], answer["start"], answer["end"]) == ("no", -1, -1)
