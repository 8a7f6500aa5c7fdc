"""What language models of all kinds have in common: they predict each token from those before it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from zoo.metrics import Perplexity, unigram_perplexity
from zoo.models import language_model_signatures
from zoo.models.base import TaskModel, Tensors
from zoo.text import Tokenizer


class NextTokenModel(TaskModel):
    """P(x_(t+1) | x_t, ..., x_1).

    A text begins after a line end: its first token is predicted from the tokenizer's boundary token. With
    `separate_texts`, a text also ends with it.

    Args:
        tokenizer: how texts become ids.
        separate_texts: the training texts were examples of their own, not one continuous text.
    """

    def __init__(self, tokenizer: Tokenizer, separate_texts: bool, dtype: str | keras.DTypePolicy):
        super().__init__(name="language_model", dtype=dtype)
        self.autocast = False  # states keep their precision
        self.tokenizer = tokenizer
        self.separate_texts = separate_texts
        self.perplexity = Perplexity()

    def assets(self):
        return self.tokenizer.assets()

    def features(self, records):
        """texts [batch] -> ragged int32 `inputs` and `targets`, each token's predecessor and itself."""
        targets = targets_of(self.tokenizer, records["text"], self.separate_texts)
        boundary = tf.fill([targets.nrows(), 1], self.tokenizer.boundary_id)
        return {"inputs": tf.concat([boundary, targets], axis=1)[:, :-1], "targets": targets}

    def token_log_prob(self, batch: Tensors, outputs: Tensors) -> tf.Tensor:
        """log P of each target in nats, [batch, time]; 0 where there is padding."""
        raise NotImplementedError

    @property
    def state_size(self) -> dict[str, int]:
        """The width of each state by name, in the order in which a generation state holds them."""
        raise NotImplementedError

    def read(self, inputs: tf.Tensor, lengths: tf.Tensor) -> tuple[Tensors, Tensors]:
        """Inputs, int32 [batch, time], from the beginning of a text on.

        Gives the contexts, [batch, time, ...], which `logits` makes the predictions of each place from, and
        the states after so many of the inputs.
        """
        raise NotImplementedError

    def step_weights(self) -> Any:
        """What `step` makes of the weights, for all steps of a loop at once."""
        return None

    def step(self, token: tf.Tensor, states: Tensors, step_weights: Any = None) -> tuple[Tensors, Tensors]:
        """One more token, int32 [batch]: the context after it, [batch, ...], and the new states.

        A loop around it passes what `step_weights` gave.
        """
        raise NotImplementedError

    def logits(self, contexts: Tensors) -> tf.Tensor:
        """float32 [n, vocabulary] of what follows contexts [n, ...]."""
        raise NotImplementedError

    def update_metrics(self, batch, outputs):
        characters = tf.gather(self.tokenizer.characters, batch["targets"])
        self.perplexity.update_state(
            nats=-tf.reduce_sum(self.token_log_prob(batch, outputs)),
            tokens=tf.math.count_nonzero(batch["mask"]),
            characters=tf.reduce_sum(tf.where(batch["mask"], characters, 0)),
        )

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


def targets_of(tokenizer: Tokenizer, texts: tf.Tensor, separate_texts: bool) -> tf.RaggedTensor:
    """The tokens of texts [batch] that are to be predicted, int32 [batch, (tokens)]."""
    targets = tokenizer.tokenize(texts)
    if not separate_texts:
        return targets
    return tf.concat([targets, tf.fill([targets.nrows(), 1], tokenizer.boundary_id)], axis=1)
