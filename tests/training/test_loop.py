"""The training loop: interrupted anywhere and taken up again, it ends where an uninterrupted run does."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import DEADLINE, SpoiledModel, flags_of, program_command, prose, tiny

from serving.program import UserError
from training import train as train_program
from training.loop import Trainer
from training.train import train
from zoo import model_directory
from zoo.model_directory import ModelDirectoryError, read_tensors
from zoo.models import TASKS

# All that could be lost on the way: dropout's generators, rows that start from zero, the plateau's history.
UNSTEADY = {"dropout": 0.3, "state_reset": 0.2, "schedule": "plateau", "warmup_steps": 3}
pytestmark = pytest.mark.usefixtures("bigram")


class Killed(BaseException):
    """In place of SIGKILL, where a process of its own would take too long."""


@pytest.fixture
def kill_after(monkeypatch):
    """Lets so many steps and so many parts of writing a file pass, and then no more."""
    left = [None]

    def event(function):
        def counted(*args, **kwargs):
            if left[0] is not None:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(Trainer, "_run_step", event(Trainer._run_step))
    monkeypatch.setattr(Trainer, "_evaluate", event(Trainer._evaluate))
    for name in ("fsync", "replace"):
        monkeypatch.setattr(model_directory.os, name, event(getattr(os, name)))

    def set_budget(events):
        left[0] = events

    return set_budget


@pytest.mark.parametrize(
    ("events", "settings"),
    [
        ((16, 32), {}),
        pytest.param((30, 45), {"text_mode": "lines", "max_steps": 0, "epochs": 2}, marks=pytest.mark.slow),
    ],
)
def test_killed_again_and_again_ends_as_uninterrupted(tmp_path, kill_after, outcome, events, settings):
    def config(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return tiny(tmp_path / name, prose(220), **UNSTEADY, **settings)

    expected = train(config("whole"))
    draw, kills = random.Random(4), 0
    while True:
        kill_after(draw.randrange(*events))  # a start and four steps to the next checkpoint take 9
        try:
            result = train(config("parts"))
            break
        except Killed:
            kills += 1
    assert kills
    assert {**result, "model_dir": ""} == {**expected, "model_dir": ""}
    assert outcome(tmp_path / "parts" / "model") == outcome(tmp_path / "whole" / "model")


KILLED_WHILE_WRITING = """
import os, signal, sys
from zoo import model_directory

def replace(partial, path, *, replace=os.replace):
    if path.name == "step-000000012.safetensors":
        os.truncate(partial, os.path.getsize(partial) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(partial, path)

model_directory.os.replace = replace
import training.train
training.train.run()
"""


def test_sigkill(tmp_path, outcome, monkeypatch):
    """Real processes of the real model: killed soon after the first checkpoint, or during a later step;
    then with half of a checkpoint written; then left alone."""
    monkeypatch.undo()  # the real language model, here too
    folders = {}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        folders[name] = tiny(tmp_path / name, prose(300), layers=2, **UNSTEADY)
    expected = train(folders["whole"])

    flags = flags_of(folders["parts"])
    model_dir = tmp_path / "parts" / "model"
    checkpoints = model_dir / "checkpoints"
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen(program_command("zoo_train", *flags), **quiet)
    end = time.monotonic() + DEADLINE
    while not (checkpoints / "step-000000004.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)
    time.sleep(random.random() * 0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(checkpoints.glob("step-000000012*"))

    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, *flags], timeout=DEADLINE, **quiet)
    assert killed.returncode == -signal.SIGKILL
    assert max(checkpoints.glob("step-*")).name == "step-000000009.safetensors"
    assert list(checkpoints.glob(".*.partial"))

    done = subprocess.run(program_command("zoo_train", *flags), timeout=DEADLINE, **quiet)
    assert done.returncode == 0
    assert {**json.loads(done.stdout), "model_dir": ""} == {**expected, "model_dir": ""}
    assert outcome(model_dir) == outcome(tmp_path / "whole" / "model")
    assert not list(model_dir.rglob(".*.partial"))
    assert len(list(checkpoints.iterdir())) == 2


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, outcome):
    """What 24 steps of the bigram model come to."""
    config = tiny(tmp_path_factory.mktemp("uninterrupted"), **UNSTEADY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "language_model", SpoiledModel)
        train(config)
    return outcome(Path(config.output_dir))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_writes_a_checkpoint_and_says_so(
    tmp_path, run_program, monkeypatch, outcome, uninterrupted, number
):
    flags = flags_of(tiny(tmp_path, **UNSTEADY))
    run_step = Trainer._run_step

    def signalled(self, batch):
        run_step(self, batch)
        if self.progress.step == 6:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_run_step", signalled)
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        code, out, err = run_program(train_program, *flags)
        assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert (code, out) == (130, "")
    said = f"zoo-train: stopped by {number.name} at step 6; the same command goes on from there"
    assert err.splitlines()[-1] == said
    code, out, err = run_program(train_program, *flags)
    assert code == 0
    assert "going on from step 6 of 24\n" in err
    assert outcome(tmp_path / "model") == uninterrupted


class TestResuming:
    def test_with_another_configuration_names_what_differs(self, tmp_path):
        train(tiny(tmp_path, max_steps=4))
        with pytest.raises(UserError) as raised:
            train(tiny(tmp_path, max_steps=4, learning_rate=0.5, seed=2))
        assert "--learning_rate=0.5 (was 0.002), --seed=2 (was 1)" in str(raised.value)
        assert "--output_dir" in str(raised.value)
        assert "\n" not in str(raised.value)
        assert "units" not in str(raised.value)

    @pytest.mark.parametrize("part", ["train", "validation"])
    def test_with_other_data_is_refused(self, tmp_path, part):
        config = tiny(tmp_path, max_steps=4)
        train(config)
        text = prose(400)
        other = text[:100] + "goes" + text[104:] if part == "train" else text[:-5] + text[-5:][::-1]
        assert other != text
        with pytest.raises(UserError, match=r"the data is not what .*model was trained on; .*--output_dir"):
            train(tiny(tmp_path, other, max_steps=4))

    def test_a_finished_run_does_nothing_and_says_the_same(self, tmp_path, monkeypatch, outcome):
        config = tiny(tmp_path)
        expected, written = train(config), outcome(tmp_path / "model")
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "model").rglob("*.safetensors")}
        monkeypatch.setattr(Trainer, "_run_step", lambda self, batch: pytest.fail("a step was made"))
        assert train(config) == expected
        assert outcome(tmp_path / "model") == written
        assert times == {
            path: path.stat().st_mtime_ns for path in (tmp_path / "model").rglob("*.safetensors")
        }

    def test_goes_on_with_more_steps(self, tmp_path, outcome, uninterrupted):
        for steps in (9, 24):
            train(tiny(tmp_path, max_steps=steps, **UNSTEADY))
        assert outcome(tmp_path / "model") == uninterrupted

    def test_a_start_that_failed_leaves_nothing_that_is_in_the_way(self, tmp_path):
        with pytest.raises(UserError, match="--batch_size=4000"):
            train(tiny(tmp_path, batch_size=4000))
        assert train(tiny(tmp_path, max_steps=4))["steps"] == 4

    def test_a_damaged_checkpoint_is_named_and_the_one_before_will_do(self, tmp_path, outcome):
        config = tiny(tmp_path, **UNSTEADY)
        train(config)
        expected = outcome(tmp_path / "model")
        last = max((tmp_path / "model" / "checkpoints").iterdir())
        os.truncate(last, last.stat().st_size // 2)
        with pytest.raises(ModelDirectoryError, match=rf"{last.name} is damaged: .*delete it"):
            train(config)
        last.unlink()
        train(config)
        assert outcome(tmp_path / "model") == expected


class Keep(keras.callbacks.Callback):
    """The weights at each evaluation, and the logs of each step."""

    def __init__(self):
        super().__init__()
        self.evaluations, self.steps = {}, []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(dict(logs))

    def on_test_end(self, logs=None):
        weights = {weight.path: weight.numpy() for weight in self.model.weights}
        self.evaluations[logs["step"]] = (logs["nats_per_token"], weights)


# Too large a learning rate: it gets worse after it was good.
ERRATIC = {"optimizer": "sgd", "learning_rate": 30.0, "global_clipnorm": 0.0, "schedule": "constant"}


class TestEvaluations:
    def test_the_best_weights_are_those_of_the_best_evaluation(self, tmp_path):
        kept = Keep()
        result = train(tiny(tmp_path, evaluate_every=3, **ERRATIC), [kept])
        assert list(kept.evaluations) == [3, 6, 9, 12, 15, 18, 21, 24]
        step, (loss, weights) = min(kept.evaluations.items(), key=lambda item: item[1][0])
        assert step < 24
        assert (result["best"]["step"], result["best"]["nats_per_token"]) == (step, loss)
        tensors, metadata = read_tensors(tmp_path / "model/best/weights.safetensors")
        assert metadata["step"] == step
        assert {name: array.tolist() for name, array in tensors.items()} == {
            name: array.tolist() for name, array in weights.items()
        }

    def test_early_stopping_stops_and_stays_stopped(self, tmp_path, outcome):
        kept = Keep()
        config = tiny(tmp_path, evaluate_every=3, early_stopping=2, max_steps=300, **ERRATIC)
        result = train(config, [kept])
        losses = [loss for loss, _ in kept.evaluations.values()]
        best = losses.index(min(losses))
        assert len(losses) - 1 - best == 2
        assert result["steps"] == 3 * len(losses) < 300
        written = outcome(tmp_path / "model")
        assert train(config) == result
        assert outcome(tmp_path / "model") == written

    def test_metrics_have_a_line_an_evaluation(self, tmp_path):
        kept = Keep()
        train(tiny(tmp_path), [kept])
        lines = [json.loads(line) for line in (tmp_path / "model/metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [9, 18, 24]
        for line in lines:
            assert line["nats_per_token"] == kept.evaluations[line["step"]][0]
            assert line["perplexity"] == pytest.approx(np.exp(line["nats_per_token"]))
            assert set(line) == {"step", "tokens", "nats_per_token", "perplexity", "bits_per_character"}

    def test_tensorboard_has_the_same_numbers(self, tmp_path):
        kept = Keep()
        train(tiny(tmp_path), [kept])
        scalars = {}
        for path in (tmp_path / "model/logs").iterdir():
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    scalars[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
        for name in ("loss", "gradient_norm", "learning_rate", "tokens"):
            for step in (0, 20):
                assert scalars[f"train/{name}", step] == pytest.approx(kept.steps[step][name], rel=1e-6)
        for step, (loss, _) in kept.evaluations.items():
            assert scalars["validation/nats_per_token", step] == pytest.approx(loss, rel=1e-6)

    def test_an_evaluation_an_epoch_without_more_said(self, tmp_path):
        kept = Keep()
        train(tiny(tmp_path, evaluate_every=0, max_steps=0, epochs=2), [kept])
        first, second = kept.evaluations
        assert second == 2 * first == len(kept.steps)


def test_progress_is_shown_with_loss_perplexity_norm_and_speed(tmp_path, capsys):
    kept = Keep()
    train(tiny(tmp_path), [kept])
    bar = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert any("step 9: validation" in line and "perplexity" in line for line in bar)
    last = bar[-1]
    assert "24/24" in last
    shown = dict(word.split("=") for word in last[last.index("loss=") : -1].split(", "))
    nats = kept.steps[0]["loss"]
    for step in kept.steps[1:]:
        nats = 0.98 * nats + 0.02 * step["loss"]
    assert float(shown["loss"]) == pytest.approx(nats, abs=6e-4)
    assert float(shown["ppl"]) == pytest.approx(np.exp(nats), abs=6e-3)
    assert float(shown["norm"]) == pytest.approx(kept.steps[-1]["gradient_norm"], abs=6e-3)
    assert float(shown["tokens/s"].replace(",", "")) > 0


class TestCallbacks:
    """Those of Keras and of the user work beside ours."""

    @pytest.mark.parametrize("when", ["on_train_batch_end", "on_test_end", "on_epoch_end"])
    def test_may_stop_the_training(self, tmp_path, when):
        class Stop(keras.callbacks.Callback):
            steps = 0

        def stop(self, *_, **__):
            self.model.stop_training = True

        setattr(Stop, when, stop)
        result = train(tiny(tmp_path, max_steps=0, epochs=3, evaluate_every=9), [Stop()])
        steps = {"on_train_batch_end": 1, "on_test_end": 9}.get(when, result["steps"])
        assert result["steps"] == steps < 100
        assert max((tmp_path / "model/checkpoints").iterdir()).stem == f"step-{steps:09d}"
        lines = (tmp_path / "model/metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == steps

    def test_of_keras(self, tmp_path):
        logged = tmp_path / "log.csv"
        rows = []
        by_hand = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: rows.append(batch))
        train(tiny(tmp_path), [by_hand, keras.callbacks.TerminateOnNaN(), keras.callbacks.CSVLogger(logged)])
        assert rows == list(range(24))


class Spoil(keras.callbacks.Callback):
    """Makes the gradients of some steps, counted from 0, not a number."""

    def __init__(self, *steps):
        super().__init__()
        self.bad = steps

    def on_train_batch_begin(self, batch, logs=None):
        self.model.gradient_factor.assign(np.nan if batch in self.bad else 1.0)


class TestNotFinite:
    def test_steps_are_skipped_and_counted(self, tmp_path, capsys):
        assert train(tiny(tmp_path, max_bad_steps=2), [Spoil(3, 5, 6 + 1, 20)])["skipped_steps"] == 4
        assert "skipped=4" in capsys.readouterr().err
        tensors, metadata = read_tensors(max((tmp_path / "model/checkpoints").iterdir()))
        assert metadata["skipped"] == 4
        assert tensors["optimizer/0"] == 20  # the optimizer's count of steps

    def test_a_few_in_a_row_end_the_training_with_the_weights_untouched(self, tmp_path):
        kept, before = Keep(), tiny(tmp_path, max_bad_steps=3, checkpoint_every=1)
        with pytest.raises(UserError) as raised:
            train(before, [Spoil(2, 3, 10, 11, 12), kept])
        assert "nan" in str(raised.value)
        assert "step 13, the last of 3 in a row not finite" in str(raised.value)
        assert "--learning_rate" in str(raised.value)
        tensors, _ = read_tensors(max((tmp_path / "model/checkpoints").iterdir()))
        assert all(np.isfinite(array).all() for array in tensors.values())
        assert len(kept.steps) == 12

    def test_a_validation_that_is_not_finite_ends_the_training(self, tmp_path):
        class Ruin(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.model.shift.assign(np.full(self.model.shift.shape, np.nan))

        with pytest.raises(UserError, match=r"validation at step \d+ is not finite"):
            train(tiny(tmp_path, evaluate_every=1), [Ruin()])
