"""Starting from a trained model: which weights are taken, and layers that are unfrozen one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.program import UserError
from training.config import make_config
from training.train import train
from training.transfer import start_from
from zoo.model_directory import load_model, read_tensors

SMALL = {"units": 8, "embedding_size": 8, "batch_size": 8, "tokenizer": "words", "dropout": 0.0}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("transfer") / "a.tsv"
    rows = [
        f"the {word} of day {n}\t{kind}\n"
        for n in range(20)
        for word, kind in (("sky", "blue"), ("sun", "red"))
    ]
    path.write_text("text\tlabel\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def language_model(table):
    given = {**SMALL, "dataset": f"tsv:{table}", "output_dir": str(table.parent / "lm"), "max_steps": 6}
    train(make_config(None, given))
    return table.parent / "lm"


def classifier(table, name, **settings):
    given = {**SMALL, "task": "classification", "dataset": f"tsv:{table}", "bidirectional": False, **settings}
    return make_config(None, {**given, "output_dir": str(table.parent / name)})


def values(model):
    return {variable.path: variable.numpy() for variable in model.variables}


def test_a_classifier_starts_from_a_language_model(table, language_model, capsys):
    config = classifier(table, "frozen", initialize_from=str(language_model), learning_rate=0.0, max_steps=1)
    train(config)
    source, model = load_model(language_model), load_model(config.output_dir)
    assert model.tokenizer.pieces == source.tokenizer.pieces
    ours, theirs = values(model), values(source)
    shared = [path for path in ours if path.startswith(("embedding", "stack"))]
    assert len(shared) == 4
    for path in shared:
        np.testing.assert_array_equal(ours[path], theirs[path])
    assert f"starting from {language_model}: embedding/embeddings, " in capsys.readouterr().err


@pytest.mark.slow
def test_layers_are_unfrozen_one_each_epoch(table, language_model):
    settings = {"initialize_from": str(language_model), "gradual_unfreezing": True, "optimizer": "adamw"}
    steps = -(-36 // 8)
    before = values(load_model(language_model))
    changed = []
    for epochs in (1, 2, 3):
        config = classifier(table, f"epochs_{epochs}", **settings, epochs=epochs)
        assert train(config)["steps"] == epochs * steps
        # The best weights may be those of an earlier epoch, so the last checkpoint's are looked at.
        last = max(Path(config.output_dir, "checkpoints").glob("step-*.safetensors"))
        after = read_tensors(last)[0]
        shared = [path for path in before if path.startswith(("embedding", "stack"))]
        changed.append({p.split("/")[0] for p in shared if not np.array_equal(after[p], before[p])})
    assert changed == [set(), {"stack"}, {"stack", "embedding"}]


def test_what_does_not_fit_is_named(table, language_model):
    with pytest.raises(UserError, match=r"embedding/embeddings has the shape .* cell, units, embedding_size"):
        train(classifier(table, "large", initialize_from=str(language_model), embedding_size=9))
    with pytest.raises(
        UserError, match="--tokenizer=characters: the tokenizer of the model to start from is words"
    ):
        train(classifier(table, "characters", initialize_from=str(language_model), tokenizer="characters"))
    tagging = {"task": "tagging", "dataset": "python_source", "output_dir": str(table.parent / "tagger")}
    with pytest.raises(UserError, match="no model of --task=tagging starts from another"):
        train(make_config(None, {**tagging, "initialize_from": str(language_model)}))
    with pytest.raises(UserError, match=r"--gradual_unfreezing: name the model .* with --initialize_from"):
        train(classifier(table, "nothing_to_freeze", gradual_unfreezing=True))


def test_models_without_a_name_in_common(language_model):
    class Other:
        variables = trainable_variables = ()

    with pytest.raises(UserError, match="no weight there has the name of one here"):
        start_from(load_model(language_model), Other(), "x")
