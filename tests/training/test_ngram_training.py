"""N-gram models through the programs: one pass of counting, and figures like any other model's."""

import json

import numpy as np
import pytest
import tensorflow as tf
from oracle_ngrams import BEGINNING, KneserNey
from tiny import flags_of, prose, tiny

from serving import export
from serving.program import UserError
from training import evaluate, train
from training.config import Config, make_config
from zoo.model_directory import load_model

NGRAM = {"model": "ngram", "tokenizer": "whitespace", "order": 3, "discount_fallback": "0.5,1,1.5"}
ORDER = 3
TEXTS = {
    "train": prose(400),
    "validation": prose(60, seed=2),
    "test": "so is a rose\n\nred and\n" + prose(80, 3),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("ngram")
    for split, text in TEXTS.items():
        (folder / f"{split}.txt").write_text(text)
    paths = {f"{split}_path": str(folder / f"{split}.txt") for split in TEXTS}
    return tiny(folder, **{**NGRAM, **paths, "dataset": "text"})


@pytest.fixture(scope="module")
def result(config):
    return train.train(config)


def test_training_is_counting(result):
    assert result["steps"] == result["best"]["step"] == 0
    assert {"tokens", "nats_per_token", "perplexity", "bits_per_character"} < set(result["best"])
    assert result["best"]["nats_per_token"] < result["baseline"]["nats_per_token"]


def test_the_perplexity_is_that_of_the_definition(config, result, run_program):
    code, out, _ = run_program(evaluate, f"--model_dir={config.output_dir}", "--split=test")
    assert code == 0
    metrics = json.loads(out)
    assert list(metrics)[:2] == ["task", "split"]
    tokenizer = load_model(config.output_dir).tokenizer

    def sentences(text):
        lines = tokenizer.tokenize(tf.constant(text.split("\n")[:-1])).to_list()
        assert not any(tokenizer.boundary_id in line for line in lines)
        return lines

    oracle = KneserNey(sentences(TEXTS["train"]), ORDER, range(tokenizer.vocabulary_size))
    nats, tokens = 0.0, 0
    for words in sentences(TEXTS["test"]):
        ids = [BEGINNING, *words, tokenizer.boundary_id]
        for place in range(1, len(ids)):
            history = tuple(ids[max(place - ORDER + 1, 0) : place])
            nats -= np.log(oracle.probability(ids[place], history))
            tokens += 1
    assert metrics["tokens"] == tokens
    assert metrics["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-5)
    bits = nats / np.log(2) / len(TEXTS["test"])
    assert metrics["bits_per_character"] == pytest.approx(bits, rel=1e-5)


def test_the_same_command_again_counts_nothing(config, result, run_program, monkeypatch):
    monkeypatch.setattr("zoo.ngram.count", lambda *_: pytest.fail("counted again"))
    code, out, _ = run_program(train, *flags_of(config))
    assert (code, json.loads(out)) == (0, result)


def test_a_kill_before_the_checkpoint_does_no_harm(config, result):
    """The weights were written, the checkpoint was not."""
    for file in (train.Path(config.output_dir) / "checkpoints").iterdir():
        file.unlink()
    assert train.train(config) == result


def test_exported_by_the_program(config, result, run_program, tmp_path):
    code, out, _ = run_program(export, f"--model_dir={config.output_dir}", f"--export_base={tmp_path}")
    assert code == 0
    written = json.loads(out)
    assert {"beam", "generate", "score", "start", "step"} < set(written["signatures"])


def test_texts_of_their_own(tmp_path):
    result = train.train(tiny(tmp_path, **NGRAM, text_mode="lines"))
    model = load_model(result["model_dir"])
    assert model.separate_texts
    assert np.isfinite(result["best"]["perplexity"])


def test_the_preset():
    config = make_config("kneser_ney", {})
    assert (config.model, config.order, config.prune, config.across_lines) == ("ngram", 5, "", False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discount_fallback": ""}, "no Kneser-Ney discounts"),
        ({"prune": "0,2,1"}, "pruning thresholds [0, 2, 1]: none may be lower"),
        ({"across_lines": True, "text_mode": "lines"}, "--across_lines: there is nothing across"),
        ({"text": "a rose tulip\n" * 9 + "dahlia", "closed_vocabulary": True}, "is not finite"),
    ],
    ids=str,
)
def test_what_cannot_be_counted(settings, message, run_program, tmp_path):
    settings = {**NGRAM, **settings}
    text = settings.pop("text", None)
    code, out, err = run_program(train, *flags_of(tiny(tmp_path, text, **settings)))
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 0}, "--order=0: must be at least 1"),
        ({"order": 13}, "--order=13: must be below 13"),
        ({"prune": "0,x"}, "--prune=0,x: expected numbers with commas between them"),
        ({"discount_fallback": "0.5"}, "--discount_fallback=0.5: expected three numbers"),
        ({"task": "classification"}, "--model=ngram: there is none of --task=classification"),
        ({"initialize_from": "runs/other"}, "--initialize_from: n-grams are counted anew"),
    ],
    ids=str,
)
def test_settings_that_are_wrong(settings, message):
    with pytest.raises(UserError, match=message):
        Config(**{**NGRAM, **settings})
