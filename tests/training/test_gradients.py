"""One training step against NumPy: gradients, both ways of clipping, and steps that must not count."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import DEADLINE, BigramModel, SpoiledModel, prose

from training.config import Config
from training.gradients import TrainStep, clip, global_norm
from training.schedules import make_optimizer
from zoo.text import Characters

PIECES = tuple("\ufffd\nabcdef".encode().decode())
RANDOM = np.random.default_rng(7)
BATCHES = [
    {
        # Few ids, so that each is there many times, and other ones in each batch.
        "inputs": RANDOM.integers(low, low + 3, size=(3, 5)).astype(np.int32),
        "targets": RANDOM.integers(0, 8, size=(3, 5)).astype(np.int32),
        "mask": np.arange(5) < np.array([[5], [2], [4]]),
    }
    for low in (0, 4)
]
STATES = np.array([[0.0], [2.0], [5.0]], np.float32)


def make_model(cls=BigramModel):
    model = cls(Characters(tuple(piece.encode() for piece in PIECES)))
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    return model


def make_step(model, **settings):
    config = Config(**{"optimizer": "sgd", "learning_rate": 1.0, "state_reset": 0.0, **settings})
    optimizer = make_optimizer(config)
    optimizer.build(model.trainable_variables)
    return TrainStep(model, optimizer, config, tf.distribute.get_strategy())


def tensors(batch):
    return {name: tf.constant(value) for name, value in batch.items()}


def values(variables):
    return [tf.convert_to_tensor(variable).numpy() for variable in variables]


def numpy_gradients(weights, batch, states, divisor):
    """The total loss, and the gradients of the bigram model's shift and table, dense."""
    shift, table = [weight.astype(float) for weight in weights]
    totals = states + np.cumsum(batch["inputs"], axis=1)
    logits = table[batch["inputs"]] + BigramModel.SHIFT * totals[:, :, None] * shift
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nats, d_table, d_shift = 0.0, np.zeros_like(table), np.zeros_like(shift)
    for place in zip(*np.nonzero(batch["mask"]), strict=True):
        target = batch["targets"][place]
        nats -= np.log(probabilities[place][target])
        d_logits = probabilities[place] - np.eye(len(shift))[target]
        d_table[batch["inputs"][place]] += d_logits / divisor
        d_shift += BigramModel.SHIFT * totals[place] * d_logits / divisor
    return nats, [d_shift, d_table]


def norm_of(*arrays):
    return np.sqrt(sum(np.square(array).sum() for array in arrays))


@pytest.mark.parametrize(("reduction", "divisor"), [("token_mean", 11), ("sequence_sum", 3)])
@pytest.mark.parametrize(
    ("clipnorm", "global_clipnorm"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.1), (0.05, 0.01), (9.0, 9.0)]
)
def test_a_step_is_the_clipped_gradient_of_the_loss(reduction, divisor, clipnorm, global_clipnorm):
    model = make_model()
    before = values(model.weights)
    step = make_step(model, clipnorm=clipnorm, global_clipnorm=global_clipnorm, loss_reduction=reduction)
    result, states = step(tensors(BATCHES[0]), {"total": tf.constant(STATES)}, 0)

    nats, gradients = numpy_gradients(before, BATCHES[0], STATES, divisor)
    np.testing.assert_allclose(float(result.nats), nats, rtol=1e-5)
    assert float(result.count) == 11
    assert bool(result.applied)
    np.testing.assert_allclose(float(result.gradient_norm), norm_of(*gradients), rtol=1e-4)
    if clipnorm:
        gradients = [g * min(1, clipnorm / norm_of(g)) for g in gradients]
    if global_clipnorm:
        whole = norm_of(*gradients)
        gradients = [g * min(1, global_clipnorm / whole) for g in gradients]
    for weight, start, gradient in zip(model.weights, before, gradients, strict=True):
        np.testing.assert_allclose(weight.numpy(), start - gradient, atol=2e-6)
    np.testing.assert_allclose(states["total"], STATES + BATCHES[0]["inputs"].sum(1, keepdims=True))


class PulledModel(BigramModel):
    """A bigram model whose shift is pulled towards minus infinity."""

    def regularization(self, batch, outputs):
        return 5.0 * tf.reduce_sum(self.shift)


@pytest.mark.parametrize(("reduction", "divisor"), [("token_mean", 11), ("sequence_sum", 3)])
def test_regularization_is_of_the_gradient_and_not_of_the_loss(reduction, divisor):
    steps = [
        make_step(make_model(cls), loss_reduction=reduction, global_clipnorm=0.0)
        for cls in (BigramModel, PulledModel)
    ]
    (plain, _), (pulled, _) = [step(tensors(BATCHES[0]), {"total": tf.constant(STATES)}, 0) for step in steps]
    assert float(plain.nats) == float(pulled.nats)
    shift, table = [
        np.subtract(*both) for both in zip(*(values(step.model.weights) for step in steps), strict=True)
    ]
    np.testing.assert_allclose(shift, np.full(len(PIECES), 5.0 / divisor), rtol=1e-5)
    np.testing.assert_array_equal(table, np.zeros_like(table))


@pytest.mark.parametrize("settings", [{"clipnorm": 0.3}, {"global_clipnorm": 0.3}])
def test_clipping_is_what_keras_means_by_it(settings):
    random = np.random.default_rng(5)
    gradients = [tf.constant(random.normal(size=shape), tf.float32) for shape in ((3, 4), (5,))]
    small = [0.01 * gradient for gradient in gradients]
    for given in (gradients, small):
        weights = [keras.Variable(tf.zeros_like(gradient)) for gradient in given]
        keras.optimizers.SGD(1.0, **settings).apply(given, weights)
        clipped = clip(given, global_norm(given), settings.get("clipnorm"), settings.get("global_clipnorm"))
        for weight, gradient in zip(weights, clipped, strict=True):
            np.testing.assert_allclose(-weight.numpy(), gradient, rtol=1e-6)


def test_adam_moves_words_that_a_batch_has_not_as_a_dense_gradient_does():
    model = make_model()
    weights = [value.astype(float) for value in values(model.weights)]
    step = make_step(model, optimizer="adam", learning_rate=0.1, global_clipnorm=0.0)
    first, second = [[np.zeros_like(weight) for weight in weights] for _ in range(2)]
    for index, batch in enumerate(BATCHES):
        step(tensors(batch), {"total": tf.constant(STATES)}, index)
        _, gradients = numpy_gradients(weights, batch, STATES, 11)
        for place, gradient in enumerate(gradients):
            first[place] = 0.9 * first[place] + 0.1 * gradient
            second[place] = 0.999 * second[place] + 0.001 * gradient**2
            unbiased = first[place] / (1 - 0.9 ** (index + 1)), second[place] / (1 - 0.999 ** (index + 1))
            weights[place] -= 0.1 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-7)
    np.testing.assert_allclose(model.weights[1].numpy(), weights[1], atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "sgdw", "momentum", "adam", "adamw"])
@pytest.mark.parametrize(("spoiled", "value"), [("loss", "nan"), ("loss", "inf"), ("gradient", "nan")])
def test_what_is_not_finite_changes_nothing(optimizer, spoiled, value):
    model = make_model(SpoiledModel)
    step = make_step(model, optimizer=optimizer, clipnorm=0.5)
    _, states = step(tensors(BATCHES[0]), {"total": tf.constant(STATES)}, 0)
    kept = values([*model.weights, *step.optimizer.variables, *states.values()])
    factor = getattr(model, f"{spoiled}_factor")

    factor.assign(float(value))
    result, states = step(tensors(BATCHES[1]), states, 1)
    assert not bool(result.applied)
    for before, after in zip(
        kept, values([*model.weights, *step.optimizer.variables, *states.values()]), strict=True
    ):
        assert before.tobytes() == after.tobytes()

    factor.assign(1.0)
    result, _ = step(tensors(BATCHES[1]), states, 2)
    assert bool(result.applied)
    assert all(np.isfinite(weight).all() for weight in values(model.weights))
    assert any((before != after).any() for before, after in zip(kept, values(model.weights), strict=False))


def test_some_rows_start_from_zero_at_random():
    model = make_model()
    lanes = 400
    batch = {name: tf.tile(value[:1], [lanes, 1]) for name, value in tensors(BATCHES[0]).items()}
    read = BATCHES[0]["inputs"][0].sum()
    carried = tf.fill([lanes, 1], 100.0)

    def reset(chance, step, seed=1):
        _, states = make_step(model, state_reset=chance, seed=seed)(batch, {"total": carried}, step)
        assert set(np.unique(states["total"])) <= {read, read + 100.0}
        return states["total"].numpy()[:, 0] == read

    assert not reset(0.0, 0).any()
    assert reset(1.0, 0).all()
    some = reset(0.25, 0)
    assert some.mean() == pytest.approx(0.25, abs=0.08)
    assert (some == reset(0.25, 0)).all()
    assert (some != reset(0.25, 1)).any()
    assert (some != reset(0.25, 0, seed=2)).any()


SHARED = """
import pickle, sys
import keras, numpy as np, tensorflow as tf
from pathlib import Path
from serving.program import UserError
from tiny import BigramModel, tiny
from training.train import train
from zoo.models import TASKS

class Keep(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        weights.append([weight.numpy() for weight in self.model.weights])
        step.append(self.model.perplexity.result()["nats_per_token"].numpy())

weights, step = [], []
"""

MIRRORED = (
    SHARED
    + """
TASKS["language_model"] = BigramModel
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
try:
    (Path(sys.argv[1]) / "uneven").mkdir()
    train(tiny(Path(sys.argv[1]) / "uneven", strategy="mirrored", batch_size=3))
except UserError as error:
    results = {"uneven": str(error)}
for strategy, lanes in (("one_device", 2), ("mirrored", 1)):
    folder = Path(sys.argv[1], strategy)
    folder.mkdir()
    config = tiny(folder, strategy=strategy, state_reset=0.0, optimizer="momentum", learning_rate=0.3,
                  clipnorm=0.1, max_steps=30, evaluate_every=30, evaluation_batch_size=lanes)
    train(config, [Keep()])
    results[strategy] = weights.pop(), step.pop()
pickle.dump(results, open(sys.argv[2], "wb"))
"""
)


def run_python(code, *arguments, **environment):
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_two_devices_train_the_weights_of_one(tmp_path):
    """The bigram model's `shift` learns from carried states, so these are carried on both devices."""
    results = tmp_path / "results.pickle"
    finish(run_python(MIRRORED, tmp_path, results))
    got = np.load(results, allow_pickle=True)
    assert got["uneven"] == "--batch_size=3 must be a multiple of the 2 replicas"
    (one, one_loss), (two, two_loss) = got["one_device"], got["mirrored"]
    for expected, weight in zip(one, two, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6)
        assert np.abs(expected).max() > 1e-3
    assert two_loss == pytest.approx(one_loss, rel=1e-5)


WORKER = (
    SHARED
    + """
folder, kept, max_steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
config = tiny(folder, strategy="multi_worker", max_steps=max_steps, schedule="constant", dropout=0.2)
train(config, [Keep()])
pickle.dump((weights, step), open(kept, "wb"))
"""
)


@pytest.mark.slow
def test_two_workers_train_the_same_weights_and_resume(tmp_path):
    def run(name, max_steps):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "text.txt").write_text(prose(400))
        with socket.socket() as one, socket.socket() as two:
            ports = []
            for free in (one, two):
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        kept = [tmp_path / f"{name}{index}.pickle" for index in range(2)]
        workers = [
            run_python(
                WORKER,
                *(tmp_path / name, path, max_steps),
                TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            )
            for index, path in enumerate(kept)
        ]
        for worker in workers:
            finish(worker)
        return [np.load(path, allow_pickle=True) for path in kept]

    whole, resumed = run("whole", 24), (run("parts", 14), run("parts", 24))[1]
    for other in (whole[1], *resumed):
        assert other[1] == whole[0][1]
        for expected, weight in zip(whole[0][0][0], other[0][0], strict=True):
            assert expected.tobytes() == weight.tobytes()
