"""The contract of a task model: what trainer, evaluator and exporter know of a task.

    records -> features -> batch -> call -> outputs -> loss, metrics
                  \\-> signatures

`features` turns raw records into tensors inside the graph, and is used by the input pipeline and by
the exported signatures alike, so that training and serving cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from zoo.text import TOKENIZERS, Tokenizer

Tensors = dict[str, Any]


class TaskModel(keras.layers.Layer):
    """A trainable, servable model of one task.

    A batch is a dict of tensors: the features, padded to [batch, time, ...], and `mask`, bool
    [batch, time], False where there is padding of `inputs`.

    Attributes:
        FIELDS: what a record has to have.
        PREDICTIONS: what the loss is counted by.
        STARTS_FROM_OTHERS: `learn` takes over the vocabulary of a source.
        loss_is_cross_entropy: `loss` is -log P of what is predicted, or an estimate of it.
        separate_texts: records are examples of their own, not pieces of one continuous text.
    """

    FIELDS: tuple[str, ...] = ("text",)
    PREDICTIONS = "tokens"
    STARTS_FROM_OTHERS = False
    loss_is_cross_entropy = True
    separate_texts = True

    @classmethod
    def learn(
        cls, records: tf.data.Dataset, options: Mapping[str, Any], source: TaskModel | None = None
    ) -> TaskModel:
        """A new model: vocabularies from the training records, the rest from options (a Config's fields).

        With a `source`, whose weights it is to start from, vocabularies are those of that model. A language
        model calls the option `admit`, if there is one, with the vocabulary's size before it makes weights.

        Raises:
            ValueError: the records, options or source are not fit for it; says which and why.
        """
        raise NotImplementedError

    @classmethod
    def restore(cls, options: Mapping[str, Any], assets: Mapping[str, bytes]) -> TaskModel:
        """The model that `learn` made of these options, from its `assets`, with untrained weights."""
        raise NotImplementedError

    def assets(self) -> dict[str, bytes]:
        """Files that belong to the model beside its weights: vocabularies, labels."""
        raise NotImplementedError

    def features(self, records: Tensors) -> Tensors:
        """Tensors of a batch of raw records, in graph; ragged where lengths differ, as `inputs` is."""
        raise NotImplementedError

    def initial_states(self, batch_size: int) -> Tensors:
        """States that are carried from batch to batch in truncated back-propagation through time, by name."""
        return {}

    def call(self, batch: Tensors, states: Tensors | None = None, training: bool = False) -> Tensors:
        """Outputs of a batch; `states` among them, by name, where states are carried."""
        raise NotImplementedError

    def loss(self, batch: Tensors, outputs: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Total loss in nats, and the number of predictions it is the sum of; both scalars."""
        raise NotImplementedError

    def regularization(self, batch: Tensors, outputs: Tensors) -> tf.Tensor | float:
        """What training adds to the total loss, in nats; it is no part of the loss that is reported."""
        return 0.0

    def layer_groups(self) -> list[list[keras.Variable]]:
        """The trainable weights, from the output's to the input's, as they are unfrozen."""
        return [self.trainable_variables]

    def update_metrics(self, batch: Tensors, outputs: Tensors) -> None:
        """Add a batch to `metrics`, Keras metrics whose `result()` is a dict of the names reported."""
        raise NotImplementedError

    def objective(self, metrics: Mapping[str, float]) -> float:
        """The figure among the metrics' results that training minimizes."""
        raise NotImplementedError

    def baseline(self, training: Iterable[Tensors], validation: Iterable[Tensors]) -> dict[str, float]:
        """The metrics that a model without a network reaches, from batches: the bar to clear."""
        raise NotImplementedError

    def report(self) -> str:
        """What people may want to look at after an evaluation, beside the metrics' results; several lines."""
        return ""

    def judge(self, records: Iterable[Tensors]) -> dict[str, float]:
        """Metrics of what the model says when it is used, of batches of raw records; none where `metrics` say
        all there is to say."""
        return {}

    @property
    def encoding_size(self) -> int:
        """The size of what `encode` gives."""
        raise NotImplementedError

    def encode(self, text: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Texts, string [batch], as vectors [batch, encoding_size]."""
        raise NotImplementedError

    def encoder_layers(self) -> list[keras.layers.Layer]:
        """Those that `encode` uses."""
        raise NotImplementedError

    def signatures(self) -> dict[str, tf.types.experimental.PolymorphicFunction]:
        """Functions to export, by signature name; defaults of arguments become signature defaults."""
        raise NotImplementedError

    def narrow_signatures(self, signatures: Mapping[str, Any]) -> dict[str, Any]:
        """Of those signatures that have inputs beyond what callers may rely on: functions without these."""
        return {}

    def requests(self) -> dict[str, dict[str, Any]]:
        """Inputs to try an export with, by signature name; their answers are not left to chance."""
        raise NotImplementedError

    def tables(self) -> list[Any]:
        """What the signatures use beside `variables`, such as tokenizers with their lookup tables."""
        raise NotImplementedError


def padded(features: Mapping[str, tf.RaggedTensor]) -> Tensors:
    """A batch of features: [batch, time, ...], with at least one step, and `mask`."""
    lengths = features["inputs"].row_lengths()
    time = tf.maximum(tf.reduce_max(lengths), 1)
    return {
        **{name: dense(values, time) for name, values in features.items()},
        "mask": tf.sequence_mask(lengths, time),
    }


def dense(values: tf.RaggedTensor, time: tf.Tensor) -> tf.Tensor:
    """Ragged [batch, (time), ...] as [batch, time, ...]."""
    inner = values.flat_values.shape[1:]
    shape = tf.stack([-1, tf.cast(time, tf.int64), *inner])
    return tf.ensure_shape(values.to_tensor(shape=shape), [None, None, *inner])


def learn_tokenizer(
    records: tf.data.Dataset, options: Mapping[str, Any], source: TaskModel | None
) -> Tokenizer:
    """The tokenizer of a model of texts: the source's, or one learned from the records' `text`."""
    name = options["tokenizer"]
    if source is None:
        texts = records.map(lambda record: record["text"])
        return TOKENIZERS[name].learn(texts, options["vocabulary_size"])
    tokenizer = getattr(source, "tokenizer", None)
    if not isinstance(tokenizer, TOKENIZERS[name]):
        kind = tokenizer.name if tokenizer else "none of texts"
        raise ValueError(f"--tokenizer={name}: the tokenizer of the model to start from is {kind}")
    return tokenizer


def embed_signature(model: TaskModel) -> tf.types.experimental.PolymorphicFunction:
    """The signature `embed` of any model that encodes texts."""

    def embed(text):
        return {"embedding": tf.cast(model.encode(text), tf.float32)}

    return tf.function(embed, [tf.TensorSpec([None], tf.string, "text")], autograph=False)


def mean_output(outputs: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The mean over all steps, [batch, units], of outputs [batch, time, units]; zero where there are none."""
    shares = tf.cast(mask, outputs.dtype)[..., tf.newaxis]
    return tf.math.divide_no_nan(tf.reduce_sum(outputs * shares, axis=1), tf.reduce_sum(shares, axis=1))
