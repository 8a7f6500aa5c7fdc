"""Sparse non-negative matrices as task models, beyond what all count-based ones are tested for."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from counted_models import BOUNDARY, SNM, learned

from zoo.model_directory import load_model, tensors_of, write_model, write_tensors


@pytest.mark.parametrize(
    ("options", "possible"),
    [({}, True), ({"order": 2, "skip_words": 2, "skips": 0, "closed_vocabulary": True}, False)],
    ids=["open", "closed"],
)
def test_words_not_in_training(options, possible):
    score = learned({**SNM, **options}).signatures()["score"]
    log_prob = score(tf.constant(["a rose", "a tulip"]))["log_prob"].numpy()
    assert np.isfinite(log_prob).tolist() == [True, possible]


@pytest.mark.parametrize("text", ["a\n", "\n", "a rose is red\n"], ids=repr)
def test_a_text_of_one_sentence(text):
    model = learned({**SNM, "order": 12, "skip_words": 12, "skips": 2, "tied_skips": 32}, text)
    assert np.isfinite(model.signatures()["score"](tf.constant(["", text, "a rose"]))["log_prob"]).all()


def test_more_remote_words_than_there_are_in_n_grams():
    with pytest.raises(ValueError, match="skip-grams go on from 4 words, n-grams have only 3"):
        learned({**SNM, "skip_words": 4})


def test_a_model_directory_holds_what_skip_grams_there_are(tmp_path):
    model = learned(SNM)
    write_model(tmp_path, model, {"task": "language_model", "config": {}, "model": SNM})
    write_tensors(tmp_path / "best" / "weights.safetensors", tensors_of(model.weights), {})
    again = load_model(tmp_path)
    assert again.skip_grams.chains == model.skip_grams.chains
    assert again.skip_grams.boundary == BOUNDARY
