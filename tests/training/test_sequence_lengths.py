"""Windows of random length: their distribution, and that they are a lane, cut."""

import itertools

import numpy as np
import pytest
from tiny import BigramModel, prose, tiny

from serving.program import UserError
from training.gradients import TrainStep
from training.loop import Trainer
from training.pipeline import TokenFile, random_length_batches
from training.sequence_lengths import random_cuts, random_steps
from training.train import train
from zoo.models import TASKS

COUNT = 700


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "train.tokens"
    np.arange(100, 101 + COUNT).astype(np.int32).tofile(path)
    return TokenFile(path, COUNT, "fingerprint")


def arrays(dataset):
    return list(dataset.as_numpy_iterator())


def test_have_the_distribution_of_the_paper():
    """Of a million tokens, the lengths are those that it gives: two normal distributions of deviation 5."""
    lengths = np.diff(random_cuts(1_000_000, 70, seed=3, epoch=0))
    assert lengths.sum() == 1_000_000
    assert len(lengths) == random_steps(1_000_000, 70) == pytest.approx(1_000_000 / 68.25, abs=1)
    short = lengths < 52
    assert short.mean() == pytest.approx(0.05, abs=0.006)
    for part, mean in ((lengths[~short], 70), (lengths[short], 35)):
        assert part.mean() == pytest.approx(mean, abs=0.6)
        assert part.std() == pytest.approx(5.0, abs=0.4)


@pytest.mark.parametrize("lane", [1, 4, 69, 70, 71, 500])
@pytest.mark.parametrize("length", [8, 70])
def test_cover_a_lane_however_short(lane, length):
    for seed, epoch in itertools.product((1, 2), (0, 1)):
        cuts = random_cuts(lane, length, seed, epoch)
        assert (cuts[0], cuts[-1]) == (0, lane)
        assert len(cuts) == random_steps(lane, length) + 1
        assert np.diff(cuts).min() >= 1
        assert np.diff(cuts).max() < 2 * length + 20


def test_differ_by_seed_and_epoch():
    cuts = {(seed, epoch): tuple(random_cuts(5000, 70, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(set(cuts.values())) == 4
    random_cuts.cache_clear()
    assert tuple(random_cuts(5000, 70, 2, 1)) == cuts[2, 1]


@pytest.mark.parametrize("replicas", [1, 2])
def test_are_the_lanes_of_the_text(tokens, replicas):
    batches = random_length_batches(tokens, 4, 20, seed=5, replicas=replicas)
    parts = arrays(batches.open(1, 0))
    assert batches.continuous
    assert len(parts) == batches.steps * replicas
    whole = [
        {name: np.concatenate([part[name] for part in group]) for name in group[0]}
        for group in zip(*[iter(parts)] * replicas, strict=True)
    ]
    targets = np.concatenate([batch["targets"] for batch in whole], axis=1)
    np.testing.assert_array_equal(targets, np.arange(101, 101 + COUNT).reshape(4, -1))
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["inputs"], batch["targets"] - 1)
        assert batch["mask"].all()
        assert batches.relative_length(1, step) == batch["targets"].shape[1] / 20
    assert len({batch["targets"].shape[1] for batch in whole}) > 3


def test_can_be_taken_up_at_any_step(tokens):
    batches = random_length_batches(tokens, 4, 20, seed=5)
    whole = arrays(batches.open(2, 0))
    for first in range(batches.steps + 1):
        rest = arrays(batches.open(2, first))
        assert [batch["targets"].tolist() for batch in rest] == [
            batch["targets"].tolist() for batch in whole[first:]
        ]


def test_of_too_few_tokens(tokens):
    with pytest.raises(UserError, match="too few for --batch_size=800"):
        random_length_batches(tokens, 800, 20, seed=5)


def test_scale_the_learning_rate_and_are_traced_once(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "language_model", BigramModel)
    seen, traces, run_step, step = [], [], Trainer._run_step, TrainStep._step

    def observed(self, batch):
        run_step(self, batch)
        seen.append((batch["targets"].shape[1], float(self.optimizer.learning_rate)))

    monkeypatch.setattr(Trainer, "_run_step", observed)
    monkeypatch.setattr(TrainStep, "_step", lambda self, *rest: traces.append(1) or step(self, *rest))
    config = tiny(tmp_path, prose(600), random_sequence_length=True, sequence_length=30, schedule="constant")
    train(config)
    assert len({length for length, _ in seen}) > 3
    for length, rate in seen:
        assert rate == pytest.approx(config.learning_rate * length / 30, rel=1e-6)
    assert len(traces) == 1


def test_validation_is_read_whole_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "language_model", BigramModel)
    tokens = set()
    for name, random in (("fixed", False), ("random", True)):
        (tmp_path / name).mkdir()
        tokens.add(train(tiny(tmp_path / name, random_sequence_length=random, max_steps=9))["best"]["tokens"])
    assert len(tokens) == 1
