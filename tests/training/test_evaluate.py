"""zoo-evaluate against the training's own figures, and against the definition of perplexity in NumPy."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny import prose

from training import evaluate
from zoo.model_directory import load_model, read_tensors, write_tensors


@pytest.fixture
def evaluated(run_program, trained):
    def run(*flags, model_dir=trained.model_dir):
        code, out, err = run_program(evaluate, f"--model_dir={model_dir}", *flags)
        assert code == 0, err
        return json.loads(out.splitlines()[-1])

    return run


@pytest.fixture
def complaint(run_program, trained):
    def run(*flags, model_dir=trained.model_dir, code=1):
        got, out, err = run_program(evaluate, f"--model_dir={model_dir}", *flags)
        assert (got, out) == (code, "")
        assert err.count("\n") == 1, err
        assert err.startswith("zoo-evaluate: ")
        return err

    return run


@pytest.fixture
def copied(trained, tmp_path):
    """A model directory to be spoiled."""
    return Path(shutil.copytree(trained.model_dir, tmp_path / "model"))


def split_of(config, start, end):
    text = Path(config.dataset.removeprefix("text:")).read_text()
    return text[int(len(text) * start) : int(len(text) * end)]


def numpy_nats(model, text):
    """-log P of each character: the LSTM's equations, one character after the other."""
    weights = {weight.path.split("/", 1)[-1]: weight.numpy().astype(float) for weight in model.weights}
    named = {path.rsplit("/", 1)[-1]: value for path, value in weights.items() if "lstm" in path}
    embedding = next(value for path, value in weights.items() if path.endswith("embeddings"))
    output = next(value for path, value in weights.items() if path.endswith("output_embedding"))
    bias = next(weight.numpy() for weight in model.weights if weight.path.endswith("head/bias"))
    ids = {piece.decode(): index for index, piece in enumerate(model.tokenizer.pieces)}
    hidden = cell_state = np.zeros(embedding.shape[1])
    previous, nats = model.tokenizer.boundary_id, []
    for character in text:
        gates = embedding[previous] @ named["input_kernel"] + hidden @ named["recurrent_kernel"]
        gates = dict(zip(model.stack.cells[0].GATES, np.split(gates + named["bias"], 4), strict=True))
        sigmoid = {name: 1 / (1 + np.exp(-value)) for name, value in gates.items()}
        cell_state = sigmoid["forget"] * cell_state + sigmoid["input"] * np.tanh(gates["candidate"])
        hidden = sigmoid["output"] * np.tanh(cell_state)
        logits = output @ hidden + bias
        previous = ids[character]
        nats.append(np.log(np.exp(logits).sum()) - logits[previous])
    return nats


def test_is_what_the_training_said(evaluated, trained):
    got = evaluated("--split=validation")
    best = {name: value for name, value in trained.result["best"].items() if name != "step"}
    assert got == {"task": "language_model", "split": "validation", **best}


@pytest.mark.parametrize(("split", "start", "end"), [("validation", 0.8, 0.9), ("test", 0.9, 1.0)])
def test_is_the_perplexity_of_the_whole_split(evaluated, trained, split, start, end):
    text = split_of(trained.config, start, end)
    nats = numpy_nats(load_model(trained.model_dir), text)
    got = evaluated(f"--split={split}")
    assert got["tokens"] == len(text)
    assert got["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert got["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)
    assert got["bits_per_character"] == pytest.approx(np.mean(nats) / math.log(2), rel=1e-5)


def test_in_lanes_each_lane_starts_without_context(evaluated, trained):
    text = split_of(trained.config, 0.8, 0.9)
    model = load_model(trained.model_dir)
    lane = -(-len(text) // 3)
    nats = []
    for start in range(0, len(text), lane):
        # A lane's first character is predicted from the one before it, and the zero state.
        before = text[start - 1] if start else ""
        nats += numpy_nats_from(model, before, text[start : start + lane])
    got = evaluated("--evaluation_batch_size=3")
    assert got["tokens"] == len(text)
    assert got["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-5)


def numpy_nats_from(model, before, text):
    boundary = model.tokenizer.boundary_id
    if before:
        type(model.tokenizer).boundary_id = model.tokenizer.pieces.index(before.encode())
    try:
        return numpy_nats(model, text)
    finally:
        type(model.tokenizer).boundary_id = boundary


def test_other_data(evaluated, trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(prose(100, seed=9))
    nats = numpy_nats(load_model(trained.model_dir), other.read_text())
    got = evaluated("--split=test", "--dataset=text", f"--test_path={other}")
    assert got["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert got["tokens"] == len(nats)


@pytest.fixture
def coarse(copied):
    """A second model of the same tokens: the first, with half of its weights' precision gone."""
    path = copied / "best/weights.safetensors"
    tensors, metadata = read_tensors(path)
    write_tensors(path, {name: np.round(2 * array) / 2 for name, array in tensors.items()}, metadata)
    return copied


def figures(result):
    return {name: value for name, value in result.items() if name not in ("task", "split")}


class TestAdaptation:
    """What it comes to is checked in test_scoring and test_interpolation; here, that flags lead there."""

    @pytest.mark.parametrize(
        "flags",
        [
            ("--cache_size=50", "--cache_weight=0.2", "--cache_flatness=0.1"),
            ("--dynamic_learning_rate=0.1", "--dynamic_statistics=0", "--dynamic_segment=20"),
            ("--dynamic_learning_rate=1e-3", "--dynamic_statistics=4", "--dynamic_segment=20"),
        ],
    )
    def test_changes_the_figures_and_not_their_names(self, evaluated, flags):
        plain, adapted = evaluated(), evaluated(*flags)
        assert list(plain) == list(adapted)
        assert adapted["tokens"] == plain["tokens"]
        assert 1e-3 < abs(adapted["nats_per_token"] - plain["nats_per_token"]) < 1.0

    @pytest.mark.parametrize("flags", [("--cache_size=9", "--cache_weight=0"), ("--dropout_samples=2",)])
    def test_of_nothing_changes_nothing(self, evaluated, flags):
        assert figures(evaluated(*flags)) == pytest.approx(figures(evaluated()), rel=1e-5)

    def test_is_for_continuous_texts_and_language_models(self, run_program, copied, tmp_path):
        def complaint(*flags):
            code, out, err = run_program(evaluate, f"--model_dir={copied}", *flags)
            assert (code, out) == (1, "")
            return err

        written = json.loads((copied / "config.json").read_text())
        written["model"]["separate_texts"] = True
        (copied / "config.json").write_text(json.dumps(written))
        assert "continuous text" in complaint("--text_mode=lines", "--cache_size=5")
        assert "continuous text" in complaint("--text_mode=lines", "--dynamic_learning_rate=1")


class TestInterpolation:
    def test_of_two_is_better_than_each_on_validation(self, evaluated, trained, coarse):
        both = evaluated(f"--interpolate_with={coarse}")
        first, second = evaluated(), evaluated(model_dir=coarse)
        assert second["nats_per_token"] > first["nats_per_token"] + 0.01
        assert both["nats_per_token"] <= first["nats_per_token"] + 1e-7
        assert len(both["interpolation_weights"]) == 2
        assert sum(both["interpolation_weights"]) == pytest.approx(1.0)
        assert both["interpolation_weights"][0] > both["interpolation_weights"][1]
        assert set(both) - set(first) == {"interpolation_weights"}

    def test_takes_the_weights_of_validation_to_other_splits(self, evaluated, trained, coarse):
        validation, test = [
            evaluated(f"--split={split}", f"--interpolate_with={coarse}") for split in ("validation", "test")
        ]
        assert test["interpolation_weights"] == validation["interpolation_weights"]
        text = split_of(trained.config, 0.9, 1.0)
        each = [
            np.exp(np.negative(numpy_nats(load_model(path), text))) for path in (trained.model_dir, coarse)
        ]
        expected = -np.log(np.array(test["interpolation_weights"]) @ np.array(each)).mean()
        assert test["nats_per_token"] == pytest.approx(expected, rel=1e-5)
        assert test["tokens"] == len(text)

    def test_of_lines_in_the_order_of_their_batches(self, evaluated, trained, coarse, tmp_path):
        """Two models of separate texts, whose mixture with one of itself is that model."""
        for folder in (coarse, tmp_path / "lines"):
            shutil.copytree(trained.model_dir, folder, dirs_exist_ok=True)
            written = json.loads((folder / "config.json").read_text())
            written["model"]["separate_texts"] = True
            (folder / "config.json").write_text(json.dumps(written))
        lines = {"model_dir": tmp_path / "lines"}
        plain = evaluated("--text_mode=lines", **lines)
        both = evaluated("--text_mode=lines", f"--interpolate_with={coarse}", **lines)
        assert both.pop("interpolation_weights") == [0.5, 0.5]
        assert figures(both) == pytest.approx(figures(plain), rel=1e-6)

    def test_is_of_models_of_the_same_tokens(self, complaint, copied):
        vocabulary = copied / "assets/vocabulary.json"
        pieces = json.loads(vocabulary.read_text())
        vocabulary.write_text(json.dumps([*pieces[:2], *pieces[:1:-1]]))
        assert "other tokens than" in complaint(f"--interpolate_with={copied}")

    def test_is_of_different_models(self, complaint, trained, tmp_path):
        assert "each model directory once" in complaint(f"--interpolate_with={trained.model_dir}")
        assert "each model directory once" in complaint(f"--interpolate_with={tmp_path},{tmp_path}")

    def test_is_of_model_directories(self, complaint, tmp_path):
        assert f"{tmp_path} is no model directory" in complaint(f"--interpolate_with={tmp_path}")


class TestComplaints:
    def test_about_a_split_without_data(self, complaint):
        assert "--test_fraction" in complaint("--split=test", "--test_fraction=0")

    def test_about_an_unknown_split_list_the_right_ones(self, complaint):
        assert "train|validation|test" in complaint("--split=dev", code=2).replace(", ", "|")

    def test_about_what_is_no_model_directory(self, complaint, tmp_path):
        for folder in (tmp_path, tmp_path / "missing"):
            assert f"{folder} is no model directory" in complaint(model_dir=folder)
        assert "--model_dir is needed" in complaint(model_dir="")

    def test_about_a_training_without_an_evaluation(self, complaint, copied):
        (copied / "best/weights.safetensors").unlink()
        assert "has not reached its first evaluation" in complaint(model_dir=copied)

    @pytest.mark.parametrize("size", [0, 5, 300, -4])
    def test_about_cut_weights(self, complaint, copied, size):
        path = copied / "best/weights.safetensors"
        os.truncate(path, size if size >= 0 else path.stat().st_size + size)
        assert f"{path} is damaged" in complaint(model_dir=copied)

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "{}",
            "null",
            '{"task": "language_model"}',
            '{"task": "x", "config": {}, "model": {}}',
        ],
    )
    def test_about_a_damaged_configuration(self, complaint, copied, content):
        (copied / "config.json").write_text(content)
        assert f"{copied / 'config.json'} is damaged" in complaint(model_dir=copied)

    @pytest.mark.parametrize("part", ["model", "config"])
    def test_about_a_configuration_of_another_version(self, complaint, copied, part):
        written = json.loads((copied / "config.json").read_text())
        written[part] = {"colour": "red"}
        (copied / "config.json").write_text(json.dumps(written))
        assert "of another version" in complaint(model_dir=copied)

    @pytest.mark.parametrize("content", [b"", b'["a"', b"{}", b"[1, 2]"])
    def test_about_a_damaged_vocabulary(self, complaint, copied, content):
        (copied / "assets/vocabulary.json").write_bytes(content)
        assert str(copied) in complaint(model_dir=copied)

    def test_about_a_missing_vocabulary(self, complaint, copied):
        (copied / "assets/vocabulary.json").unlink()
        assert str(copied) in complaint(model_dir=copied)
        (copied / "assets").rmdir()
        assert str(copied) in complaint(model_dir=copied)

    def test_about_weights_of_another_model(self, complaint, copied):
        written = json.loads((copied / "config.json").read_text())
        written["model"]["units"] = 9
        (copied / "config.json").write_text(json.dumps(written))
        message = complaint(model_dir=copied)
        assert "expected" in message
        assert "weights.safetensors" in message

    def test_about_another_kind_of_text(self, complaint):
        assert "--text_mode" in complaint("--text_mode=lines")

    def test_about_ctrl_c(self, run_program, trained, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(tf.data.Dataset, "prefetch", interrupted)
        code, out, err = run_program(evaluate, f"--model_dir={trained.model_dir}")
        assert (code, out, err) == (130, "", "zoo-evaluate: interrupted\n")
