"""Texts, settings and models so small that whole training runs take a second."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.config import Config
from zoo.metrics import Perplexity
from zoo.models import TaskModel
from zoo.text import Characters

WORDS = ("a", "rose", "is", "of", "red", "and", "grey", "or", "so", "goes")
DEADLINE = 120  # seconds until a test gives up on a process; nothing is expected to take that long


def prose(words: int, seed: int = 1) -> str:
    """Lines of five words."""
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + ("\n" if place % 5 == 4 else " ") for place in range(words))


def tiny(folder: Path, text: str | None = None, **settings: Any) -> Config:
    """A configuration of a model of eight units, and its text in a file of the folder."""
    path = folder / "text.txt"
    if text is not None or not path.exists():
        path.write_text(prose(400) if text is None else text, encoding="utf-8")
    defaults: dict[str, Any] = {
        "dataset": f"text:{path}",
        "output_dir": str(folder / "model"),
        "units": 8,
        "batch_size": 4,
        "sequence_length": 8,
        "max_steps": 24,
        "evaluate_every": 9,
        "checkpoint_every": 4,
    }
    return Config(**{**defaults, **settings})


def program_command(name: str, *arguments: str) -> list[str]:
    """The command line of a program of the zoo, such as zoo_train."""
    return [sys.executable, "-c", f"from serving import program; program.{name}()", *arguments]


def flags_of(config: Config) -> list[str]:
    """The flags that differ from the defaults."""
    values, defaults = vars(config), vars(Config())
    return [f"--{name}={value}" for name, value in values.items() if value != defaults[name]]


class BigramModel(TaskModel):
    """log P(next | token) is a row of a table, shifted by what was read before; traces in no time.

    Its state, one number a row, adds up all token ids ever read, and so tells whether it was carried.
    """

    SHIFT = 1e-4

    def __init__(self, tokenizer: Characters, dropout: float = 0.0, separate_texts: bool = False):
        super().__init__(name="bigram")
        self.tokenizer = tokenizer
        self.separate_texts = separate_texts
        size = tokenizer.vocabulary_size
        self.table = keras.layers.Embedding(size, size, name="table")
        self.shift = self.add_weight(name="shift", shape=(size,), initializer="zeros")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.perplexity = Perplexity()
        self.table.build((None, None))
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        tokenizer = Characters.learn(records.map(lambda record: record["text"]), options["vocabulary_size"])
        return cls(tokenizer, options["dropout"], options["separate_texts"])

    @classmethod
    def restore(cls, options, assets):
        return cls(Characters.from_assets(assets), options["dropout"], options["separate_texts"])

    def assets(self):
        return self.tokenizer.assets()

    def features(self, records):
        targets = self.tokenizer.tokenize(records["text"])
        boundary = tf.fill([targets.nrows(), 1], self.tokenizer.boundary_id)
        return {"inputs": tf.concat([boundary, targets], axis=1)[:, :-1], "targets": targets}

    def initial_states(self, batch_size):
        return {"total": tf.zeros([batch_size, 1])}

    def call(self, batch, states=None, training=False):
        ids = tf.cast(batch["inputs"], tf.float32)
        start = tf.zeros([tf.shape(ids)[0], 1]) if states is None else states["total"]
        total = start + tf.cumsum(ids, axis=1)  # [batch, time]
        logits = self.dropout(self.table(batch["inputs"]), training=training)
        logits += self.SHIFT * total[:, :, tf.newaxis] * tf.convert_to_tensor(self.shift)
        return {"logits": logits, "states": {"total": total[:, -1:]}}

    def loss(self, batch, outputs):
        weights = tf.cast(batch["mask"], tf.float32)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["targets"], outputs["logits"])
        return tf.reduce_sum(weights * nats), tf.reduce_sum(weights)

    def update_metrics(self, batch, outputs):
        nats, tokens = self.loss(batch, outputs)
        self.perplexity.update_state(nats, tokens, tokens)

    def objective(self, metrics):
        return metrics["nats_per_token"]

    def baseline(self, training, validation):
        return {}


class SpoiledModel(BigramModel):
    """A bigram model. Its loss, or the gradient alone, becomes what the variables say."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_factor, self.gradient_factor = tf.Variable(1.0), tf.Variable(1.0)

    def loss(self, batch, outputs):
        nats, count = super().loss(batch, outputs)

        loss_factor, gradient_factor = self.loss_factor + 0.0, self.gradient_factor + 0.0

        @tf.custom_gradient
        def spoiled(value):
            return value * loss_factor, lambda upstream: upstream * gradient_factor

        return spoiled(nats), count
