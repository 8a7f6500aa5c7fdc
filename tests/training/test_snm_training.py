"""Sparse non-negative matrix models through the programs: learned before the first step, then any model."""

import json

import numpy as np
import pytest
from tiny import flags_of, prose, tiny

from serving.program import UserError
from training import evaluate, train
from training.config import Config, make_config
from zoo.model_directory import load_model

SNM = {"model": "snm", "tokenizer": "whitespace", "order": 3, "skip_words": 2, "tied_skips": 3}
TEXTS = {"train": prose(400), "validation": prose(60, seed=2), "test": "so is a rose\n\nred and\n"}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("snm")
    for split, text in TEXTS.items():
        (folder / f"{split}.txt").write_text(text)
    paths = {f"{split}_path": str(folder / f"{split}.txt") for split in TEXTS}
    return tiny(folder, **{**SNM, **paths, "dataset": "text"}, epochs=2, learning_rate=0.1)


@pytest.fixture(scope="module")
def result(config):
    return train.train(config)


def test_training_is_counting_and_adjusting(result):
    assert result["steps"] == result["best"]["step"] == 0
    assert {"tokens", "nats_per_token", "perplexity", "bits_per_character"} < set(result["best"])
    assert 1 < result["best"]["perplexity"] < np.inf


def test_the_perplexity_is_that_of_the_model_in_numpy(config, result, run_program):
    code, out, _ = run_program(evaluate, f"--model_dir={config.output_dir}", "--split=test")
    assert code == 0
    metrics = json.loads(out)
    model = load_model(config.output_dir)
    ids = [model.tokenizer.boundary_id, *model.tokenizer.tokenize([TEXTS["test"]]).values.numpy()]
    log_prob = model.skip_grams.model().log_probs(np.array(ids))
    assert metrics["tokens"] == len(ids) - 1 == 9
    assert metrics["perplexity"] == pytest.approx(np.exp(-log_prob.mean()), rel=1e-5)


def test_the_same_command_again_learns_nothing(config, result, run_program, monkeypatch):
    monkeypatch.setattr("zoo.models.snm_model.adjust", lambda *_: pytest.fail("learned again"))
    code, out, _ = run_program(train, *flags_of(config))
    assert (code, json.loads(out)) == (0, result)


def test_other_epochs_are_another_model(config, result, run_program):
    code, _, err = run_program(train, *flags_of(config), "--epochs=3")
    assert code == 1
    assert "--epochs=3 (was 2)" in err.splitlines()[-1]


def test_its_own_defaults():
    config = make_config(None, {"model": "snm", "order": 3})
    assert (config.epochs, config.learning_rate, config.skip_words) == (2, 0.1, 0)
    assert make_config(None, {"model": "snm", "epochs": 7}).epochs == 7
    assert make_config(None, {}).epochs == 10


def test_the_preset():
    config = make_config("snm", {})
    assert (config.model, config.order, config.skip_words, config.skips) == ("snm", 5, 3, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 0}, "--order=0: must be at least 1"),
        ({"order": 1}, "--skip_words=2: must be at most --order=1"),
        ({"skips": -1}, "--skips=-1: must be at least 0"),
        ({"tied_skips": 1000}, "--tied_skips=1000: must be below 33"),
        ({"task": "classification"}, "--model=snm: there is none of --task=classification"),
        ({"initialize_from": "runs/other"}, "--initialize_from: n-grams are counted anew"),
    ],
    ids=str,
)
def test_settings_that_are_wrong(settings, message):
    with pytest.raises(UserError, match=message):
        Config(**{**SNM, **settings})


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("a rose is red", {"order": 1, "skip_words": 0}),
        ("a rose is red\n" * 2, {"order": 12, "skip_words": 12}),
    ],
    ids=str,
)
def test_tiny_texts(text, settings, tmp_path):
    result = train.train(tiny(tmp_path, text, **{**SNM, **settings}, validation_fraction=0.3))
    assert np.isfinite(result["best"]["perplexity"])


def test_across_the_lines_of_separate_texts(run_program, tmp_path):
    config = tiny(tmp_path, **SNM, across_lines=True, text_mode="lines")
    code, out, err = run_program(train, *flags_of(config))
    assert (code, out) == (1, "")
    assert "--across_lines: there is nothing across" in err.splitlines()[-1]
