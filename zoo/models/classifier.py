"""Recurrent classifiers of texts."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.metrics import Confusion
from zoo.models.base import TaskModel, Tensors, padded
from zoo.models.stack_options import StackOptions, uniform
from zoo.pooling import POOLINGS
from zoo.text import TOKENIZERS, Tokenizer
from zoo.vocabulary import Labels
from zoo.wrappers import dropout_layer


class Classifier(TaskModel):
    """P(label | text): embedding, recurrent stack, encoding of the whole text, softmax over the labels.

        e_t = E x_t,   h_t = RNN(h_(t-1), e_t),   P(label) = softmax(U pool(h_1 ... h_T) + b)

    (CS224N lecture 6, "RNNs can be used for sentence classification".) A text ends with the tokenizer's
    boundary token, so that there is one even in an empty text.

    Args:
        tokenizer: how texts become ids.
        labels: the classes, in the order of the outputs.
        embedding_size: of the input embedding; 0 stands for `units`.
        pooling: the encoding of a text, a name of zoo.pooling.POOLINGS.
        output_dropout: on the encoding; -1 stands for `dropout`.
        label_smoothing: share of the target's probability that all labels have alike (Szegedy et al. 2015,
            arXiv:1512.00567, section 7).
        further options by name: those of `StackOptions`.
    """

    FIELDS = ("text", "label")
    OPTIONS = ("embedding_size", "pooling", "output_dropout", "label_smoothing")

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Labels,
        *,
        embedding_size: int = 0,
        pooling: str = "maximum",
        output_dropout: float = -1.0,
        label_smoothing: float = 0.0,
        **stack_options: Any,
    ):
        options = StackOptions(**stack_options)
        super().__init__(name="classifier", dtype=options.precision)
        self.autocast = False  # states keep their precision
        self.tokenizer = tokenizer
        self.labels = labels
        self.label_smoothing = label_smoothing
        cells = options.cells()
        size, scale = embedding_size or options.units, options.initializer_scale
        self.embedding = keras.layers.Embedding(
            tokenizer.vocabulary_size,
            size,
            embeddings_initializer=uniform(scale) or "uniform",
            name="embedding",
            dtype=options.precision,
        )
        self.embedding.build((None, None))
        self.stack = options.stack(cells, size)
        self.pooling = POOLINGS[pooling](options.bidirectional, name="pooling", dtype=self.variable_dtype)
        self.pooling.build((None, None, self.stack.output_size))
        self.output_dropout = dropout_layer(
            options.dropout if output_dropout < 0 else output_dropout,
            locked=False,
            name="output_dropout",
            dtype=self.variable_dtype,
        )
        self.head = keras.layers.Dense(
            len(self.labels),
            kernel_initializer=uniform(scale) or "glorot_uniform",
            name="head",
            dtype=self.variable_dtype,
        )
        self.head.build((None, self.pooling.output_size))
        self.confusion = Confusion(self.labels.names)
        self.built = True

    @classmethod
    def learn(cls, records, options):
        texts = records.map(lambda record: record["text"])
        tokenizer = TOKENIZERS[options["tokenizer"]].learn(texts, options["vocabulary_size"])
        labels = records.batch(1024).map(lambda batch: batch["label"])
        return cls._made(tokenizer, Labels.learn(labels, "label"), options)

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        return cls._made(tokenizer, Labels.from_asset(assets["labels.json"]), options)

    @classmethod
    def _made(cls, tokenizer, labels, options):
        own = {name: options[name] for name in cls.OPTIONS if name in options}
        return cls(tokenizer, labels, **own, **StackOptions.chosen(options))

    def assets(self):
        return {**self.tokenizer.assets(), "labels.json": self.labels.asset()}

    def features(self, records):
        """texts and labels [batch] -> ragged int32 `inputs`, and int32 `label`, where there are labels.

        Raises InvalidArgumentError, in graph, for a label that was not learned.
        """
        tokens = self.tokenizer.tokenize(records["text"])
        boundary = tf.fill([tokens.nrows(), 1], self.tokenizer.boundary_id)
        features = {"inputs": tf.concat([tokens, boundary], axis=1)}
        if "label" in records:
            features["label"] = self.labels.ids(records["label"], "label")
        return features

    def call(self, batch, states=None, training=False):
        outputs, _ = self.stack(self.embedding(batch["inputs"]), mask=batch["mask"], training=training)
        encoding = self.pooling(tf.cast(outputs, self.variable_dtype), mask=batch["mask"])
        return {"encoding": encoding, "logits": self.head(self.output_dropout(encoding, training=training))}

    def loss(self, batch, outputs):
        count = len(self.labels)
        targets = tf.one_hot(batch["label"], count, dtype=outputs["logits"].dtype)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / count
        nats = tf.nn.softmax_cross_entropy_with_logits(targets, outputs["logits"])
        return tf.reduce_sum(nats), tf.cast(tf.size(nats), nats.dtype)

    def update_metrics(self, batch, outputs):
        log_prob = tf.nn.log_softmax(outputs["logits"])
        self.confusion.update_state(
            labels=batch["label"],
            predictions=tf.argmax(log_prob, axis=-1, output_type=tf.int32),
            nats=-tf.reduce_sum(tf.gather(log_prob, batch["label"], batch_dims=1)),
        )

    def objective(self, metrics):
        return 1 - metrics["accuracy"]

    def baseline(self, training, validation):
        """Every text has the label that is most frequent in training, with its frequency there, plus one."""
        counts = np.ones(len(self.labels))
        for batch in training:
            counts += np.bincount(batch["label"], minlength=len(counts))
        confusion, log_prob = Confusion(self.labels.names), np.log(counts / counts.sum())
        for batch in validation:
            labels = batch["label"]
            most = np.full(labels.shape, counts.argmax())
            confusion.update_state(labels, most, -log_prob[labels].sum())
        return {name: float(value) for name, value in confusion.result().items()}

    def encoded(self, text: tf.Tensor) -> Tensors:
        """The outputs for texts, string [batch]."""
        return self(padded(self.features({"text": text})))

    def signatures(self):
        text, inputs = (tf.TensorSpec([None], tf.string, name) for name in ("text", "inputs"))

        def probabilities(text):
            return tf.cast(tf.nn.softmax(self.encoded(text)["logits"]), tf.float32)

        def names(scores):
            return tf.repeat(tf.constant([self.labels.names]), tf.shape(scores)[0], axis=0)

        def serving_default(text):
            scores = probabilities(text)
            label = self.labels.of(tf.argmax(scores, axis=-1))
            return {"label": label, "probabilities": scores, "labels": names(scores)}

        def classify(inputs):
            """Serialized tf.train.Examples with the feature `text`: TensorFlow Serving's Classify request."""
            text = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string)})["text"]
            scores = probabilities(text)
            return {"classes": names(scores), "scores": scores}

        def embed(text):
            return {"embedding": tf.cast(self.encoded(text)["encoding"], tf.float32)}

        return {
            "serving_default": tf.function(serving_default, [text], autograph=False),
            "classify": tf.function(classify, [inputs], autograph=False),
            "embed": tf.function(embed, [text], autograph=False),
        }

    def requests(self):
        texts = ["", "a", "what is this about, and what does it say?"]
        examples = [example(text).SerializeToString() for text in texts]
        return {name: {"text": texts} for name in ("serving_default", "embed")} | {
            "classify": {"inputs": examples}
        }

    def tables(self):
        return [self.tokenizer, self.labels]


def example(text: str) -> tf.train.Example:
    """What the signature `classify` takes, serialized."""
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    return tf.train.Example(features=tf.train.Features(feature={"text": value}))
