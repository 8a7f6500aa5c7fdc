"""A data set of TensorFlow Datasets' kind, made on the spot, without a network."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from opened import complaint, configured, records

from training.datasets import open_dataset
from zoo.text import Whitespace


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


class MadeUpSentences(tfds.core.GeneratorBasedBuilder):
    """As `lm1b` has them: a sentence each, without the space before it; train and test."""

    VERSION = tfds.core.Version("1.0.0")
    COUNTS = {"train": 40, "test": 6}  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, manager):
        return {split: self._generate_examples(split) for split in self.COUNTS}

    def _generate_examples(self, split):
        for n in range(self.COUNTS[split]):
            yield n, {"text": f"The {split} sentence {n} ."}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """Settings of a prepared data set of four files a split, and the files of the training split."""
    folder = tmp_path_factory.mktemp("sharded")
    builder = tfds.builder("made_up_sentences", data_dir=str(folder / "tfds"))
    in_four = tfds.download.DownloadConfig(num_shards=4)
    builder.download_and_prepare(download_config=in_four)
    files = sorted(folder.rglob("*-train.tfrecord-*"))
    assert len(files) == 4
    return {"data_dir": str(folder), "task": "language_model", "leading_space": True}, files


def of_file(path) -> list[str]:
    """The sentences of one file, by TensorFlow alone."""
    found = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        example = tf.train.Example.FromString(record)
        found.append(example.features.feature["text"].bytes_list.value[0].decode())
    return found


def test_files_are_read_in_order_and_sentences_are_examples(sharded):
    settings, files = sharded
    settings = {**settings, "text_mode": "lines", "validation_fraction": 0.1}
    written = [f" {sentence}" for file in files for sentence in of_file(file)]
    assert len(written) == 40
    for _ in range(2):
        assert records("tfds:made_up_sentences", "train", **settings) == [(text,) for text in written[:36]]
    assert records("tfds:made_up_sentences", "validation", **settings) == [(text,) for text in written[36:]]
    assert len(records("tfds:made_up_sentences", "test", **settings)) == 6


def test_as_a_stream_sentences_are_lines(sharded):
    settings, files = sharded
    written = "".join(f" {sentence}\n" for file in files for sentence in of_file(file))
    settings = {**settings, "text_mode": "stream", "validation_fraction": 0.1}
    dataset = open_dataset(configured("tfds:made_up_sentences", **settings))
    assert dataset.stream
    parts = [records("tfds:made_up_sentences", split, **settings) for split in ("train", "validation")]
    assert "".join(text for part in parts for (text,) in part) == written
    settings |= {"task": "classification", "label_column": "text"}
    assert not open_dataset(configured("tfds:made_up_sentences", **settings)).stream


def test_only_what_is_read_is_opened(sharded, tmp_path):
    """A split is never read whole before its first records come."""
    settings, files = sharded
    shutil.copytree(settings["data_dir"], tmp_path / "data")
    for file in (tmp_path / "data").rglob("*-train.tfrecord-0000[23]*"):
        file.unlink()
    settings = {**settings, "data_dir": str(tmp_path / "data"), "text_mode": "lines"}
    settings["validation_fraction"] = 0.1
    dataset = open_dataset(configured("tfds:made_up_sentences", **settings)).load("train")
    first = [record["text"].decode() for record in dataset.take(15).as_numpy_iterator()]
    assert first == [f" {sentence}" for file in files[:2] for sentence in of_file(file)][:15]


def test_a_vocabulary_has_each_word_once(sharded):
    settings, _ = sharded
    dataset = open_dataset(configured("tfds:made_up_sentences", **{**settings, "text_mode": "lines"}))
    pieces = Whitespace.learn(dataset.load("test").map(lambda record: record["text"])).pieces
    words = {"The", "test", "sentence", *map(str, range(6)), "."}
    assert set(pieces) == {b" <unk>", b"\n", *(f" {word}".encode() for word in words)}


def test_what_is_wrong(settings, monkeypatch):
    wrong = {**settings, "label_column": "label"}
    assert "no field 'label' among headline, stars, topic" in complaint("tfds:made_up_news:short", **wrong)
    assert "tfds:nowhere" in complaint("tfds:nowhere", **settings)
    assert "no field there holds" in complaint("tfds:made_up_news", **{**settings, "task": "tagging"})
    assert "needs a name" in complaint("tfds", train_path="x", **settings)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "pip install 'rnn-zoo[tfds]'" in complaint("tfds:made_up_news:short", **settings)
