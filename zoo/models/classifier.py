"""Recurrent classifiers of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from zoo.labelling import AnyLabels, OneLabel
from zoo.models.base import TaskModel, Tensors, embed_signature, learn_tokenizer, padded
from zoo.models.stack_options import StackOptions
from zoo.pooling import POOLINGS
from zoo.text import TOKENIZERS, Tokenizer
from zoo.vocabulary import Labels


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
        label_separator: between the labels of a text, which then may have several; the softmax is a sigmoid
            for each. Empty where each text has one.
        label_smoothing, class_weights: see zoo.labelling; weights are "none" or "balanced".
        further options by name: those of `StackOptions`.
    """

    PREDICTIONS = "examples"
    FIELDS = ("text", "label")
    STARTS_FROM_OTHERS = True
    OPTIONS = (
        *("embedding_size", "pooling", "output_dropout"),
        *("label_separator", "label_smoothing", "class_weights"),
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Labels,
        *,
        embedding_size: int = 0,
        pooling: str = "maximum",
        output_dropout: float = -1.0,
        label_separator: str = "",
        label_smoothing: float = 0.0,
        class_weights: str = "none",
        **stack_options: Any,
    ):
        options = StackOptions(**stack_options)
        super().__init__(name="classifier", dtype=options.precision)
        self.autocast = False  # states keep their precision
        self.tokenizer = tokenizer
        self.labels = labels
        balanced = class_weights == "balanced"
        self.labelling: OneLabel | AnyLabels = OneLabel(labels, label_smoothing, balanced)
        if label_separator:
            self.labelling = AnyLabels(labels, label_separator, label_smoothing, balanced)
        cells = options.cells()
        size = embedding_size or options.units
        self.embedding = options.embedding("embedding", tokenizer.vocabulary_size, size)
        self.stack = options.stack(cells, size)
        self.pooling = POOLINGS[pooling](options.bidirectional, name="pooling", dtype=self.variable_dtype)
        self.pooling.build((None, None, self.stack.output_size))
        self.output_dropout = options.output_dropout(output_dropout, locked=False)
        self.head = options.dense("head", len(self.labels), self.pooling.output_size)
        self.confusion = self.labelling.metric()
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        tokenizer = learn_tokenizer(records, options, source)
        labels = records.batch(1024).map(lambda batch: batch["label"])
        if separator := options.get("label_separator"):
            labels = labels.map(lambda names: tf.strings.strip(tf.strings.split(names, separator).values))
        return cls._made(tokenizer, Labels.learn(labels, "label"), options)

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        return cls._made(tokenizer, Labels.from_asset(assets["labels.json"]), options)

    @classmethod
    def _made(cls, tokenizer, labels, options):
        return cls(tokenizer, labels, **StackOptions.chosen(options, cls.OPTIONS))

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
            features["label"] = self.labelling.targets(records["label"])
        return features

    def call(self, batch, states=None, training=False):
        outputs, _ = self.stack(self.embedding(batch["inputs"]), mask=batch["mask"], training=training)
        encoding = self.pooling(tf.cast(outputs, self.variable_dtype), mask=batch["mask"])
        return {"encoding": encoding, "logits": self.head(self.output_dropout(encoding, training=training))}

    def loss(self, batch, outputs):
        nats = self.labelling.loss(outputs["logits"], batch["label"])
        return tf.reduce_sum(nats), tf.cast(tf.size(nats), nats.dtype)

    def update_metrics(self, batch, outputs):
        log_prob = self.labelling.log_probabilities(outputs["logits"])
        self.labelling.update(self.confusion, log_prob, batch["label"])

    def report(self):
        return self.confusion.table()

    def objective(self, metrics):
        return 1 - metrics["accuracy"]

    def baseline(self, training, validation):
        """Every text's labels are as likely as they are frequent in training."""
        prior = self.labelling.prior([batch["label"] for batch in training])
        metric = self.labelling.metric()
        for batch in validation:
            log_prob = np.repeat(prior[np.newaxis], len(batch["label"]), axis=0)
            self.labelling.update(metric, log_prob, batch["label"])
        return {name: float(value) for name, value in metric.result().items()}

    def encoded(self, text: tf.Tensor, training: bool = False) -> Tensors:
        """The outputs for texts, string [batch]."""
        return self(padded(self.features({"text": text})), training=training)

    @property
    def encoding_size(self):
        return self.pooling.output_size

    def encode(self, text, training=False):
        return self.encoded(text, training)["encoding"]

    def encoder_layers(self):
        return [self.embedding, self.stack, self.pooling]

    def layer_groups(self):
        output = [*self.head.trainable_variables, *self.pooling.trainable_variables]
        return [output, *reversed(self.stack.layer_variables()), self.embedding.trainable_variables]

    def signatures(self):
        text, inputs = (tf.TensorSpec([None], tf.string, name) for name in ("text", "inputs"))

        def probabilities(text):
            return tf.cast(self.labelling.probabilities(self.encoded(text)["logits"]), tf.float32)

        def names(scores):
            return tf.repeat(tf.constant([self.labels.names]), tf.shape(scores)[0], axis=0)

        def serving_default(text):
            scores = probabilities(text)
            return {"label": self.labelling.said(scores), "probabilities": scores, "labels": names(scores)}

        def classify(inputs):
            """Serialized tf.train.Examples with the feature `text`: TensorFlow Serving's Classify request."""
            text = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string)})["text"]
            scores = probabilities(text)
            return {"classes": names(scores), "scores": scores}

        return {
            "serving_default": tf.function(serving_default, [text], autograph=False),
            "classify": tf.function(classify, [inputs], autograph=False),
            "embed": embed_signature(self),
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
