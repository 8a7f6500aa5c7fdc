"""Recurrent language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.heads.base import unit_variance
from zoo.models import language_model_signatures
from zoo.models.base import embed_signature, learn_tokenizer, padded
from zoo.models.next_token import NextTokenModel
from zoo.models.stack_options import StackOptions
from zoo.text import TOKENIZERS, Tokenizer, batched
from zoo.vocabulary import count

HISTORY = "history"  # the last words read: a state, and an output, where the output layer looks at them


class LanguageModel(NextTokenModel):
    """P(x_(t+1) | x_t, ..., x_1): embedding, recurrent stack, softmax over the vocabulary.

        e_t = E x_t,   h_t = RNN(h_(t-1), e_t),   P(x_(t+1)) = softmax(U h_t + b_2)

    (CS224N lecture 6.) The first token is predicted from the boundary token and the zero state.

    Args:
        tokenizer: how texts become ids.
        cell, cell_options and further options by name: those of `StackOptions`, of one direction.
        embedding_size: of the input embedding; 0 stands for `units`.
        last_units: size of the last layer; 0 stands for `units`. Tied embeddings have to be of this size.
        output_dropout: on the stack's outputs; -1 stands for `dropout`.
        embedding_dropout: share of the words whose embeddings are dropped, the same ones in a whole
            batch (Gal and Ghahramani 2016, arXiv:1512.05287).
        activation_regularization, temporal_activation_regularization: see `regularization`.
        input_layer, input_options: what makes a vector of a word, a name of INPUT_LAYERS, and further
            arguments of that class.
        output_layer, output_options: a name of zoo.heads.HEADS, and further arguments of that class.
        tie_embeddings: the output layer uses the input embedding.
        separate_texts: the training texts were examples of their own, not one continuous text.

    Embeddings and output layer start as `initializer_scale` says, too, but for the latter's bias of zero;
    the output layer computes in the precision of the weights.
    """

    STARTS_FROM_OTHERS = True
    OPTIONS = (
        *("embedding_size", "output_dropout", "embedding_dropout", "activation_regularization"),
        *("temporal_activation_regularization", "output_layer", "output_options", "tie_embeddings"),
        *("separate_texts", "last_units", "input_layer", "input_options"),
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        cell: str = "lstm",
        cell_options: Mapping[str, Any] | None = None,
        *,
        embedding_size: int = 0,
        last_units: int = 0,
        output_dropout: float = -1.0,
        embedding_dropout: float = 0.0,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        input_layer: str = "embedding",
        input_options: Mapping[str, Any] | None = None,
        output_layer: str = "full",
        output_options: Mapping[str, Any] | None = None,
        tie_embeddings: bool = False,
        separate_texts: bool = False,
        **stack_options: Any,
    ):
        options = StackOptions(cell, cell_options or {}, **stack_options)
        super().__init__(tokenizer, separate_texts, options.precision)
        self.activation_regularization = activation_regularization
        self.temporal_activation_regularization = temporal_activation_regularization
        cells = options.cells(last_units)
        size = embedding_size or options.units
        self.embedding = _input_layer(options, tokenizer, size, tie_embeddings, input_layer, input_options)
        self.embedding_dropout = keras.layers.Dropout(embedding_dropout, name="embedding_dropout")
        self.stack = options.stack(cells, size)
        self.output_dropout = options.output_dropout(output_dropout, options.locked_dropout)
        tied_to = self.embedding if tie_embeddings else None
        self.head = options.softmax(
            tokenizer.vocabulary_size, self.stack.output_size, tied_to, output_layer, output_options
        )
        self.loss_is_cross_entropy = self.head.loss_is_cross_entropy
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        tokenizer = learn_tokenizer(records, options, source)
        if "admit" in options:
            options["admit"](tokenizer.vocabulary_size)
        model = cls._made(tokenizer, options)
        if model.head.needs_counts:
            model.head.set_counts(model._target_counts(records))
        return model

    def _target_counts(self, records):
        """How often each token is to be predicted, [vocabulary]."""
        texts = batched(records.map(lambda record: record["text"]))
        counts = count(texts.map(lambda text: self.features({"text": text})["targets"].flat_values))
        return np.array([counts[token] for token in range(self.tokenizer.vocabulary_size)])

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        return cls._made(tokenizer, options)

    @classmethod
    def _made(cls, tokenizer, options):
        return cls(tokenizer, **StackOptions.chosen(options, cls.OPTIONS))

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

    @property
    def state_size(self) -> dict[str, int]:
        """Of each state its size: those of the stack, and how many words the output layer looks back."""
        history = {HISTORY: self.head.history_size} if self.head.history_size else {}
        return {**self.stack.state_size, **history}

    def initial_states(self, batch_size):
        states = self.stack.get_initial_state(batch_size)
        if size := self.head.history_size:
            states[HISTORY] = tf.fill([batch_size, size], self.tokenizer.boundary_id)
        return states

    def call(self, batch, states=None, training=False):
        inputs = batch["inputs"]
        states = dict(self.initial_states(tf.shape(inputs)[0]) if states is None else states)
        history = states.pop(HISTORY, None)
        embedded = self._embedded(inputs, training)
        undropped, states = self.stack(embedded, initial_state=states, training=training)
        undropped = tf.cast(undropped, self.variable_dtype)
        outputs = {"hidden": self.output_dropout(undropped, training=training), "undropped": undropped}
        if history is not None:
            outputs[HISTORY], states[HISTORY] = _histories(history, inputs)
        return {**outputs, "states": states}

    def read(self, inputs, lengths):
        mask = tf.sequence_mask(lengths, tf.shape(inputs)[1])
        hidden, states = self.stack(self.embedding(inputs), mask=mask)
        contexts = {"hidden": hidden}
        if size := self.head.history_size:
            before = self.initial_states(tf.shape(inputs)[0])[HISTORY]
            contexts[HISTORY], _ = _histories(before, inputs)
            places = tf.cast(lengths, tf.int32)[:, tf.newaxis] + tf.range(size)
            states[HISTORY] = tf.gather(tf.concat([before, inputs], axis=1), places, batch_dims=1)
        return contexts, states

    def step_weights(self):
        return self.stack.step_weights()

    def step(self, token, states, step_weights=None):
        states = dict(states)
        history = states.pop(HISTORY, None)
        hidden, states = self.stack.step(self.embedding(token), states, step_weights)
        contexts = {"hidden": hidden}
        if history is not None:
            contexts[HISTORY] = states[HISTORY] = tf.concat([history[:, 1:], token[:, tf.newaxis]], axis=1)
        return contexts, states

    def logits(self, contexts):
        return tf.cast(self.head(contexts["hidden"], history=contexts.get(HISTORY)), tf.float32)

    def _embedded(self, ids, training):
        embedded = self.embedding(ids)
        if not (training and self.embedding_dropout.rate):
            return embedded
        kept = self.embedding_dropout(tf.ones([self.tokenizer.vocabulary_size, 1]), training=True)
        return embedded * tf.cast(tf.gather(kept, ids), embedded.dtype)  # [batch, time, 1]

    def loss(self, batch, outputs):
        hidden = outputs["hidden"]
        weights = tf.cast(tf.reshape(batch["mask"], [-1]), hidden.dtype)
        tokens = batch["targets"].shape.num_elements() or -1  # of a known number no loop is made
        hidden = tf.reshape(hidden, [tokens, hidden.shape[-1]])
        targets = tf.reshape(batch["targets"], [-1])
        return self.head.loss(hidden, targets, weights, self._history(outputs)), tf.reduce_sum(weights)

    def _history(self, outputs):
        """What the output layer reads beside `hidden`, [tokens, history_size]."""
        return tf.reshape(outputs[HISTORY], [-1, self.head.history_size]) if HISTORY in outputs else None

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

    def token_log_prob(self, batch, outputs):
        hidden = outputs["hidden"]
        rows = tf.reshape(hidden, [-1, hidden.shape[-1]])
        log_prob = self.head.log_prob(rows, tf.reshape(batch["targets"], [-1]), self._history(outputs))
        return tf.where(batch["mask"], tf.reshape(log_prob, tf.shape(batch["targets"])), 0.0)

    def signatures(self):
        contrastive = language_model_signatures.contrastive(self)
        return {**super().signatures(), "contrastive": contrastive, "embed": embed_signature(self)}

    def requests(self):
        requests = super().requests()
        return {
            **requests,
            "contrastive": requests["start"] | {"max_new_tokens": [20]},
            "embed": requests["score"],
        }


def _input_layer(
    options: StackOptions,
    tokenizer: Tokenizer,
    size: int,
    is_tied: bool,
    kind: str,
    further: Mapping[str, Any] | None,
) -> keras.layers.Layer:
    """Ids [...] -> vectors [..., size], built."""
    if kind == "embedding":
        return options.embedding(kind, tokenizer.vocabulary_size, size, unit_variance(), is_tied)
    if is_tied:
        raise ValueError(f"tied embeddings: --input_layer={kind} has no vector a word to share")
    return options.character_cnn(kind, tokenizer.pieces, size, further or {})


def _histories(before, inputs):
    """The last words at each place of inputs [batch, time], [batch, time, size], and those after all of them.

    `before` [batch, size] are the words before the first one.
    """
    words, size = tf.concat([before, inputs], axis=1), before.shape[1]
    return tf.signal.frame(words[:, 1:], size, 1), words[:, -size:]
