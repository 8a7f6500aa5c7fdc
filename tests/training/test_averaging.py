"""Averaged weights against NumPy's mean, the trigger against its paper, and runs that were interrupted."""

from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import prose, tiny

from training.averaging import WeightAverage, averaging_start
from training.loop import Trainer
from training.train import train
from zoo.model_directory import read_tensors

# Too large a learning rate, so that it soon gets worse; and all that could be lost on the way.
NT_ASGD = {
    "optimizer": "sgd",
    "learning_rate": 30.0,
    "global_clipnorm": 0.0,
    "schedule": "constant",
    "average_weights_after": 2,
    "evaluate_every": 3,
    "dropout": 0.3,
}


def triggered(history, patience):
    """Merity et al. 2017, algorithm 1, evaluation by evaluation."""
    logs = []
    for t, loss in enumerate(history):
        if t > patience and loss > min(logs[: t - patience]):
            return t
        logs.append(loss)
    return None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_starts_as_in_the_paper(patience):
    random, starts = np.random.default_rng(patience), set()
    for length in range(30):
        history = (np.linspace(3, 0, 30)[:length] + random.normal(0, 0.3, length)).tolist()
        starts.add(averaging_start(history, patience))
        assert averaging_start(history, patience) == triggered(history, patience)
    assert len(starts) > 3


def test_starts_not_while_it_gets_better_nor_too_early():
    assert averaging_start([], 5) is None
    assert averaging_start([6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.1], 5) is None
    assert averaging_start([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 5) is None
    assert averaging_start([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 5) == 6
    assert averaging_start([1.0, 2.0, 0.5, 0.9], 2) is None
    assert averaging_start([1.0, 2.0, 0.5, 1.1, 0.1], 2) == 3


def test_is_the_mean_and_is_there_only_for_a_time():
    variables = [keras.Variable(np.zeros(shape), name="w") for shape in ((2, 3), (4,))]
    average = WeightAverage(variables)
    random, history = np.random.default_rng(1), []
    for count in range(1, 8):
        for variable in variables:
            variable.assign(random.normal(size=variable.shape))
        history.append([variable.numpy() for variable in variables])
        average.include(np.float32(count))
    expected = [np.mean(values, axis=0) for values in zip(*history, strict=True)]
    with average.in_place():
        for variable, mean in zip(variables, expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-5, atol=1e-6)
    for variable, last in zip(variables, history[-1], strict=True):
        np.testing.assert_array_equal(variable.numpy(), last)


class Keep(keras.callbacks.Callback):
    """The weights after each step, by its number, and those of each evaluation, with its loss."""

    def __init__(self):
        super().__init__()
        self.steps, self.evaluations = {}, {}

    def weights(self):
        return {weight.path: weight.numpy() for weight in self.model.weights}

    def on_train_batch_end(self, batch, logs=None):
        self.steps[batch + 1] = self.weights()

    def on_test_end(self, logs=None):
        self.evaluations[int(logs["step"])] = self.weights(), logs["nats_per_token"]


@pytest.mark.usefixtures("bigram")
def test_evaluations_are_of_the_mean_from_the_trigger_on(tmp_path):
    kept = Keep()
    result = train(tiny(tmp_path, **NT_ASGD), [kept])
    losses = [loss for _, loss in kept.evaluations.values()]
    steps = list(kept.evaluations)
    start = steps[triggered(losses, 2)]
    assert start < 20
    for step, (weights, _) in kept.evaluations.items():
        first = start if step > start else step
        for path, weight in weights.items():
            included = [kept.steps[number][path] for number in range(first, step + 1)]
            np.testing.assert_allclose(weight, np.mean(included, axis=0), rtol=1e-4, atol=1e-5)
    best = min(kept.evaluations, key=lambda step: kept.evaluations[step][1])
    assert best > start
    assert result["best"]["step"] == best
    tensors, _ = read_tensors(tmp_path / "model/best/weights.safetensors")
    for path, weight in kept.evaluations[best][0].items():
        np.testing.assert_array_equal(tensors[path], weight)


@pytest.mark.usefixtures("bigram")
@pytest.mark.parametrize("settings", [NT_ASGD, {"random_sequence_length": True}])
@pytest.mark.slow
def test_interrupted_at_any_step_ends_as_uninterrupted(tmp_path, outcome, monkeypatch, settings):
    class Killed(BaseException):
        pass

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    configs = [tiny(tmp_path / name, prose(150), **settings) for name in ("whole", "parts")]
    expected, run_step = train(configs[0]), Trainer._run_step
    for steps in (10, 7):  # then the run is killed
        left = iter(range(steps))

        def limited(self, batch, left=left):
            if next(left, None) is None:
                raise Killed
            run_step(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_run_step", limited)
            with pytest.raises(Killed):
                train(configs[1])
    result = train(configs[1])
    assert {**result, "model_dir": ""} == {**expected, "model_dir": ""}
    folders = [Path(config.output_dir) for config in configs]
    assert outcome(folders[0]) == outcome(folders[1])


@pytest.mark.usefixtures("bigram")
def test_without_it_checkpoints_have_no_average(tmp_path):
    for name, settings in (("plain", {}), ("averaged", {"average_weights_after": 5})):
        (tmp_path / name).mkdir()
        train(tiny(tmp_path / name, max_steps=4, **settings))
        tensors, _ = read_tensors(max((tmp_path / name / "model/checkpoints").iterdir()))
        averages = [path for path in tensors if path.startswith("average/")]
        assert len(averages) == (2 if name == "averaged" else 0)
