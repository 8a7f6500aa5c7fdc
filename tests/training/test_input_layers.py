"""zoo-train with a character CNN."""

import json

import pytest
from tiny import flags_of, tiny

from serving.program import UserError
from training import evaluate, train
from zoo.model_directory import load_model


def configured(folder, **settings):
    options = {"input_layer": "character_cnn", "input_options": "character_size=4,filters=4/4/4"}
    return tiny(folder, **{"tokenizer": "words", **options, **settings})


def test_it_learns_is_loaded_and_is_evaluated(run_program, tmp_path):
    config = configured(tmp_path, learning_rate=0.03, max_steps=27)
    code, out, _ = run_program(train, *flags_of(config))
    assert code == 0
    result = json.loads(out)
    history = [json.loads(line) for line in (tmp_path / "model/metrics.jsonl").read_text().splitlines()]
    assert history[-1]["perplexity"] < history[0]["perplexity"]
    assert load_model(config.output_dir).embedding.filters == [4, 4, 4]
    code, out, _ = run_program(evaluate, f"--model_dir={config.output_dir}", "--split=validation")
    assert code == 0
    assert json.loads(out)["nats_per_token"] == pytest.approx(result["best"]["nats_per_token"], rel=1e-5)


@pytest.mark.slow
def test_a_resumed_run_is_the_same(tmp_path, outcome):
    for folder, steps in (("whole", (8,)), ("parts", (3, 8))):
        (tmp_path / folder).mkdir()
        for number in steps:
            train.train(configured(tmp_path / folder, max_steps=number, schedule="constant"))
    whole, parts = (outcome(tmp_path / folder / "model") for folder in ("whole", "parts"))
    last = "step-000000008.safetensors"
    assert whole[last] == parts[last]
    assert "character_cnn/kernel_3" in whole[last]


def test_complaints(run_program, tmp_path):
    def complaint(**settings):
        code, out, err = run_program(train, *flags_of(configured(tmp_path, **settings)))
        assert (code, out) == (1, "")
        return err.splitlines()[-1]

    assert "--input_layer=character_cnn has no vector a word" in complaint(tie_embeddings=True)
    assert "filters=4/x: expected" in complaint(input_options="filters=4/x")
    known = "CharacterCNN has activation, character_size, filters, highways, longest"
    with pytest.raises(UserError, match=rf"--input_options=widths=3.0: {known}"):
        configured(tmp_path, input_options="widths=3")
    with pytest.raises(UserError, match=r"--input_options=size=3.0: Embedding has no options"):
        configured(tmp_path, input_layer="embedding", input_options="size=3")
