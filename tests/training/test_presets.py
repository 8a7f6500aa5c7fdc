"""The presets of language models: each trains, cut down; some have as many weights as their papers say."""

import keras
import pytest
from tiny import prose, tiny

from training.config import make_config
from training.presets import PRESETS
from training.train import train
from zoo.models.language_model import LanguageModel
from zoo.text import Whitespace

OF_LANGUAGE_MODELS = sorted(name for name, preset in PRESETS.items() if preset["task"] == "language_model")
# What a tiny run needs, whatever a preset says: the sizes of `tiny`, and text for all splits.
CUT = ("dataset", "output_dir", "units", "batch_size", "sequence_length", "max_steps", "evaluate_every")


def cut_down(preset, folder):
    small = vars(tiny(folder, prose(300), max_steps=2, evaluate_every=2))
    sizes = {"embedding_size": 8, "warmup_steps": 0, "evaluation_batch_size": 1, "text_mode": "stream"}
    if preset.get("last_units"):
        sizes["last_units"] = 8
    for name in ("rank", "projection"):
        if f"{name}=" in preset.get("cell_options", ""):
            sizes["cell_options"] = f"{name}=2"
    if "filters=" in preset.get("input_options", ""):
        sizes["input_options"] = "filters=2/2,highways=2"
    return {**preset, **{name: small[name] for name in CUT}, **sizes, "validation_fraction": 0.2}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_LANGUAGE_MODELS)
def test_trains(name, tmp_path):
    given = cut_down(PRESETS[name], tmp_path)
    result = train(make_config(None, given))
    assert result["steps"] == (2 if PRESETS[name].get("model", "recurrent") == "recurrent" else 0)
    assert result["skipped_steps"] == 0
    assert result["best"]["perplexity"] > 1


@pytest.mark.parametrize(
    ("name", "vocabulary", "millions"),
    [
        ("zaremba_medium", 10_000, 19.8),
        ("zaremba_large", 10_000, 66.0),
        ("awd_lstm_ptb", 10_000, 24.2),
        ("awd_lstm_wikitext2", 33_278, 33.6),
        ("mogrifier", 10_000, 24.0),
        ("enwik8_mlstm", 205, 46.0),
    ],
)
def test_has_as_many_weights_as_the_paper_says(name, vocabulary, millions, monkeypatch):
    initializer = keras.initializers.Orthogonal  # which would take long
    monkeypatch.setattr(initializer, "__call__", lambda self, shape, dtype=None: keras.ops.zeros(shape))
    options = {**vars(make_config(name, {})), "cell_options": {}, "separate_texts": False}
    if name == "mogrifier":
        assert PRESETS[name]["cell_options"] == "rounds=5,rank=84"
        options["cell_options"] = {"rounds": 5, "rank": 84}
    pieces = tuple(f" w{index}".encode() for index in range(vocabulary - 2))
    model = LanguageModel._made(Whitespace((b"<unk>", b"\n", *pieces)), options)
    assert model.count_params() / 1e6 == pytest.approx(millions, rel=0.02)
