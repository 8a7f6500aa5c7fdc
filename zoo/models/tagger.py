"""Recurrent taggers: a label for each token of a text."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.crf import IndependentTags, LinearChainCRF
from zoo.cutting import CUTS, parts
from zoo.metrics import Accuracy, SpanF1
from zoo.models.base import TaskModel, Tensors, dense, embed_signature, mean_output, padded
from zoo.models.stack_options import StackOptions
from zoo.models.words import WordEncoder, cut_of
from zoo.spans import mark_spans
from zoo.text import Characters
from zoo.vocabulary import Labels, Vocabulary


class Tagger(TaskModel):
    """P(tags | tokens): words, recurrent stack, scores of the tags, softmax or CRF.

        h_t = RNN(w_1 ... w_T)_t,   s_t = U h_t + b,   P(y_1 ... y_T | s)

    (CS224N lecture 6, "RNNs can be used for tagging"; with characters and CRF, Lample et al. 2016,
    arXiv:1603.01360.) A record's `tokens` and `tags` are joined by zoo.cutting.SEPARATOR; the tokens of a raw
    `text` are what zoo.cutting makes of it.

    Args:
        words, characters: of the `WordEncoder`, which gives w.
        tags: in the order of the scores.
        cut: how raw text becomes tokens, a name of zoo.cutting.CUTS.
        embedding_size, character_units: see `WordEncoder`.
        crf: judge the tags of a sequence together, by a linear-chain CRF; else each by itself, by a softmax.
        output_dropout: on the stack's outputs; -1 stands for `dropout`.
        further options by name: those of `StackOptions`.
    """

    FIELDS = ("tokens", "tags")
    OPTIONS = ("embedding_size", "character_units", "crf", "output_dropout")

    def __init__(
        self,
        words: Vocabulary,
        characters: Characters,
        tags: Labels,
        cut: str = "words",
        *,
        embedding_size: int = 0,
        character_units: int = 0,
        crf: bool = True,
        output_dropout: float = -1.0,
        **stack_options: Any,
    ):
        options = StackOptions(**stack_options)
        super().__init__(name="tagger", dtype=options.precision)
        self.autocast = False  # states keep their precision
        self.tags, self.cut = tags, cut
        cells = options.cells()
        self.words = WordEncoder(
            words, characters, embedding_size, character_units, options, name="words", dtype=options.precision
        )
        self.stack = options.stack(cells, self.words.output_size)
        self.output_dropout = options.output_dropout(output_dropout, options.locked_dropout)
        self.scores = options.dense("scores", len(tags), self.stack.output_size)
        distribution = LinearChainCRF if crf else IndependentTags
        self.distribution = distribution(tags.names, name="distribution", dtype=self.variable_dtype)
        self.distribution.build((None, None, len(tags)))
        self.accuracy = Accuracy("token")
        self.spans = SpanF1(tags.names) if mark_spans(tags.names) else None
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        cut_of(options)  # records are cut already, but the texts to be served are not
        batches = records.batch(1024)
        tokens = batches.map(lambda batch: parts(batch["tokens"]).values)
        tags = Labels.learn(batches.map(lambda batch: parts(batch["tags"]).values), "tag")
        return cls._made(*WordEncoder.vocabularies(tokens, options), tags, options)

    @classmethod
    def restore(cls, options, assets):
        tags = Labels.from_asset(assets["tags.json"])
        return cls._made(*WordEncoder.vocabularies_from(assets), tags, options)

    @classmethod
    def _made(cls, words, characters, tags, options):
        return cls(words, characters, tags, options["tokenizer"], **StackOptions.chosen(options, cls.OPTIONS))

    def assets(self):
        return {**self.words.assets(), "tags.json": self.tags.asset()}

    def features(self, records):
        """tokens, or texts, and tags [batch] -> what the `WordEncoder` takes, and ragged int32 `tags`.

        Raises InvalidArgumentError, in graph, for a tag that was not learned.
        """
        tokens = parts(records["tokens"]) if "tokens" in records else CUTS[self.cut](records["text"]).words
        features = self.words.features(tokens)
        if "tags" in records:
            tags = parts(records["tags"])
            features["tags"] = tags.with_values(self.tags.ids(tags.values, "tag"))
        return features

    def call(self, batch, states=None, training=False):
        outputs = self._outputs(batch, training)
        return {"scores": self.scores(self.output_dropout(outputs, training=training))}

    def _outputs(self, batch, training):
        mask = batch["mask"]
        words = self.words(batch["inputs"], batch.get("characters"), mask, training=training)
        outputs, _ = self.stack(words, mask=mask, training=training)
        return tf.cast(outputs, self.variable_dtype)

    @property
    def encoding_size(self):
        return self.stack.output_size

    def encode(self, text, training=False):
        """The mean of the stack's outputs."""
        batch = padded(self.words.features(CUTS[self.cut](text).words))
        return mean_output(self._outputs(batch, training), batch["mask"])

    def encoder_layers(self):
        return [self.words, self.stack]

    def loss(self, batch, outputs):
        log_likelihood = self.distribution.log_likelihood(outputs["scores"], batch["tags"], batch["mask"])
        tokens = tf.reduce_sum(tf.cast(batch["mask"], log_likelihood.dtype))
        return -tf.reduce_sum(log_likelihood), tokens

    def update_metrics(self, batch, outputs):
        mask, tags = batch["mask"], batch["tags"]
        best = self.distribution.best(outputs["scores"], mask)
        self.accuracy.update_state(tf.equal(tags, best), mask, nats=self.loss(batch, outputs)[0])
        if self.spans:
            self.spans.update_state(tags, best, mask)

    def objective(self, metrics):
        return 1 - metrics["f1" if self.spans else "accuracy"]

    def baseline(self, training, validation):
        """Each word has the tag that it had most often in training, and an unknown word the most frequent."""
        counts = tf.Variable(tf.zeros([self.words.words.size, len(self.tags)]))
        for batch in training:
            places = tf.stack([batch["inputs"][batch["mask"]], batch["tags"][batch["mask"]]], axis=-1)
            counts.scatter_nd_add(places, tf.ones([len(places)]))
        most = tf.argmax(counts + 1e-3 * tf.reduce_mean(counts, axis=0), axis=1, output_type=tf.int32)
        accuracy = Accuracy("token")
        metrics: list[keras.metrics.Metric] = [accuracy]
        if self.spans:
            metrics.append(SpanF1(self.tags.names))
        for batch in validation:
            best = tf.gather(most, batch["inputs"])
            accuracy.update_state(tf.equal(batch["tags"], best), batch["mask"], nats=np.nan)
            for spans in metrics[1:]:
                spans.update_state(batch["tags"], best, batch["mask"])
        results = {name: float(value) for metric in metrics for name, value in metric.result().items()}
        del results["nats_per_token"]  # it gives no probabilities
        return results

    def tagged(self, text: tf.Tensor) -> Tensors:
        """What there is to say of texts, string [batch]: the signature's outputs."""
        tokens = CUTS[self.cut](text)
        batch = padded(self.words.features(tokens.words))
        scores, mask = self(batch)["scores"], batch["mask"]
        best = self.distribution.best(scores, mask)
        probabilities = tf.gather(self.distribution.marginals(scores, mask), best, batch_dims=2)
        time = tf.shape(mask)[1]
        return {
            "tokens": dense(tokens.words, time),
            "tags": tf.where(mask, self.tags.of(best), ""),
            "scores": tf.where(mask, tf.cast(probabilities, tf.float32), 0),
            "lengths": tf.cast(tokens.words.row_lengths(), tf.int32),
            "starts": dense(tokens.starts, time),
            "ends": dense(tokens.ends, time),
        }

    def signatures(self):
        text = tf.TensorSpec([None], tf.string, "text")
        return {
            "serving_default": tf.function(lambda text: self.tagged(text), [text], autograph=False),
            "embed": embed_signature(self),
        }

    def requests(self):
        texts = ["", "a", "What is this about, and what isn't?"]
        return {name: {"text": texts} for name in ("serving_default", "embed")}

    def tables(self):
        return [self.words.words, self.words.characters, self.tags]
