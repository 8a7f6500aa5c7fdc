"""How fast does a word-level LSTM language model train, beside stock Keras and PyTorch?

    python benchmarks/word_language_model.py [--corpus=FILE] [--vocabulary_size=10000]

One training step each, in turns, each in a process of its own: embedding, LSTM layers, full softmax,
clipping by the global norm, SGD, states carried from batch to batch. The zoo's process keeps freed memory,
as zoo-train does; the others are as they come. Without --corpus the words are drawn from Zipf's distribution.
Prints words/s (medians), ratios, and the share of this machine's sgemm rate that the step's matrix
products reach. PyTorch is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))  # before this folder, which has a serving.py
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from interleaved import SGEMM_OPERATIONS, machine, measure, median, processes, sgemm

from serving.program import keep_freed_memory
from training.config import Config
from training.gradients import TrainStep
from training.schedules import make_optimizer
from zoo.models.language_model import LanguageModel
from zoo.text import TOKENIZERS, Whitespace

BATCH, STEPS, CLIP, RATE = 20, 35, 5.0, 1.0


def tokens(arguments) -> tuple[np.ndarray, int]:
    """Token ids of the corpus, and the size of its vocabulary."""
    if arguments.corpus:
        text = tf.constant(Path(arguments.corpus).read_text(encoding="utf-8"))
        dataset = tf.data.Dataset.from_tensors(text)
        tokenizer = TOKENIZERS["whitespace"].learn(dataset, arguments.vocabulary_size)
        return tokenizer.tokenize(text[tf.newaxis]).flat_values.numpy(), tokenizer.vocabulary_size
    size = arguments.vocabulary_size or 33278
    frequencies = 1 / np.arange(1, size + 1)
    ids = np.random.default_rng(0).choice(size, 200_000, p=frequencies / frequencies.sum())
    return ids.astype(np.int32), size


def batches(ids: np.ndarray):
    """Endless (inputs, targets), [BATCH, STEPS] each, from contiguous lanes."""
    lanes = ids[: len(ids) // BATCH * BATCH].reshape(BATCH, -1)
    while True:
        for start in range(0, lanes.shape[1] - STEPS - 1, STEPS):
            window = lanes[:, start : start + STEPS + 1]
            yield window[:, :-1].copy(), window[:, 1:].copy()


def zoo_step(size: int, units: int, layers: int, ids: np.ndarray, **options):
    """`options` are further ones of the language model."""
    keep_freed_memory()
    data = batches(ids)
    words = tuple(f" {index}".encode() for index in range(size))
    model = LanguageModel(Whitespace(words), cell="lstm", units=units, layers=layers, **options)
    if model.head.needs_counts:
        model.head.set_counts(np.bincount(ids, minlength=size))
    config = Config(optimizer="sgd", learning_rate=RATE, global_clipnorm=CLIP, state_reset=0.0)
    optimizer = make_optimizer(config)
    optimizer.build(model.trainable_variables)
    step = TrainStep(model, optimizer, config, tf.distribute.get_strategy())
    states = model.initial_states(BATCH)
    mask = tf.ones([BATCH, STEPS], tf.bool)

    def run():
        nonlocal states
        inputs, targets = next(data)
        batch = {"inputs": tf.constant(inputs), "targets": tf.constant(targets), "mask": mask}
        result, states = step(batch, states, 0)
        result.nats.numpy()

    return run


def keras_step(size: int, units: int, layers: int, ids: np.ndarray):
    data = batches(ids)
    inputs = keras.Input(batch_shape=(BATCH, STEPS), dtype="int32")
    hidden = keras.layers.Embedding(size, units)(inputs)
    for _ in range(layers):
        hidden = keras.layers.LSTM(units, return_sequences=True, stateful=True)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(size)(hidden))
    model.compile(
        keras.optimizers.SGD(RATE, global_clipnorm=CLIP),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return lambda: model.train_on_batch(*next(data))


def torch_step(size: int, units: int, layers: int, ids: np.ndarray):
    import torch

    data = batches(ids)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(size, units)
            self.lstm = torch.nn.LSTM(units, units, layers)
            self.output = torch.nn.Linear(units, size)

        def forward(self, inputs, states):
            hidden, states = self.lstm(self.embedding(inputs), states)
            return self.output(hidden), states

    model, loss_of = Model(), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    states = tuple(torch.zeros(layers, BATCH, units) for _ in range(2))

    def run():
        nonlocal states
        inputs, targets = (torch.from_numpy(array.T.astype(np.int64)) for array in next(data))
        optimizer.zero_grad()
        logits, states = model(inputs, tuple(state.detach() for state in states))
        loss = loss_of(logits.reshape(-1, size), targets.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        loss.item()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--corpus", default="", help="a file of words between spaces, such as wikitext2's")
    parser.add_argument("--vocabulary_size", type=int, default=0, help="most frequent words kept; 0: all")
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    ids, size = tokens(arguments)
    makers = {"zoo": zoo_step, "keras": keras_step}
    if importlib.util.find_spec("torch"):
        makers["pytorch"] = torch_step
    else:
        print("PyTorch is not installed: make bench")
    shape = (size, arguments.units, arguments.layers)
    with processes({name: functools.partial(make, *shape, ids) for name, make in makers.items()}) as steps:
        seconds = median(measure({**steps, "sgemm": sgemm()}, arguments.rounds))

    rate = SGEMM_OPERATIONS / seconds.pop("sgemm")
    products = 6 * BATCH * STEPS * (arguments.layers * 8 * arguments.units**2 + arguments.units * size)
    print(
        f"{machine()}; {arguments.layers} x {arguments.units} units, {size:,} words, batch {BATCH} x {STEPS}"
    )
    print(f"sgemm {rate / 1e9:,.0f} GFLOP/s; a step's products {products / 1e9:.1f} GFLOP")
    print(f"{'':10}{'ms/step':>9}{'words/s':>10}{'of sgemm':>10}{'zoo is':>9}")
    for name, value in seconds.items():
        print(
            f"{name:10}{value * 1e3:9.1f}{BATCH * STEPS / value:10,.0f}"
            f"{products / value / rate:10.0%}{value / seconds['zoo']:8.2f}x"
        )


if __name__ == "__main__":
    main()
