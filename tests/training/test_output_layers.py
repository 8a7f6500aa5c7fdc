"""zoo-train with each output layer."""

import json

import pytest
from output_layers import OPTIONS, quickly
from tiny import flags_of, tiny

from training import evaluate, train


def configured(folder, name, **settings):
    options = OPTIONS.get(name, "")
    return tiny(folder, tokenizer="words", output_layer=name, output_options=options, **settings)


@pytest.mark.parametrize("name", quickly("blackout"))
@pytest.mark.slow
def test_it_learns_and_is_evaluated(name, run_program, tmp_path):
    config = configured(tmp_path, name, learning_rate=0.03, max_steps=27)
    code, out, err = run_program(train, *flags_of(config))
    assert code == 0
    assert "loss=" in err
    assert ("ppl=" in err) == (name not in ("nce", "blackout"))  # whose losses are no cross-entropy
    result = json.loads(out)
    assert result["skipped_steps"] == 0
    history = [json.loads(line) for line in (tmp_path / "model/metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [9, 18, 27]
    assert history[-1]["perplexity"] < history[0]["perplexity"]
    code, out, _ = run_program(evaluate, f"--model_dir={config.output_dir}", "--split=validation")
    assert code == 0
    assert json.loads(out)["nats_per_token"] == pytest.approx(result["best"]["nats_per_token"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sampled", "maxent"])
def test_a_resumed_run_is_the_same(name, tmp_path, outcome):
    """Random numbers of the samples, and the words before, are part of what goes on."""
    for folder, steps in (("whole", (16,)), ("parts", (7, 16))):
        (tmp_path / folder).mkdir()
        for number in steps:
            train.train(configured(tmp_path / folder, name, max_steps=number, schedule="constant"))
    whole, parts = (outcome(tmp_path / folder / "model") for folder in ("whole", "parts"))
    last = "step-000000016.safetensors"
    assert whole[last] == parts[last]
    assert "random/0" in whole[last] or "state/history" in whole[last]


def test_complaints(run_program, tmp_path):
    def complaint(**settings):
        code, out, err = run_program(train, *flags_of(tiny(tmp_path, tokenizer="words", **settings)))
        assert (code, out) == (1, "")
        return err.splitlines()[-1]

    assert "AdaptiveSoftmax has no vector" in complaint(output_layer="adaptive", tie_embeddings=True)
    message = complaint(output_layer="adaptive", output_options="cutoffs=5/900")
    assert "cutoffs=5/900: must ascend" in message
    assert "samples=0" in complaint(output_layer="sampled", output_options="samples=0")
