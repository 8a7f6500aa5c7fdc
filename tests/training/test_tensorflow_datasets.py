"""A data set of TensorFlow Datasets' kind, made on the spot, without a network."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from opened import complaint, records


class MadeUpNews(tfds.core.GeneratorBasedBuilder):
    """Headlines with a topic; train and test."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="short"), tfds.core.BuilderConfig(name="long")]  # noqa: RUF012

    def _info(self):
        label = tfds.features.ClassLabel(names=["sport", "science"])
        features = {"headline": tfds.features.Text(), "topic": label, "stars": tfds.features.Scalar(np.int64)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples("train", 20), "test": self._generate_examples("test", 4)}

    def _generate_examples(self, split, count=0):
        for n in range(count):
            text = f"{self.builder_config.name} {split} {n}"
            yield n, {"headline": text, "topic": n % 2, "stars": n % 5}


@pytest.fixture
def settings(tmp_path):
    return {
        "task": "classification",
        "text_column": "headline",
        "label_column": "topic",
        "data_dir": str(tmp_path),
        "validation_fraction": 0.25,
    }


def test_splits_are_its_own_and_what_is_lacking_comes_from_training(settings):
    parts = {
        split: records("tfds:made_up_news:long", split, **settings)
        for split in ("train", "validation", "test")
    }
    assert [len(part) for part in parts.values()] == [15, 5, 4]
    assert sorted(parts["test"]) == sorted((f"long test {n}", ("sport", "science")[n % 2]) for n in range(4))
    held_out = {text for text, _ in parts["validation"]}
    assert held_out | {text for text, _ in parts["train"]} == {f"long train {n}" for n in range(20)}
    again = records("tfds:made_up_news:long", "validation", **settings)
    assert again == parts["validation"]


def test_numbers_become_text(settings):
    rows = records("tfds:made_up_news:short", "test", **{**settings, "label_column": "stars"})
    assert sorted(rows) == [(f"short test {n}", str(n)) for n in range(4)]


def test_what_is_wrong(settings, monkeypatch):
    wrong = {**settings, "label_column": "label"}
    assert "no field 'label' among headline, stars, topic" in complaint("tfds:made_up_news:short", **wrong)
    assert "tfds:nowhere" in complaint("tfds:nowhere", **settings)
    assert "no field there holds" in complaint("tfds:made_up_news", **{**settings, "task": "tagging"})
    assert "needs a name" in complaint("tfds", train_path="x", **settings)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "pip install 'rnn-zoo[tfds]'" in complaint("tfds:made_up_news:short", **settings)
