"""Recurrent readers: the answer to a question about a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from zoo.attention import Multiplicative
from zoo.cutting import CUTS, SEPARATOR, Tokens, parts
from zoo.metrics import Accuracy
from zoo.models.base import TaskModel, Tensors, dense, embed_signature, padded
from zoo.models.stack_options import StackOptions
from zoo.models.words import WordEncoder, cut_of
from zoo.pooling import Final, SelfAttention
from zoo.text import Characters
from zoo.vocabulary import Labels, Vocabulary

LONGEST_ANSWER = 30  # tokens


class Reader(TaskModel):
    """P(answer | question, context): two encoders with attention between them.

        q = pool(RNN_question(w of the question))          self-attention (zoo.pooling)
        a_i = attention of the context's word i over the words of the question
        c = RNN_context([w_i; a_i; w_i is in the question; q])
        P(first = i) = softmax_i(c_i . F q),  P(last = i) = softmax_i(c_i . L q)     a span of the context
        P(answer) = softmax(U [attention of q over c; final c] + b)                  one of a closed set

    A record has `context`, `question`, `answer` and `start`: where in the context the answer stands, in
    bytes; -1 where answers are a closed set and no part of the context. Several right answers are joined
    by zoo.cutting.SEPARATOR, and `start` is that of the first.

    Args:
        words, characters: of the `WordEncoder`, which gives w.
        answers: the closed set, or None where answers are spans.
        cut: how texts become tokens, a name of zoo.cutting.CUTS.
        embedding_size, character_units: see `WordEncoder`.
        output_dropout: on c; -1 stands for `dropout`.
        further options by name: those of `StackOptions`, for both encoders.

    Source: Chen et al. 2017, arXiv:1704.00051, section 3.2, without its linguistic features. Differs from the
    paper: the context's recurrence reads q, so that it can follow what is asked for.
    """

    PREDICTIONS = "examples"
    FIELDS = ("context", "question", "answer", "start")
    OPTIONS = ("embedding_size", "character_units", "output_dropout")

    def __init__(
        self,
        words: Vocabulary,
        characters: Characters,
        answers: Labels | None,
        cut: str = "words",
        *,
        embedding_size: int = 0,
        character_units: int = 0,
        output_dropout: float = -1.0,
        **stack_options: Any,
    ):
        options = StackOptions(**stack_options)
        super().__init__(name="reader", dtype=options.precision)
        self.autocast = False  # states keep their precision
        self.answers, self.cut = answers, cut
        policy, plain = options.precision, self.variable_dtype
        self.words = WordEncoder(
            words, characters, embedding_size, character_units, options, name="words", dtype=policy
        )
        size = self.words.output_size
        self.question_stack = options.stack(options.cells(), size, name="question")
        question_size = self.question_stack.output_size
        self.question_pooling = SelfAttention(options.bidirectional, name="question_pooling", dtype=plain)
        self.question_pooling.build((None, None, question_size))
        self.alignment = Multiplicative(name="alignment", dtype=policy)
        self.alignment.build((None, None, size), (None, None, size))
        self.context_stack = options.stack(options.cells(), 2 * size + 1 + question_size, name="context")
        self.output_dropout = options.output_dropout(output_dropout, options.locked_dropout)
        context_shape = (None, None, self.context_stack.output_size)
        if answers:
            self.summary = Multiplicative(name="summary", dtype=plain)
            self.summary.build((None, None, question_size), context_shape)
            self.context_pooling = Final(options.bidirectional, name="context_pooling", dtype=plain)
            self.context_pooling.build(context_shape)
            inputs = context_shape[-1] + self.context_pooling.output_size
            self.head = options.dense("head", len(answers), inputs)
        else:
            self.ends = [Multiplicative(name=name, dtype=plain) for name in ("first", "last")]
            for end in self.ends:
                end.build((None, None, question_size), context_shape)
        self.accuracy = Accuracy("example")
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        cut, batches = cut_of(options), records.batch(256)

        def tokens(batch):
            return tf.concat([cut(batch[name]).words.values for name in ("context", "question")], axis=0)

        answers = None
        if next(iter(records))["start"] == b"-1":
            answers = Labels.learn(batches.map(lambda batch: batch["answer"]), "answer")
        return cls._made(*WordEncoder.vocabularies(batches.map(tokens), options), answers, options)

    @classmethod
    def restore(cls, options, assets):
        answers = Labels.from_asset(assets["answers.json"]) if "answers.json" in assets else None
        return cls._made(*WordEncoder.vocabularies_from(assets), answers, options)

    @classmethod
    def _made(cls, words, characters, answers, options):
        return cls(
            words, characters, answers, options["tokenizer"], **StackOptions.chosen(options, cls.OPTIONS)
        )

    def assets(self):
        answers = {"answers.json": self.answers.asset()} if self.answers else {}
        return {**self.words.assets(), **answers}

    def features(self, records):
        """contexts and questions [batch] -> the words of both, and numbers by which equal ones are found.

        `is_question`, True, tells a question from padding. Of answers, int32 `answer`, or `first` and `last`:
        the tokens of the context that hold it.
        """
        context = CUTS[self.cut](records["context"])
        features = self._read(context.words, CUTS[self.cut](records["question"]).words)
        if "answer" not in records:
            return features
        answer = parts(records["answer"])[:, :1].values
        if self.answers:
            return {**features, "answer": self.answers.ids(answer, "answer")}
        start = tf.strings.to_number(records["start"], tf.int32)[:, tf.newaxis]
        end = start + tf.strings.length(answer)[:, tf.newaxis]
        features["first"] = _count(context.ends <= start)
        features["last"] = tf.maximum(_count(context.starts < end) - 1, features["first"])
        return features

    def _read(self, context, question):
        features = self.words.features(context)
        of_question = self.words.features(question)
        lower = [words.with_values(tf.strings.lower(words.values, "utf-8")) for words in (context, question)]
        numbers = [
            words.with_values(tf.strings.to_hash_bucket_fast(words.values, 2**31 - 1)) for words in lower
        ]
        return {
            **features,
            **{f"question_{name}": values for name, values in of_question.items()},
            "is_question": tf.ones_like(of_question["inputs"], tf.bool),
            "word": tf.cast(numbers[0], tf.int32),
            "question_word": tf.cast(numbers[1], tf.int32),
        }

    def call(self, batch, states=None, training=False):
        mask, is_question = batch["mask"], batch["is_question"]
        words = self.words(batch["inputs"], batch.get("characters"), mask, training=training)
        asked, question = self._asked(
            batch["question_inputs"], batch.get("question_characters"), is_question, training
        )
        aligned, _ = self.alignment(words, asked, is_question)
        same = tf.equal(batch["word"][:, :, tf.newaxis], batch["question_word"][:, tf.newaxis])
        is_asked = tf.reduce_any(same & is_question[:, tf.newaxis], axis=-1, keepdims=True)
        everywhere = tf.repeat(question[:, tf.newaxis], tf.shape(mask)[1], axis=1)
        read = tf.concat(
            [words, aligned, *(tf.cast(part, words.dtype) for part in (is_asked, everywhere))], axis=-1
        )
        context, _ = self.context_stack(read, mask=mask, training=training)
        context = self.output_dropout(tf.cast(context, self.variable_dtype), training=training)
        return self._logits(question[:, tf.newaxis], context, mask)

    def _asked(self, inputs, characters, mask, training):
        """The words of questions [batch, time, size], and what is made of them all, [batch, units]."""
        words = self.words(inputs, characters, mask, training=training)
        outputs, _ = self.question_stack(words, mask=mask, training=training)
        return words, self.question_pooling(tf.cast(outputs, self.variable_dtype), mask=mask)

    @property
    def encoding_size(self):
        return self.question_pooling.output_size

    def encode(self, text, training=False):
        """What the encoder of questions makes of it."""
        batch = padded(self.words.features(CUTS[self.cut](text).words))
        return self._asked(batch["inputs"], batch.get("characters"), batch["mask"], training)[1]

    def encoder_layers(self):
        return [self.words, self.question_stack, self.question_pooling]

    def _logits(self, question, context, mask):
        if self.answers:
            summary, _ = self.summary(question, context, mask)
            final = self.context_pooling(context, mask=mask)
            return {"logits": self.head(tf.concat([summary[:, 0], final], axis=-1))}
        scores = [end.score(question, end.keys(context))[:, 0] for end in self.ends]
        first, last = (tf.where(mask, score, score.dtype.min) for score in scores)
        return {"first": tf.nn.log_softmax(first), "last": tf.nn.log_softmax(last)}

    def loss(self, batch, outputs):
        if self.answers:
            nats = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["answer"], outputs["logits"])
        else:
            nats = -sum(tf.gather(outputs[end], batch[end], batch_dims=1) for end in ("first", "last"))
        return tf.reduce_sum(nats), tf.cast(tf.size(nats), nats.dtype)

    def update_metrics(self, batch, outputs):
        if self.answers:
            right = tf.equal(tf.argmax(outputs["logits"], axis=-1, output_type=tf.int32), batch["answer"])
        else:
            first, last, _ = best_span(outputs["first"], outputs["last"])
            right = tf.equal(first, batch["first"]) & tf.equal(last, batch["last"])
        self.accuracy.update_state(right, tf.ones_like(right), nats=self.loss(batch, outputs)[0])

    def objective(self, metrics):
        return 1 - metrics["accuracy"]

    def baseline(self, training, validation):
        """The answer, or the place in the context, that is most frequent in training."""
        names = ("answer",) if self.answers else ("first", "last")
        seen: dict[tuple, int] = {}
        for batch in training:
            for answer in zip(*(batch[name].tolist() for name in names), strict=True):
                seen[answer] = seen.get(answer, 0) + 1
        most = max(seen, key=lambda answer: (seen[answer], answer))
        right = [
            np.all([batch[name] == value for name, value in zip(names, most, strict=True)], axis=0)
            for batch in validation
        ]
        return {"accuracy": float(np.mean(np.concatenate(right)))}

    def judge(self, records):
        from zoo.text_metrics import answer_metrics

        answer = tf.function(
            lambda context, question: self.answered(context, question)["answer"], autograph=False
        )
        said, references = [], []
        for batch in records:
            answers = answer(batch["context"], batch["question"]).numpy()
            said += [text.decode("utf-8", "replace") for text in answers]
            references += [text.decode().split(SEPARATOR) for text in batch["answer"].numpy()]
        return answer_metrics(said, references)

    def answered(self, context: tf.Tensor, question: tf.Tensor) -> Tensors:
        """Answers to questions about contexts, string [batch]: the signature's outputs.

        `score` is the answer's probability; of a closed set, `start` and `end` are -1.
        """
        tokens = CUTS[self.cut](context)
        features = self._read(tokens.words, CUTS[self.cut](question).words)
        of_question = {name: features.pop(name) for name in list(features) if "question" in name}
        batch = padded(features)
        asked = padded({"inputs": of_question["question_inputs"], **of_question})
        batch |= {name: asked[name] for name in of_question}
        outputs = self(batch)
        if self.answers:
            probabilities = tf.nn.softmax(outputs["logits"])
            best = tf.argmax(probabilities, axis=-1)
            nowhere = tf.fill(tf.shape(context), -1)
            score = tf.cast(tf.reduce_max(probabilities, axis=-1), tf.float32)
            return {"answer": self.answers.of(best), "start": nowhere, "end": nowhere, "score": score}
        return self._span(context, tokens, outputs)

    def _span(self, context, tokens: Tokens, outputs):
        first, last, log_prob = best_span(outputs["first"], outputs["last"])
        has_tokens = tokens.words.row_lengths() > 0  # else nothing is the answer
        time = tf.shape(outputs["first"])[1]
        start = tf.gather(dense(tokens.starts, time), first, batch_dims=1)
        end = tf.gather(dense(tokens.ends, time), last, batch_dims=1)
        return {
            "answer": tf.strings.substr(context, start, end - start),
            "start": start,
            "end": end,
            "score": tf.where(has_tokens, tf.cast(tf.exp(log_prob), tf.float32), 0),
        }

    def signatures(self):
        texts = [tf.TensorSpec([None], tf.string, name) for name in ("context", "question")]

        def serving_default(context, question):
            return self.answered(context, question)

        return {
            "serving_default": tf.function(serving_default, texts, autograph=False),
            "embed": embed_signature(self),
        }

    def requests(self):
        contexts = ["", "a", "Ada wrote to Charles. Charles wrote back."]
        questions = ["who?", "", "Who wrote to Charles?"]
        return {
            "serving_default": {"context": contexts, "question": questions},
            "embed": {"text": questions},
        }

    def tables(self):
        answers = [self.answers] if self.answers else []
        return [self.words.words, self.words.characters, *answers]


def best_span(first: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The span of at most LONGEST_ANSWER tokens that is the likeliest, and its log probability.

    first, last: log P of its ends, [batch, time] -> int32 [batch], int32 [batch], [batch].
    """
    time = tf.shape(first)[1]
    beyond = tf.pad(last, [[0, 0], [0, LONGEST_ANSWER - 1]], constant_values=last.dtype.min)
    ends = tf.stack([beyond[:, more : more + time] for more in range(LONGEST_ANSWER)], axis=2)
    scores = tf.reshape(first[:, :, tf.newaxis] + ends, [-1, time * LONGEST_ANSWER])
    place = tf.argmax(scores, axis=1, output_type=tf.int32)
    start, more = place // LONGEST_ANSWER, place % LONGEST_ANSWER
    return start, start + more, tf.gather(scores, place, batch_dims=1)


def _count(condition: tf.RaggedTensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(condition, tf.int32), axis=1)
