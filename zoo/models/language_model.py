"""Recurrent language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from zoo.metrics import Perplexity, unigram_perplexity
from zoo.models import language_model_signatures
from zoo.models.base import TaskModel, Tensors, learn_tokenizer, padded
from zoo.models.stack_options import StackOptions, unit_variance
from zoo.text import TOKENIZERS, Tokenizer


class LanguageModel(TaskModel):
    """P(x_(t+1) | x_t, ..., x_1): embedding, recurrent stack, softmax over the vocabulary.

        e_t = E x_t,   h_t = RNN(h_(t-1), e_t),   P(x_(t+1)) = softmax(U h_t + b_2)

    (CS224N lecture 6.) A text begins after a line end: the first token is predicted from the
    tokenizer's boundary token and the zero state. With `separate_texts`, a text also ends with it.

    Args:
        tokenizer: how texts become ids.
        cell, cell_options and further options by name: those of `StackOptions`, of one direction.
        embedding_size: of the input embedding; 0 stands for `units`.
        output_dropout: on the stack's outputs; -1 stands for `dropout`.
        embedding_dropout: share of the words whose embeddings are dropped, the same ones in a whole
            batch (Gal and Ghahramani 2016, arXiv:1512.05287).
        activation_regularization, temporal_activation_regularization: see `regularization`.
        tie_embeddings: the output layer uses the input embedding.
        separate_texts: the training texts were examples of their own, not one continuous text.

    Embeddings and output layer start as `initializer_scale` says, too, but for the latter's bias of zero;
    the output layer computes in the precision of the weights.
    """

    STARTS_FROM_OTHERS = True
    OPTIONS = (
        *("embedding_size", "output_dropout", "embedding_dropout", "activation_regularization"),
        *("temporal_activation_regularization", "tie_embeddings", "separate_texts"),
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        cell: str = "lstm",
        cell_options: Mapping[str, Any] | None = None,
        *,
        embedding_size: int = 0,
        output_dropout: float = -1.0,
        embedding_dropout: float = 0.0,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        tie_embeddings: bool = False,
        separate_texts: bool = False,
        **stack_options: Any,
    ):
        options = StackOptions(cell, cell_options or {}, **stack_options)
        super().__init__(name="language_model", dtype=options.precision)
        self.autocast = False  # states keep their precision
        self.tokenizer = tokenizer
        self.separate_texts = separate_texts
        self.activation_regularization = activation_regularization
        self.temporal_activation_regularization = temporal_activation_regularization
        cells = options.cells()
        size = embedding_size or options.units
        start = unit_variance(size if tie_embeddings else 1)
        self.embedding = options.embedding("embedding", tokenizer.vocabulary_size, size, start)
        self.embedding_dropout = keras.layers.Dropout(embedding_dropout, name="embedding_dropout")
        self.stack = options.stack(cells, size)
        self.output_dropout = options.output_dropout(output_dropout, options.locked_dropout)
        tied_to = self.embedding if tie_embeddings else None
        self.head = options.softmax(tokenizer.vocabulary_size, self.stack.output_size, tied_to)
        self.perplexity = Perplexity()
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        return cls._made(learn_tokenizer(records, options, source), options)

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        return cls._made(tokenizer, options)

    @classmethod
    def _made(cls, tokenizer, options):
        return cls(tokenizer, **StackOptions.chosen(options, cls.OPTIONS))

    def assets(self):
        return self.tokenizer.assets()

    def features(self, records):
        """texts [batch] -> ragged int32 `inputs` and `targets`, each token's predecessor and itself."""
        targets = self.tokenizer.tokenize(records["text"])
        boundary = tf.fill([targets.nrows(), 1], self.tokenizer.boundary_id)
        if self.separate_texts:
            targets = tf.concat([targets, boundary], axis=1)
        return {"inputs": tf.concat([boundary, targets], axis=1)[:, :-1], "targets": targets}

    @property
    def encoding_size(self):
        return self.stack.output_size

    def encode(self, text, training=False):
        """The last layer's output after the last token."""
        tokens = self.tokenizer.tokenize(text)
        boundary = tf.fill([tokens.nrows(), 1], self.tokenizer.boundary_id)
        batch = padded({"inputs": tf.concat([boundary, tokens], axis=1)})
        embedded = self._embedded(batch["inputs"], training)
        outputs, _ = self.stack(embedded, mask=batch["mask"], training=training)
        last = tf.math.count_nonzero(batch["mask"], axis=1) - 1
        return tf.cast(tf.gather(outputs, last, batch_dims=1), self.variable_dtype)

    def encoder_layers(self):
        return [self.embedding, self.stack]

    def layer_groups(self):
        layers = reversed(self.stack.layer_variables())
        return [self.head.trainable_variables, *layers, self.embedding.trainable_variables]

    def initial_states(self, batch_size):
        return self.stack.get_initial_state(batch_size)

    def call(self, batch, states=None, training=False):
        embedded = self._embedded(batch["inputs"], training)
        undropped, states = self.stack(embedded, initial_state=states, training=training)
        undropped = tf.cast(undropped, self.variable_dtype)
        hidden = self.output_dropout(undropped, training=training)
        return {"hidden": hidden, "undropped": undropped, "states": states}

    def _embedded(self, ids, training):
        embedded = self.embedding(ids)
        if not (training and self.embedding_dropout.rate):
            return embedded
        kept = self.embedding_dropout(tf.ones([self.tokenizer.vocabulary_size, 1]), training=True)
        return embedded * tf.cast(tf.gather(kept, ids), embedded.dtype)  # [batch, time, 1]

    def loss(self, batch, outputs):
        hidden = outputs["hidden"]
        weights = tf.cast(tf.reshape(batch["mask"], [-1]), hidden.dtype)
        tokens = batch["targets"].shape.num_elements() or -1  # the head takes a known number in chunks
        hidden = tf.reshape(hidden, [tokens, hidden.shape[-1]])
        return self.head.loss(hidden, tf.reshape(batch["targets"], [-1]), weights), tf.reduce_sum(weights)

    def regularization(self, batch, outputs):
        """Per token, alpha * mean((m * h_t)^2) + beta * mean((h_t - h_(t-1))^2), over the units of h.

        h is the stack's output, m * h that after dropout; alpha is the activation regularization, beta the
        temporal one, which a sequence's first token goes without.

        Source: Merity et al. 2017, arXiv:1708.02182, section 4.6. Differs from the paper: means of squares,
        as in the authors' code, where the paper has L2 norms.
        """
        weights = tf.cast(batch["mask"], self.variable_dtype)  # [batch, time]
        total = tf.zeros([], self.variable_dtype)
        if self.activation_regularization:
            squares = tf.reduce_mean(tf.square(outputs["hidden"]), axis=-1)
            total += self.activation_regularization * tf.reduce_sum(weights * squares)
        if self.temporal_activation_regularization:
            change = outputs["undropped"][:, 1:] - outputs["undropped"][:, :-1]
            squares = tf.reduce_mean(tf.square(change), axis=-1)
            total += self.temporal_activation_regularization * tf.reduce_sum(weights[:, 1:] * squares)
        return total

    def update_metrics(self, batch, outputs):
        characters = tf.gather(self.tokenizer.characters, batch["targets"])
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
        return unigram_perplexity(
            self.tokenizer.characters,
            (batch["targets"][batch["mask"]] for batch in training),
            (batch["targets"][batch["mask"]] for batch in validation),
        )

    def signatures(self):
        return language_model_signatures.signatures(self)

    def narrow_signatures(self, signatures):
        return language_model_signatures.narrow(self, signatures)

    def requests(self):
        return language_model_signatures.requests(self)

    def tables(self):
        return [self.tokenizer]
