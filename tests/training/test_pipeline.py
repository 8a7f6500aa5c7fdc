"""Batches against plain NumPy slicing: what is in them, in which order, and whether state is carried."""

import itertools
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from tiny import DEADLINE, BigramModel, prose, tiny

from serving.program import UserError
from training import pipeline
from training.datasets import open_dataset
from training.evaluation import Evaluator
from training.loop import Trainer
from training.pipeline import bucketed_batches, contiguous_batches, make_batches, write_tokens
from training.train import train
from zoo.models import TASKS
from zoo.text import Characters

BOUNDARY = Characters.boundary_id


def tokens_file(folder, count):
    """The ids 100, 101, ... after the boundary, as `write_tokens` writes them."""
    path = folder / "train.tokens"
    np.array([BOUNDARY, *range(100, 100 + count)], np.int32).tofile(path)
    return pipeline.TokenFile(path, count, "fingerprint")


def arrays(dataset):
    return list(dataset.as_numpy_iterator())


def sliced(count, batch_size, length, drop_remainder):
    """Lanes by slicing: inputs, targets and mask of each step, [batch, length]; padding is 0."""
    tokens = np.arange(100, 100 + count)
    lane = count // batch_size if drop_remainder else -(-count // batch_size)
    steps = lane // length if drop_remainder else -(-lane // length)
    inputs, targets = np.zeros((2, steps, batch_size, length), int)
    mask = np.zeros((steps, batch_size, length), bool)
    for row, step, place in np.ndindex(batch_size, steps, length):
        within = step * length + place
        index = row * lane + within
        if within < lane and index < count:
            mask[step, row, place] = True
            targets[step, row, place] = tokens[index]
            inputs[step, row, place] = tokens[index - 1] if index else BOUNDARY
    return inputs, targets, mask


class TestContiguous:
    SIZES = ((60, 3, 5), (61, 3, 5), (64, 4, 7), (23, 5, 2), (9, 1, 4), (8, 8, 1), (50, 2, 100))

    @pytest.mark.parametrize(("count", "batch_size", "length"), SIZES)
    @pytest.mark.parametrize("drop_remainder", [True, False])
    def test_is_slicing(self, tmp_path, count, batch_size, length, drop_remainder):
        inputs, targets, mask = sliced(count, batch_size, length, drop_remainder)
        file = tokens_file(tmp_path, count)
        if not len(mask):
            with pytest.raises(UserError, match="--batch_size"):
                contiguous_batches(file, batch_size, length, drop_remainder)
            return
        batches = contiguous_batches(file, batch_size, length, drop_remainder)
        got = arrays(batches.open(0, 0))
        assert batches.steps == len(got) == len(mask)
        assert batches.continuous
        for step, batch in enumerate(got):
            np.testing.assert_array_equal(batch["mask"], mask[step])
            for name, expected in (("inputs", inputs), ("targets", targets)):
                assert batch[name].dtype == np.int32
                np.testing.assert_array_equal(np.where(mask[step], batch[name], 0), expected[step])
        if drop_remainder:
            assert mask.all()
        else:
            seen = np.concatenate([batch["targets"][batch["mask"]] for batch in got])
            assert sorted(seen) == list(range(100, 100 + count))

    @pytest.mark.parametrize("drop_remainder", [True, False])
    def test_can_be_taken_up_at_any_step(self, tmp_path, drop_remainder):
        batches = contiguous_batches(tokens_file(tmp_path, 64), 3, 4, drop_remainder)
        whole = arrays(batches.open(0, 0))
        for first in range(batches.steps + 1):
            rest = arrays(batches.open(1, first))
            assert len(rest) == batches.steps - first
            for expected, batch in zip(whole[first:], rest, strict=True):
                assert all((expected[name] == batch[name]).all() for name in expected)

    @pytest.mark.parametrize("replicas", [2, 4])
    @pytest.mark.parametrize("first_step", [0, 3])
    def test_comes_in_parts_for_replicas_that_are_the_rows_of_a_batch(self, tmp_path, replicas, first_step):
        file = tokens_file(tmp_path, 101)
        whole = arrays(contiguous_batches(file, 4, 3, False).open(0, first_step))
        parts = arrays(contiguous_batches(file, 4, 3, False, replicas).open(0, first_step))
        assert len(parts) == replicas * len(whole)
        for step, expected in enumerate(whole):
            own = parts[step * replicas : (step + 1) * replicas]
            for name in expected:
                np.testing.assert_array_equal(np.concatenate([part[name] for part in own]), expected[name])

    @pytest.mark.parametrize("count", [0, 1, 39])
    def test_too_few_tokens(self, tmp_path, count):
        with pytest.raises(
            UserError, match=rf"train: {count} tokens .*--batch_size=4 .*--sequence_length=10"
        ):
            contiguous_batches(tokens_file(tmp_path, count), 4, 10, drop_remainder=True)


class TestTokens:
    def model(self):
        return BigramModel(Characters((b"\xef\xbf\xbd", b"\n", b"a", b"b", b" ")))

    def test_are_those_of_the_whole_text(self, tmp_path):
        pieces = ["ab a", "b\n", "", "a?b "]
        records = tf.data.Dataset.from_tensor_slices({"text": pieces})
        file = write_tokens(self.model(), records, tmp_path / "deep" / "train.tokens")
        ids = {"a": 2, "b": 3, " ": 4, "\n": 1, "?": 0}
        expected = [BOUNDARY, *(ids[character] for character in "".join(pieces))]
        assert np.fromfile(file.path, np.int32).tolist() == expected
        assert file.count == len(expected) - 1

    def test_fingerprint_is_of_the_tokens_not_of_the_blocks(self, tmp_path):
        def fingerprint(*pieces):
            records = tf.data.Dataset.from_tensor_slices({"text": list(pieces)})
            return write_tokens(self.model(), records, tmp_path / "a.tokens").fingerprint

        assert fingerprint("ab a") == fingerprint("ab", " a")
        assert len({fingerprint("ab a"), fingerprint("ab b"), fingerprint("ab a ")}) == 3

    def test_are_written_while_the_text_is_read(self, tmp_path):
        """A text larger than memory passes through: the file grows long before the text's end."""
        path, sizes = tmp_path / "train.tokens", []

        def texts():
            for _ in range(60):
                sizes.append(path.stat().st_size)
                yield b"ab " * 10_000

        signature = tf.TensorSpec([], tf.string)
        records = tf.data.Dataset.from_generator(texts, output_signature=signature)
        file = write_tokens(self.model(), records.map(lambda text: {"text": text}), path)
        assert file.count == 60 * 30_000
        behind = [index * 30_000 * 4 - size for index, size in enumerate(sizes)]
        assert max(behind) < 12 * 30_000 * 4

    def test_on_a_full_disk_name_the_file(self, tmp_path):
        path = tmp_path / "train.tokens"
        path.symlink_to("/dev/full")
        records = tf.data.Dataset.from_tensor_slices({"text": ["ab a"]})
        with pytest.raises(OSError, match="No space left on device") as raised:
            write_tokens(self.model(), records, path)
        assert str(path) in str(raised.value)

    def test_a_line_of_ten_million_characters(self, tmp_path):
        text = tmp_path / "text.txt"
        text.write_text("ab" * 5_000_000)
        records = open_dataset(tiny(tmp_path, validation_fraction=0.0, text="ab" * 5_000_000)).load("train")
        file = write_tokens(self.model(), records, tmp_path / "train.tokens")
        batches = contiguous_batches(file, 1000, 1000, drop_remainder=True)
        assert (file.count, batches.steps) == (10_000_000, 10)
        first = next(batches.open(0, 0).as_numpy_iterator())
        assert (first["targets"] == np.tile([2, 3], 500)).all()


class TestState:
    """The bigram model's state is the sum of all ids that its lane has read."""

    def test_is_carried_from_batch_to_batch_and_zero_at_the_start_of_an_epoch(self, tmp_path, monkeypatch):
        monkeypatch.setitem(TASKS, "language_model", BigramModel)
        config = tiny(tmp_path, state_reset=0.0, max_steps=0, epochs=2, evaluate_every=5)
        seen = []
        trainer = observed(monkeypatch, lambda trainer: seen.append(trainer.states["total"].numpy()[:, 0]))
        train(config)
        tokens = np.fromfile(tmp_path / "model/cache/worker-0/train.tokens", np.int32)
        steps = trainer[0].training.steps
        assert steps > 10
        lane = (len(tokens) - 1) // 4
        for step, states in enumerate(seen):
            read = (step % steps + 1) * 8
            assert states.tolist() == [tokens[row * lane :][:read].sum() for row in range(4)]
        assert len(seen) == 2 * steps

    @pytest.mark.parametrize("lanes", [1, 3])
    def test_is_carried_in_evaluation(self, tmp_path, lanes):
        """Windows of 64 give what one window over the whole text gives."""
        model = BigramModel(Characters((b"\xef\xbf\xbd", b"\n", *(bytes([c]) for c in b" aderosigfny"))))
        random = np.random.default_rng(1)
        for weight in model.weights:
            weight.assign(random.normal(size=weight.shape))
        dataset = open_dataset(tiny(tmp_path, validation_fraction=0.5))
        metrics = []
        for length in (64, 10_000):
            batches = make_batches(model, dataset, "validation", lanes, length, tmp_path)
            assert (batches.steps == 1) == (length == 10_000)
            metrics.append(Evaluator(model, tf.distribute.get_strategy())(batches))
        assert metrics[0]["tokens"] == metrics[1]["tokens"] > 500
        assert metrics[0]["nats_per_token"] == pytest.approx(metrics[1]["nats_per_token"], rel=1e-5)


def observed(monkeypatch, after_step):
    """Calls a function with the trainer after each step; the trainer comes into the list that it gives."""
    trainers, run_step = [], Trainer._run_step

    def run(self, batch):
        run_step(self, batch)
        trainers[:] = [self]
        after_step(self)

    monkeypatch.setattr(Trainer, "_run_step", run)
    return trainers


class TestBucketed:
    LENGTHS = [1, 2, 3, 5, 8, 9, 11, 16, 17, 30, 33, 40, 64, 70] * 3

    def model(self):
        return BigramModel(Characters((b"\xef\xbf\xbd", b"\n", *(bytes([c]) for c in range(33, 127)))))

    def records(self):
        random = np.random.default_rng(1)
        texts = [bytes(random.integers(33, 127, length).tolist()) for length in self.LENGTHS]
        return texts, tf.data.Dataset.from_tensor_slices({"text": texts})

    def read(self, model, batches, epoch=0, first=0):
        """The texts in the order of the epoch, checked for padding and masks."""
        texts = []
        for batch in arrays(batches.open(epoch, first)):
            assert (batch["inputs"][:, 0] == BOUNDARY).all()
            assert (
                batch["inputs"][:, 1:] * batch["mask"][:, 1:]
                == (batch["targets"] * batch["mask"])[:, :-1] * batch["mask"][:, 1:]
            ).all()
            lengths = batch["mask"].sum(1)
            assert batch["mask"].shape[1] == lengths.max()
            assert (batch["mask"] == (np.arange(lengths.max()) < lengths[:, None])).all()
            for targets, length in zip(batch["targets"], lengths, strict=True):
                texts.append(b"".join(model.tokenizer.pieces[target] for target in targets[:length]))
        return texts

    @pytest.mark.parametrize("seed", [None, 3])
    def test_has_every_example_once(self, seed):
        model, (texts, records) = self.model(), self.records()
        batches = bucketed_batches(model, records, 4, seed)
        assert not batches.continuous
        for epoch in (0, 1):
            assert Counter(self.read(model, batches, epoch)) == Counter(texts)
        assert batches.steps == len(arrays(batches.open(0, 0)))

    def test_puts_examples_of_similar_length_together(self):
        model, (_, records) = self.model(), self.records()
        for batch in arrays(bucketed_batches(model, records, 4, 3).open(0, 0)):
            lengths = batch["mask"].sum(1)
            assert lengths.max() <= max(8, 2 * lengths.min())
            assert len(lengths) <= 4

    def test_is_shuffled_by_seed_and_epoch(self):
        model, (_, records) = self.model(), self.records()
        orders = {
            (seed, epoch): tuple(self.read(model, bucketed_batches(model, records, 4, seed), epoch))
            for seed, epoch in itertools.product((3, 4), (0, 1))
        }
        assert len(set(orders.values())) == 4
        again = bucketed_batches(model, records, 4, 3)
        assert tuple(self.read(model, again, 1)) == orders[3, 1]
        in_order = bucketed_batches(model, records, 4)
        assert self.read(model, in_order, 0) == self.read(model, in_order, 1)

    def test_is_shuffled_within_so_many_bytes(self, monkeypatch):
        monkeypatch.setattr(pipeline, "SHUFFLED_BYTES", 1)
        model, (_, records) = self.model(), self.records()
        unshuffled = self.read(model, bucketed_batches(model, records, 4))
        assert self.read(model, bucketed_batches(model, records, 4, 3)) == unshuffled

    def test_can_be_taken_up_at_any_step(self):
        model, (_, records) = self.model(), self.records()
        batches = bucketed_batches(model, records, 4, 3)
        whole = arrays(batches.open(2, 0))
        for first in (0, 1, batches.steps - 1, batches.steps):
            rest = arrays(batches.open(2, first))
            assert [batch["targets"].tolist() for batch in rest] == [
                batch["targets"].tolist() for batch in whole[first:]
            ]

    @pytest.mark.parametrize("seed", [None, 3])
    def test_has_whole_steps_for_replicas_in_training_and_all_examples_in_evaluation(self, seed):
        model, (texts, records) = self.model(), self.records()
        texts, records = texts[:-1], records.take(len(texts) - 1)
        batches = bucketed_batches(model, records, 8, seed, replicas=4)
        parts = len(arrays(batches.open(0, 0)))
        read = Counter(self.read(model, batches))
        if seed is None:
            assert read == Counter(texts)
        else:
            assert parts == 4 * batches.steps
            assert read <= Counter(texts)
        assert parts // 4 == batches.steps
        assert len(arrays(batches.open(0, 2))) == parts - 2 * 4

    def test_too_few_for_the_replicas(self):
        model, (_, records) = self.model(), self.records()
        with pytest.raises(UserError, match="1 batches are too few for 2 replicas"):
            bucketed_batches(model, records.take(1), 8, 3, replicas=2)

    def test_refuses_an_example_that_no_memory_holds(self):
        records = tf.data.Dataset.from_tensor_slices({"text": [b"short", b"x" * 10_000_000]})
        with pytest.raises(UserError, match=r"10,000,000 tokens.*--text_mode=stream"):
            bucketed_batches(self.model(), records, 4, 3)


def test_the_data_set_says_how_batches_are_made(tmp_path):
    model = BigramModel(Characters((b"\xef\xbf\xbd", b"\n", b"a")))
    text = prose(300)
    for mode, continuous in (("stream", True), ("lines", False)):
        dataset = open_dataset(tiny(tmp_path, text, text_mode=mode))
        batches = make_batches(model, dataset, "train", 4, 8, tmp_path, seed=1)
        assert (dataset.stream, batches.continuous) == (continuous, continuous)


class TestTokenBudget:
    LENGTHS = (3, 7, 20, 30, 31, 100, 5, 7, 7, 7, 7, 7, 7)

    def batches(self, budget, replicas=1):
        model = BigramModel(Characters((b"\xef\xbf\xbd", b"\n", b"a")))
        records = tf.data.Dataset.from_tensor_slices({"text": ["a" * length for length in self.LENGTHS]})
        return arrays(bucketed_batches(model, records, 4, None, replicas, budget).open(0, 0))

    def test_a_batch_holds_no_more_tokens_but_for_a_single_example(self):
        batches = self.batches(64)
        assert sorted(length for batch in batches for length in batch["mask"].sum(1)) == sorted(self.LENGTHS)
        assert all(batch["inputs"].size <= 64 or len(batch["inputs"]) == 1 for batch in batches)
        short = [len(batch["inputs"]) for batch in batches if batch["inputs"].shape[1] <= 7]
        assert short == [8, 1]  # 64 tokens of 8, where the bucket ends
        assert max(batch["inputs"].size for batch in batches if len(batch["inputs"]) > 1) > 32

    def test_parts_of_replicas_share_the_budget(self):
        assert all(batch["inputs"].size <= 32 or len(batch["inputs"]) == 1 for batch in self.batches(64, 2))


class TestFeatureCache:
    TEXTS = ("ab", "b", "abba", "a" * 20)

    def batches(self, folder, texts=TEXTS, seed=1):
        model = BigramModel(Characters((b"\xef\xbf\xbd", b"\n", b"a", b"b")))
        read = []

        def blocks():
            read.append(True)
            yield list(texts)

        signature = tf.TensorSpec([None], tf.string)
        records = tf.data.Dataset.from_generator(blocks, output_signature=signature).unbatch()
        records = records.map(lambda text: {"text": text})
        return bucketed_batches(model, records, 2, seed, cache=folder / "train.features"), read

    def test_records_are_read_once_for_all_epochs(self, tmp_path):
        cached, read = self.batches(tmp_path / "deep")
        epochs = [arrays(cached.open(epoch, 0)) for epoch in (0, 1, 2, 0)]
        assert len(read) == 1
        plain = bucketed_batches(*self.plain(), 1)
        for epoch, batches in zip((0, 1, 2, 0), epochs, strict=True):
            for ours, theirs in zip(batches, arrays(plain.open(epoch, 0)), strict=True):
                assert all((ours[name] == theirs[name]).all() for name in theirs)
        assert cached.fingerprint == plain.fingerprint

    def plain(self):
        model = BigramModel(Characters((b"\xef\xbf\xbd", b"\n", b"a", b"b")))
        return model, tf.data.Dataset.from_tensor_slices({"text": list(self.TEXTS)}), 2

    def test_what_another_run_left_is_not_gone_on_with(self, tmp_path):
        first, _ = self.batches(tmp_path)
        for path in tmp_path.glob("train.features*"):
            path.write_bytes(b"broken")
        (tmp_path / "train.features_0.lockfile").write_bytes(b"of a run that was killed")
        again, read = self.batches(tmp_path)
        assert again.fingerprint == first.fingerprint
        assert len(read) == 1

    def test_a_full_disk(self, tmp_path):
        """No file may grow beyond 64 KiB, which the system reports much the same."""
        code = f"""
import resource, signal, sys
sys.path[:0] = {[os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]!r}
from pathlib import Path
from test_pipeline import TestFeatureCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
TestFeatureCache().batches(Path({str(tmp_path)!r}), ["ab" * 3000] * 20)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
        assert f"UserError: {tmp_path / 'train.features'}: " in done.stderr.splitlines()[-1]
