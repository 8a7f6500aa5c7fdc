"""Recurrent encoder-decoders: a text for a text."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from zoo import decoding
from zoo.attention import ATTENTIONS
from zoo.beam_search import MAX_BEAM_WIDTH, beam_search
from zoo.heads.base import unit_variance
from zoo.metrics import Perplexity, unigram_perplexity
from zoo.models.base import TaskModel, embed_signature, mean_output, padded
from zoo.models.stack_options import StackOptions
from zoo.text import TOKENIZERS, Tokenizer

MAX_NEW_TOKENS = 1024


class Translator(TaskModel):
    """P(translation | text): an encoder's outputs, which a decoder with attention reads.

        m = RNN_encoder(E x)                                 m_s, of both directions if bidirectional
        h_t = RNN_decoder(h_(t-1), F y_(t-1)),               h_0 = tanh(W (final states of the encoder) + b)
        c_t = attention(h_t, m),   a_t = tanh(V [c_t; h_t])
        P(y_t | y_1 ... y_(t-1), x) = softmax(U a_t + d)

    Without attention a_t is h_t, and all that the decoder knows of the text is h_0 (Sutskever et al. 2014,
    arXiv:1409.3215). Source and translation end with their tokenizers' boundary token.

    Args:
        source_tokenizer, target_tokenizer: how texts become ids; they may be the same.
        attention: a name of zoo.attention.ATTENTIONS, or "none".
        embedding_size: of both embeddings; 0 stands for `units`.
        output_dropout: on what the softmax reads; -1 stands for `dropout`.
        tie_embeddings: the output layer uses the decoder's embedding; `a_t` is then of its size.
        length_penalty: of beam search, see zoo.beam_search.
        further options by name: those of `StackOptions`, for encoder and decoder alike, but that the decoder
            has one direction.

    Source: Luong et al. 2015, arXiv:1508.04025, section 3.1, without its input feeding, so that training
    attends for all steps at once.
    """

    FIELDS = ("text", "translation")
    OPTIONS = ("attention", "embedding_size", "output_dropout", "tie_embeddings", "length_penalty")

    def __init__(
        self,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        *,
        attention: str = "multiplicative",
        embedding_size: int = 0,
        output_dropout: float = -1.0,
        tie_embeddings: bool = False,
        length_penalty: float = 1.0,
        **stack_options: Any,
    ):
        options = StackOptions(**stack_options)
        super().__init__(name="translator", dtype=options.precision)
        self.autocast = False  # states keep their precision
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.length_penalty = length_penalty
        size = embedding_size or options.units
        self.source_embedding = options.embedding(
            "source_embedding", source_tokenizer.vocabulary_size, size, unit_variance()
        )
        self.target_embedding = options.embedding(
            "target_embedding",
            target_tokenizer.vocabulary_size,
            size,
            unit_variance(),
            tie_embeddings,
        )
        self.encoder = options.stack(options.cells(), size, name="encoder")
        decoder = dataclasses.replace(options, bidirectional=False)
        self.decoder = decoder.stack(decoder.cells(), size, name="decoder")
        final, first = (sum(stack.state_size.values()) for stack in (self.encoder, self.decoder))
        self.bridge = options.dense("bridge", first, final, "tanh")
        units, self.attention = self.decoder.output_size, None
        if attention != "none":
            memory = (None, None, self.encoder.output_size)
            self.attention = ATTENTIONS[attention](name="attention", dtype=self.variable_dtype)
            self.attention.build((None, None, units), memory)
            inputs, units = memory[-1] + units, size if tie_embeddings else units
            self.combine = options.dense("combine", units, inputs, "tanh")
        self.output_dropout = options.output_dropout(output_dropout, options.locked_dropout)
        tied_to = self.target_embedding if tie_embeddings else None
        self.head = options.softmax(target_tokenizer.vocabulary_size, units, tied_to)
        self.perplexity = Perplexity()
        self.built = True

    @classmethod
    def learn(cls, records, options, source=None):
        texts, translations = (records.map(lambda record, f=field: record[f]) for field in cls.FIELDS)
        kind, size = TOKENIZERS[options["tokenizer"]], options["vocabulary_size"]
        if options["shared_vocabulary"]:
            shared = kind.learn(texts.concatenate(translations), size)
            return cls._made(shared, shared, options)
        return cls._made(kind.learn(texts, size), kind.learn(translations, size), options)

    @classmethod
    def restore(cls, options, assets):
        kind = TOKENIZERS[options["tokenizer"]]
        source, target = (
            kind.from_assets(
                {
                    name.removeprefix(side): content
                    for name, content in assets.items()
                    if name.startswith(side)
                }
            )
            for side in ("source_", "target_")
        )
        return cls._made(source, target, options)

    @classmethod
    def _made(cls, source, target, options):
        return cls(source, target, **StackOptions.chosen(options, cls.OPTIONS))

    def assets(self):
        sides = {"source_": self.source_tokenizer, "target_": self.target_tokenizer}
        return {
            side + name: content
            for side, tokenizer in sides.items()
            for name, content in tokenizer.assets().items()
        }

    def features(self, records):
        """texts, and translations, [batch] -> ragged int32 `inputs`, and `previous` and `targets`: each token
        of the translation's predecessor and itself; `is_target`, True, tells them from padding."""
        features = {"inputs": _ended(self.source_tokenizer, records["text"])}
        if "translation" in records:
            targets = _ended(self.target_tokenizer, records["translation"])
            boundary = tf.fill([targets.nrows(), 1], self.target_tokenizer.boundary_id)
            features["targets"] = targets
            features["previous"] = tf.concat([boundary, targets], axis=1)[:, :-1]
            features["is_target"] = tf.ones_like(targets, tf.bool)
        return features

    def call(self, batch, states=None, training=False):
        memory, states = self._encoded(batch, training)
        embedded = self.target_embedding(batch["previous"])
        hidden, _ = self.decoder(embedded, initial_state=states, training=training)
        attended, weights = self._attended(tf.cast(hidden, self.variable_dtype), memory)
        return {"hidden": self.output_dropout(attended, training=training), "weights": weights}

    def _encoded(self, batch, training=False):
        """(what attention reads: keys, memory, mask; the decoder's first states) of a batch."""
        embedded = self.source_embedding(batch["inputs"])
        outputs, states = self.encoder(embedded, mask=batch["mask"], training=training)
        final = [tf.cast(states[name], self.variable_dtype) for name in self.encoder.state_size]
        sizes = self.decoder.state_size
        first = tf.split(self.bridge(tf.concat(final, axis=-1)), list(sizes.values()), axis=-1)
        memory: tuple = ()
        if self.attention:
            outputs = tf.cast(outputs, self.variable_dtype)
            memory = (self.attention.keys(outputs), outputs, batch["mask"])
        return memory, dict(zip(sizes, first, strict=True))

    @property
    def encoding_size(self):
        return self.encoder.output_size

    def encode(self, text, training=False):
        """The mean of the encoder's outputs."""
        batch = padded({"inputs": _ended(self.source_tokenizer, text)})
        embedded = self.source_embedding(batch["inputs"])
        outputs, _ = self.encoder(embedded, mask=batch["mask"], training=training)
        return mean_output(tf.cast(outputs, self.variable_dtype), batch["mask"])

    def encoder_layers(self):
        return [self.source_embedding, self.encoder]

    def _attended(self, hidden, memory):
        if not self.attention:
            return hidden, None
        context, weights = self.attention.attend(hidden, *memory)
        return self.combine(tf.concat([context, hidden], axis=-1)), weights

    def loss(self, batch, outputs):
        is_target = batch["is_target"]
        hidden = tf.boolean_mask(outputs["hidden"], is_target)
        targets = tf.boolean_mask(batch["targets"], is_target)
        weights = tf.ones(tf.shape(targets), hidden.dtype)
        return self.head.loss(hidden, targets, weights), tf.reduce_sum(weights)

    def update_metrics(self, batch, outputs):
        is_target = batch["is_target"]
        targets = tf.boolean_mask(batch["targets"], is_target)
        log_prob = self.head.log_prob(tf.boolean_mask(outputs["hidden"], is_target), targets)
        characters = tf.gather(self.target_tokenizer.characters, targets)
        self.perplexity.update_state(-tf.reduce_sum(log_prob), tf.size(targets), tf.reduce_sum(characters))

    def objective(self, metrics):
        return metrics["nats_per_token"]

    def baseline(self, training, validation):
        """The unigram model of the translations: each token's frequency in training, plus one."""
        return unigram_perplexity(
            self.target_tokenizer.characters,
            (batch["targets"][batch["is_target"]] for batch in training),
            (batch["targets"][batch["is_target"]] for batch in validation),
        )

    def judge(self, records):
        from zoo.text_metrics import translation_metrics

        translate = tf.function(lambda text: self.translated(text)["translation"], autograph=False)
        said, references = [], []
        for batch in records:
            said += [text.decode("utf-8", "replace") for text in translate(batch["text"]).numpy()]
            references += [text.decode() for text in batch["translation"].numpy()]
        return translation_metrics(said, references)

    def translated(
        self, text: tf.Tensor, beam_width: Any = (4,), max_new_tokens: Any = (256,)
    ) -> dict[str, tf.Tensor]:
        """Translations of texts, string [batch], by beam search; its settings are of one row, or one each.

        `log_prob` is that of the translation and its end, in nats. Of no more tokens than 16 and four times
        the text's.
        """
        inputs = self.features({"text": text})["inputs"]
        batch_size = tf.size(text)
        beam_width, most = (
            decoding.rows(tf.convert_to_tensor(s), batch_size) for s in (beam_width, max_new_tokens)
        )
        checks = [
            decoding.require(
                (beam_width >= 1) & (beam_width <= MAX_BEAM_WIDTH),
                f"beam_width must be between 1 and {MAX_BEAM_WIDTH}",
            ),
            decoding.require(
                (most >= 1) & (most <= MAX_NEW_TOKENS),
                f"max_new_tokens must be between 1 and {MAX_NEW_TOKENS}",
            ),
        ]
        with tf.control_dependencies(checks):
            most = tf.minimum(most, 16 + 4 * tf.cast(inputs.row_lengths(), tf.int32))
        memory, states = self._encoded(padded({"inputs": inputs}))
        memory = [tf.repeat(part, tf.reduce_max(beam_width), axis=0) for part in memory]
        step_weights = self.decoder.step_weights()

        def next_logits(token, states):
            hidden, states = self.decoder.step(self.target_embedding(token), states, step_weights)
            attended, _ = self._attended(tf.cast(hidden, self.variable_dtype)[:, tf.newaxis], memory)
            return self.head(attended[:, 0]), states

        end = self.target_tokenizer.boundary_id
        found = beam_search(
            next_logits,
            tf.fill([batch_size], end),
            states,
            beam_width,
            most,
            end,
            self.length_penalty,
        ).best
        ids = tf.RaggedTensor.from_tensor(found.ids, found.lengths)
        return {"translation": self.target_tokenizer.detokenize(ids), "log_prob": found.log_prob}

    def aligned(self, text: tf.Tensor, translation: tf.Tensor) -> dict[str, tf.Tensor]:
        """Which tokens of texts, string [batch], the decoder looks at as it writes these translations.

        `weights` float32 [batch, translation's tokens, text's tokens]: a row sums to 1, and is 0 in padding.
        """
        features = self.features({"text": text, "translation": translation})
        targets = features["targets"]
        batch = padded({"inputs": features["inputs"]})
        for name in ("previous", "is_target"):
            batch[name] = features[name].to_tensor()
        weights = tf.where(batch["is_target"][..., tf.newaxis], self(batch)["weights"], 0)
        return {
            "weights": tf.cast(weights, tf.float32),
            "source_tokens": self.source_tokenizer.piece(features["inputs"]).to_tensor(),
            "target_tokens": self.target_tokenizer.piece(targets).to_tensor(),
        }

    def signatures(self):
        text, translation = (tf.TensorSpec([None], tf.string, name) for name in ("text", "translation"))

        def serving_default(text, beam_width=tf.constant([4]), max_new_tokens=tf.constant([256])):  # noqa: B008
            return self.translated(text, beam_width, max_new_tokens)

        setting = [tf.TensorSpec([None], tf.int32, name) for name in ("beam_width", "max_new_tokens")]
        signatures = {
            "serving_default": tf.function(serving_default, [text, *setting], autograph=False),
            "embed": embed_signature(self),
        }
        if self.attention:
            signatures["align"] = tf.function(self.aligned, [text, translation], autograph=False)
        return signatures

    def requests(self):
        texts = ["", "a", "What is this about?"]
        requests: dict[str, dict[str, Any]] = {
            "serving_default": {"text": texts, "beam_width": [1, 2, 3], "max_new_tokens": [5]},
            "embed": {"text": texts},
        }
        if self.attention:
            requests["align"] = {"text": texts, "translation": texts[::-1]}
        return requests

    def tables(self):
        return [self.source_tokenizer, self.target_tokenizer]


def _ended(tokenizer: Tokenizer, texts: tf.Tensor) -> tf.RaggedTensor:
    tokens = tokenizer.tokenize(texts)
    return tf.concat([tokens, tf.fill([tokens.nrows(), 1], tokenizer.boundary_id)], axis=1)
