"""zoo-train as a program: what it prints, and what it says where something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import DEADLINE, flags_of, program_command, prose, tiny

from training import train
from training.datasets import DATASETS, FORMATS


@pytest.fixture
def complaint(run_program, tmp_path):
    """The message of zoo-train, one line, with exit code 1, before any training."""

    def run(text=None, **settings):
        code, out, err = run_program(train, *flags_of(tiny(tmp_path, text, **settings)))
        assert (code, out) == (1, "")
        assert err.count("\n") == 1, err
        assert err.startswith("zoo-train: ")
        return err

    return run


def test_the_last_line_is_the_best_evaluation_and_the_baseline(bigram, run_program, tmp_path):
    code, out, err = run_program(train, *flags_of(tiny(tmp_path)))
    assert code == 0
    assert out.count("\n") == 1
    result = json.loads(out)
    history = [json.loads(line) for line in (tmp_path / "model/metrics.jsonl").read_text().splitlines()]
    assert result["best"] == min(history, key=lambda entry: entry["nats_per_token"])
    assert {name: result[name] for name in ("model_dir", "steps", "skipped_steps")} == {
        "model_dir": str(tmp_path / "model"),
        "steps": 24,
        "skipped_steps": 0,
    }
    assert "baseline" in result
    assert "weights" in err


def test_the_directory_holds_what_it_promises(trained):
    folder = Path(trained.model_dir)
    names = {"config.json", "assets", "checkpoints", "best", "metrics.jsonl", "logs"}
    assert names <= {path.name for path in folder.iterdir()}
    written = json.loads((folder / "config.json").read_text())
    assert written["task"] == "language_model"
    assert written["config"] == vars(trained.config)
    assert set(written["versions"]) >= {"tensorflow", "keras", "tensorflow-text"}
    assert all(version[0].isdigit() for version in written["versions"].values())


class TestComplaints:
    def test_about_no_output_dir(self, complaint):
        assert "--output_dir is needed" in complaint(output_dir="")

    @pytest.mark.parametrize("dataset", ["python_doc", "txt:file"])
    def test_about_an_unknown_data_set_list_the_right_ones(self, complaint, dataset):
        message = complaint(dataset=dataset)
        assert all(name in message for name in (FORMATS if ":" in dataset else [*DATASETS, *FORMATS]))

    def test_about_files(self, complaint, tmp_path):
        missing = tmp_path / "missing.txt"
        assert f"{missing}: no such file" in complaint(dataset=f"text:{missing}")
        assert "text.txt is empty" in complaint("")
        latin = tmp_path / "latin.txt"
        latin.write_bytes("caf\xe9\n".encode("latin1") * 9)
        assert f"{latin}, line 1: not UTF-8" in complaint(dataset=f"text:{latin}")

    def test_about_a_split_without_data(self, complaint):
        assert "the validation split of" in complaint(validation_fraction=0.0)
        assert "has no data" in complaint("x", text_mode="lines")

    def test_about_too_few_tokens(self, complaint):
        assert "--sequence_length=8000" in complaint(sequence_length=8000)

    def test_about_a_vocabulary_without_room(self, complaint):
        assert "vocabulary_size=1" in complaint(vocabulary_size=1)

    def test_about_cell_options(self, complaint):
        assert "activation" in complaint(cell_options="activation=tahn", cell="elman")

    def test_about_a_task_that_needs_more_than_texts(self, complaint):
        message = complaint(task="classification")
        assert "--task=classification needs records with text and label" in message
        assert "have no label" in message

    def test_about_a_label_that_training_lacks(self, complaint, tmp_path):
        paths = {}
        for split, label in (("train", "y"), ("validation", "z")):
            path = tmp_path / f"{split}.tsv"
            path.write_text(f"text\tlabel\na\tx\nb\t{label}\n")
            paths[f"{split}_path"] = str(path)
        message = complaint(task="classification", dataset="tsv", **paths)
        assert message == "zoo-train: no training example has the label z\n"

    def test_about_one_class_and_too_many_words(self, complaint, tmp_path):
        (tmp_path / "one.tsv").write_text("a\tx\n" * 30)
        (tmp_path / "long.tsv").write_text(f"a\tx\n{'word ' * 10_000}\ty\n" * 20)
        table = {"task": "classification", "text_column": "1", "label_column": "2", "tokenizer": "words"}
        message = complaint(dataset=f"tsv:{tmp_path / 'one.tsv'}", **table)
        assert "the only label in training is 'x'" in message
        message = complaint(dataset=f"tsv:{tmp_path / 'long.tsv'}", **table)
        assert "an example of" in message

    def test_about_regularizers_and_initializers_that_a_cell_cannot_have(self, complaint):
        assert "IndRNN has no recurrent kernel" in complaint(cell="indrnn", weight_drop=0.5)
        assert "Identity" in complaint(cell="indrnn", recurrent_initializer="identity")

    def test_about_embeddings_that_cannot_be_tied(self, complaint):
        assert "embedding_size" in complaint(embedding_size=5, tie_embeddings=True)

    def test_about_a_directory_that_cannot_be_written(self, complaint, tmp_path):
        (tmp_path / "file").write_text("in the way")
        for output_dir in (tmp_path / "file", tmp_path / "file" / "model", "/proc/nowhere/model"):
            assert str(output_dir).split("/model")[0] in complaint(output_dir=str(output_dir))

    def test_about_a_line_of_ten_megabytes_that_is_one_example(self, complaint):
        message = complaint(prose(100) + "a" * 10_000_000, text_mode="lines")
        assert "10,000,001 tokens" in message
        assert "--text_mode=stream" in message


@pytest.mark.parametrize("tokenizer", ["characters", "words"])
@pytest.mark.slow
def test_a_vocabulary_of_one_word(run_program, tmp_path, tokenizer):
    text = {"characters": "a" * 400, "words": " so" * 400}[tokenizer]
    config = tiny(tmp_path, text, tokenizer=tokenizer, max_steps=60, evaluate_every=60, learning_rate=0.1)
    code, out, _ = run_program(train, *flags_of(config))
    assert code == 0
    assert json.loads(out)["best"]["perplexity"] == pytest.approx(1.0, abs=0.05)


SMALL_DISK = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from serving import program
from tiny import SpoiledModel
from zoo.models import TASKS
TASKS["language_model"] = SpoiledModel
program.zoo_train()
"""


@pytest.mark.slow
def test_a_full_disk_ends_the_training_and_spares_the_older_checkpoint(tmp_path, bigram, outcome):
    """No file may grow beyond a limit that a checkpoint exceeds, which the system reports much the same."""
    for name, steps in (("whole", 24), ("parts", 9)):
        (tmp_path / name).mkdir()
        train.train(tiny(tmp_path / name, prose(150), max_steps=steps, schedule="constant"))
    config = tiny(tmp_path / "parts", schedule="constant")
    model_dir = tmp_path / "parts" / "model"
    before = {path: path.read_bytes() for path in model_dir.rglob("*.safetensors")}
    limit = max(len(content) for content in before.values()) - 1
    assert (model_dir / "cache/worker-0/train.tokens").stat().st_size < limit
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, str(limit), *flags_of(config)],
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("zoo-train: ")
    assert "File too large" in last
    assert str(model_dir) in last
    assert "checkpoints" in last
    assert before == {path: path.read_bytes() for path in model_dir.rglob("*.safetensors")}
    train.train(config)
    assert outcome(model_dir) == outcome(tmp_path / "whole" / "model")


@pytest.mark.parametrize("stage", ["importing", "training"])
def test_ctrl_c(tmp_path, stage):
    command = program_command("zoo_train", *flags_of(tiny(tmp_path, max_steps=100_000)))
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1" if stage == "importing" else ""}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    end = time.monotonic() + DEADLINE
    while stage == "importing" and "keras." not in process.stderr.readline():  # a line for each module
        assert process.poll() is None
    while stage == "training" and not (tmp_path / "model/checkpoints/step-000000004.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    said = {"importing": "zoo-train: interrupted", "training": "zoo-train: stopped by SIGINT at step "}
    assert err.splitlines()[-1].startswith(said[stage])
