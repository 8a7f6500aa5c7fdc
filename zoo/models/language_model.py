"""Recurrent language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.cells import CELLS
from zoo.heads import FullSoftmax
from zoo.metrics import Perplexity
from zoo.models import language_model_serving
from zoo.models.base import TaskModel, Tensors
from zoo.text import TOKENIZERS, Tokenizer
from zoo.wrappers import Stack


class LanguageModel(TaskModel):
    """P(x_(t+1) | x_t, ..., x_1): embedding, recurrent stack, softmax over the vocabulary.

        e_t = E x_t,   h_t = RNN(h_(t-1), e_t),   P(x_(t+1)) = softmax(U h_t + b_2)

    (CS224N lecture 6.) A text begins after a line end: the first token is predicted from the
    tokenizer's boundary token and the zero state. With `separate_texts`, a text also ends with it.

    Args:
        tokenizer: how texts become ids.
        cell, cell_options: a name of zoo.cells.CELLS, and arguments of that class beyond `units`.
        layers, units, skip: of the recurrent stack.
        embedding_size: of the input embedding; 0 stands for `units`.
        dropout: on the connections from embedding to output layer, none of them through time.
        input_dropout: on the embeddings; -1 stands for `dropout`.
        tie_embeddings: the output layer uses the input embedding.
        initializer_scale: weights start uniform in [-scale, scale], but for an LSTM's `forget_bias` and
            the output layer's bias of zero; 0 for each layer's own start.
        separate_texts: the training texts were examples of their own, not one continuous text.
    """

    OPTIONS = (
        *("cell", "cell_options", "layers", "units", "skip", "embedding_size", "dropout", "input_dropout"),
        *("tie_embeddings", "initializer_scale", "separate_texts"),
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        cell: str = "lstm",
        cell_options: Mapping[str, Any] | None = None,
        layers: int = 1,
        units: int = 256,
        skip: str = "none",
        embedding_size: int = 0,
        dropout: float = 0.0,
        input_dropout: float = -1.0,
        tie_embeddings: bool = False,
        initializer_scale: float = 0.0,
        separate_texts: bool = False,
    ):
        super().__init__(name="language_model")
        self.tokenizer = tokenizer
        self.separate_texts = separate_texts
        cells = [
            CELLS[cell](
                units, name=f"{cell}_{index}", **{**_cell_starts(initializer_scale), **(cell_options or {})}
            )
            for index in range(layers)
        ]
        # Inputs of unit variance, for which the kernels' initializers are meant; as an output layer's
        # weights, a tied embedding has to start smaller.
        spread = (embedding_size or units) ** -0.5 if tie_embeddings else 1.0
        self.embedding = keras.layers.Embedding(
            tokenizer.vocabulary_size,
            embedding_size or units,
            embeddings_initializer=_start(initializer_scale) or keras.initializers.RandomNormal(0.0, spread),
            name="embedding",
        )
        self.stack = Stack(cells, skip, dropout, None if input_dropout < 0 else input_dropout, name="stack")
        self.output_dropout = keras.layers.Dropout(dropout, name="output_dropout")
        self.head = FullSoftmax(
            tokenizer.vocabulary_size,
            tied_to=self.embedding if tie_embeddings else None,
            initializer=_start(initializer_scale) or "glorot_uniform",
            name="head",
        )
        self.perplexity = Perplexity()
        self.embedding.build((None, None))
        self.stack.build((None, None, embedding_size or units))
        self.head.build((None, self.stack.output_size))
        self.built = True

    @classmethod
    def learn(cls, records, options):
        texts = records.map(lambda record: record["text"])
        tokenizer = TOKENIZERS[options["tokenizer"]].learn(texts, options["vocabulary_size"])
        return cls(tokenizer, **{name: options[name] for name in cls.OPTIONS})

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        return cls(tokenizer, **{name: options[name] for name in cls.OPTIONS})

    def assets(self):
        return self.tokenizer.assets()

    def features(self, records):
        """texts [batch] -> ragged int32 `inputs` and `targets`, each token's predecessor and itself."""
        targets = self.tokenizer.tokenize(records["text"])
        boundary = tf.fill([targets.nrows(), 1], self.tokenizer.boundary_id)
        if self.separate_texts:
            targets = tf.concat([targets, boundary], axis=1)
        return {"inputs": tf.concat([boundary, targets], axis=1)[:, :-1], "targets": targets}

    def initial_states(self, batch_size):
        return self.stack.get_initial_state(batch_size)

    def call(self, batch, states=None, training=False):
        hidden, states = self.stack(self.embedding(batch["inputs"]), initial_state=states, training=training)
        return {"hidden": self.output_dropout(hidden, training=training), "states": states}

    def loss(self, batch, outputs):
        hidden = outputs["hidden"]
        weights = tf.cast(tf.reshape(batch["mask"], [-1]), hidden.dtype)
        tokens = batch["targets"].shape.num_elements() or -1  # the head takes a known number in chunks
        hidden = tf.reshape(hidden, [tokens, hidden.shape[-1]])
        return self.head.loss(hidden, tf.reshape(batch["targets"], [-1]), weights), tf.reduce_sum(weights)

    def update_metrics(self, batch, outputs):
        characters = tf.gather(self._characters(), batch["targets"])
        self.perplexity.update_state(
            nats=-tf.reduce_sum(self.token_log_prob(batch, outputs)),
            tokens=tf.math.count_nonzero(batch["mask"]),
            characters=tf.reduce_sum(tf.where(batch["mask"], characters, 0)),
        )

    def token_log_prob(self, batch: Tensors, outputs: Tensors) -> tf.Tensor:
        """log P of each target in nats, [batch, time]; 0 where there is padding."""
        hidden = outputs["hidden"]
        rows = tf.reshape(hidden, [-1, hidden.shape[-1]])
        log_prob = self.head.log_prob(rows, tf.reshape(batch["targets"], [-1]))
        return tf.where(batch["mask"], tf.reshape(log_prob, tf.shape(batch["targets"])), 0.0)

    def objective(self, metrics):
        return metrics["nats_per_token"]

    def baseline(self, training, validation):
        """The unigram model: each token's frequency in training, plus one."""
        counts = np.ones(self.tokenizer.vocabulary_size)
        for batch in training:
            counts += np.bincount(batch["targets"][batch["mask"]], minlength=len(counts))
        log_prob = np.log(counts / counts.sum())
        unigram = Perplexity()
        for batch in validation:
            targets = batch["targets"][batch["mask"]]
            unigram.update_state(-log_prob[targets].sum(), len(targets), self._characters()[targets].sum())
        return {name: float(value) for name, value in unigram.result().items()}

    def _characters(self) -> np.ndarray:
        """The number of characters that each id stands for: of UTF-8, all but continuation bytes."""
        return np.array(
            [sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.tokenizer.pieces], np.int32
        )

    def signatures(self):
        return language_model_serving.signatures(self)

    def requests(self):
        return language_model_serving.requests(self)

    def tables(self):
        return [self.tokenizer]


def _start(scale: float) -> keras.initializers.Initializer | None:
    """How one weight starts. Never shared: an initializer gives all weights of a shape the same numbers."""
    return keras.initializers.RandomUniform(-scale, scale) if scale else None


def _cell_starts(scale: float) -> dict[str, keras.initializers.Initializer]:
    weights = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
    return {weight: initializer for weight in weights if (initializer := _start(scale))}
