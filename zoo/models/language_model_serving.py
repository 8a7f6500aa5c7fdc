"""What an exported language model answers.

A generation state is one row of floats, [batch, S]: the model's states side by side and the last
token, which the model has not read yet. It is all that a caller keeps between steps.

Optional inputs, the settings, are named below with their defaults and ranges, a table for each signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from zoo import decoding
from zoo.beam_search import MAX_BEAM_WIDTH, beam_search
from zoo.decoding import (
    NONE,
    NOWHERE,
    BadWords,
    Context,
    Limits,
    RepetitionPenalty,
    Sampling,
    Setting,
    StopStrings,
)
from zoo.models.token_details import token_details

if TYPE_CHECKING:
    from zoo.models.language_model import NextTokenModel

MAX_NEW_TOKENS = 4096
MAX_CANDIDATES = 32  # of contrastive search

_MAX_NEW_TOKENS = Setting(
    tf.int32, 100, lambda n: (n >= 0) & (n <= MAX_NEW_TOKENS), f"between 0 and {MAX_NEW_TOKENS}"
)
_FIRST = ("temperature", "top_k", "top_p")  # callers may rely on the order of these and the seed

STEP: dict[str, Setting] = {
    **{name: decoding.SETTINGS[name] for name in _FIRST},
    "seed": Setting(tf.int32, [-1, -1]),
    **decoding.SETTINGS,
}
GENERATE: dict[str, Setting] = {
    "max_new_tokens": _MAX_NEW_TOKENS,
    **STEP,
    "repetition_penalty": Setting(
        tf.float32, 1.0, lambda p: tf.math.is_finite(p) & (p > 0), "above 0 (1: no penalty)"
    ),
    "stop": Setting(tf.string, [""]),
    "bad_words": Setting(tf.string, [""]),
}
BEAM: dict[str, Setting] = {
    "beam_width": Setting(
        tf.int32, 4, lambda n: (n >= 1) & (n <= MAX_BEAM_WIDTH), f"between 1 and {MAX_BEAM_WIDTH}"
    ),
    "max_new_tokens": Setting(
        tf.int32, 100, lambda n: (n >= 1) & (n <= MAX_NEW_TOKENS), f"between 1 and {MAX_NEW_TOKENS}"
    ),
    "length_penalty": Setting(
        tf.float32, 0.0, lambda p: tf.math.is_finite(p) & (p >= 0), "at least 0 (0: none)"
    ),
}
CONTRASTIVE: dict[str, Setting] = {
    "max_new_tokens": _MAX_NEW_TOKENS,
    "top_k": Setting(
        tf.int32, 4, lambda n: (n >= 1) & (n <= MAX_CANDIDATES), f"between 1 and {MAX_CANDIDATES}"
    ),
    "alpha": Setting(tf.float32, 0.6, lambda a: (a >= 0) & (a <= 1), "between 0 (greedy) and 1"),
}


class LanguageModelService:
    """The signatures' computations, over one model."""

    def __init__(self, model: NextTokenModel):
        self.model = model
        self.state_width = sum(model.state_size.values()) + 1

    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Log-probabilities of whole texts, string [batch]; the end of a separate text included."""
        features = self.model.features({"text": text})
        batch = {name: ragged.to_tensor() for name, ragged in features.items()}
        num_tokens = tf.cast(features["targets"].row_lengths(), tf.int32)
        batch["mask"] = tf.sequence_mask(num_tokens, tf.shape(batch["targets"])[1])
        log_prob = tf.reduce_sum(self.model.token_log_prob(batch, self.model(batch)), axis=1)
        log_prob = tf.cast(log_prob, tf.float32)
        nats_per_token = tf.math.divide_no_nan(-log_prob, tf.cast(num_tokens, tf.float32))
        return {"log_prob": log_prob, "num_tokens": num_tokens, "perplexity": tf.exp(nats_per_token)}

    def score_tokens(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Each token of texts, string [batch], with its log-probability; see `token_details`."""
        features = self.model.features({"text": text})
        return {
            **self._details(features["inputs"], features["targets"]),
            "num_tokens": tf.cast(features["targets"].row_lengths(), tf.int32),
        }

    def start(self, prompt: tf.Tensor) -> tf.Tensor:
        """The generation states [batch, S] after prompts, string [batch]."""
        token, states = self._started(self.model.tokenizer.tokenize(prompt))
        return self._packed(states, token)

    def step(self, state: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        """One more token a row, and the states after it. Settings: STEP.

        A state knows no earlier tokens, so that there is no repetition penalty, nor bad words.
        """
        batch_size = tf.shape(state)[0]
        settings = decoding.checked(STEP, settings, batch_size)
        logits, states = self._next_logits(*self._unpacked(state))
        uniform = decoding.uniforms(settings["seed"], batch_size, 1)[:, 0]
        token = self._sampling(settings).choose(self._allowed(logits), uniform)
        ends = tf.equal(token, self._end_id) if self._end_id is not None else tf.zeros_like(token, tf.bool)
        return {
            "token": self._piece(token),
            "token_id": token,
            "log_prob": tf.gather(tf.nn.log_softmax(logits), token, batch_dims=1),
            "done": ends,
            "state": self._packed(states, token),
        }

    def generate(self, prompt: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Continuations of prompts, string [batch]. Settings: GENERATE.

        The logits are changed by `repetition_penalty`, then by `bad_words`, then sampled. `num_tokens` and
        `log_prob` count a token that ended the text, and those of a stop string. `ids` [batch, tokens].
        """
        batch_size = tf.size(prompt)
        settings = decoding.checked(GENERATE, settings, batch_size)
        tokens = self.model.tokenizer.tokenize(prompt)
        step_weights = self.model.step_weights()
        rules = (
            RepetitionPenalty(settings["repetition_penalty"], self.model.tokenizer.vocabulary_size),
            BadWords(self._forbidden(settings["bad_words"])),
        )
        token, states = self._started(tokens)
        generated = decoding.generate(
            lambda token, states: self._next_logits(token, states, step_weights),
            token,
            states,
            Limits(settings["max_new_tokens"], StopStrings(settings["stop"]), self._piece),
            self._sampling(settings),
            decoding.uniforms(settings["seed"], batch_size, MAX_NEW_TOKENS),
            self._allowed,
            self._end_id,
            [(rule, rule.start(tokens)) for rule in rules],
        )
        text = self._text(generated.ids, generated.lengths)
        end = tf.where(generated.stop == NOWHERE, tf.strings.length(text), generated.stop)
        return {
            "text": tf.strings.substr(text, tf.zeros_like(end), end),
            "num_tokens": generated.lengths,
            "log_prob": generated.log_prob,
            "ids": generated.ids,
        }

    def generated_details(
        self, prompt: tf.Tensor, ids: tf.Tensor, num_tokens: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Each generated token with its log-probability after the prompt; see `token_details`."""
        targets = tf.RaggedTensor.from_tensor(ids, num_tokens)
        read = self._read(self.model.tokenizer.tokenize(prompt))
        read = read.with_row_splits_dtype(tf.int64)
        return self._details(tf.concat([read, targets], axis=1)[:, :-1], targets)

    def beam(self, prompt: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        """The likeliest continuations of prompts, string [batch], the best first. Settings: BEAM.

        Where a row has fewer than there are columns, `text` is empty and `log_prob` minus infinity.
        """
        settings = decoding.checked(BEAM, settings, tf.size(prompt))
        step_weights = self.model.step_weights()
        token, states = self._started(self.model.tokenizer.tokenize(prompt))
        found = beam_search(
            lambda token, states: self._next_logits(token, states, step_weights),
            token,
            states,
            settings["beam_width"],
            settings["max_new_tokens"],
            self._end_id,
            settings["length_penalty"],
            settings["beam_width"],
            self._allowed,
        )
        text = tf.where(tf.math.is_inf(found.log_prob), "", self._text(found.ids, found.lengths))
        return {"text": text, "log_prob": found.log_prob}

    def contrastive(self, prompt: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Continuations of prompts, string [batch], by contrastive search. Settings: CONTRASTIVE.

        For models whose contexts are `hidden` vectors, among others.
        """
        settings = decoding.checked(CONTRASTIVE, settings, tf.size(prompt))
        step_weights = self.model.step_weights()

        def step(token, states):
            contexts, states = self.model.step(token, states, step_weights)
            return tf.cast(contexts["hidden"], tf.float32), self.model.logits(contexts), states

        generated = decoding.contrastive_search(
            step,
            self._context(self._read(self.model.tokenizer.tokenize(prompt))),
            **settings,
            allowed=self._allowed,
            end_id=self._end_id,
        )
        return {
            "text": self._text(generated.ids, generated.lengths),
            "num_tokens": generated.lengths,
            "log_prob": generated.log_prob,
        }

    @property
    def _end_id(self) -> int | None:
        return self.model.tokenizer.boundary_id if self.model.separate_texts else None

    def _allowed(self, logits):
        """The unknown token stands for no text, so it is never drawn."""
        ids = tf.range(tf.shape(logits)[-1])
        return tf.where(tf.equal(ids, self.model.tokenizer.unknown_id), -float("inf"), logits)

    def _sampling(self, settings):
        return Sampling(**{name: settings[name] for name in decoding.SETTINGS})

    def _piece(self, ids):
        """The bytes of ids; a token that ends a text has none."""
        pieces = self.model.tokenizer.piece(ids)
        return pieces if self._end_id is None else tf.where(tf.equal(ids, self._end_id), "", pieces)

    def _text(self, ids, lengths):
        """Of ids [..., steps], of which so many count."""
        is_token = tf.sequence_mask(lengths, tf.shape(ids)[-1])
        return tf.strings.reduce_join(tf.where(is_token, self._piece(ids), ""), axis=-1)

    def _details(self, inputs, targets):
        details = token_details(self.model, inputs, targets)
        is_token = tf.sequence_mask(targets.row_lengths(), tf.shape(details["token_log_probs"])[1])
        top_ids = details.pop("top_ids")
        return {
            **details,
            "tokens": tf.where(is_token, self._piece(targets.to_tensor()), ""),
            "top_tokens": tf.where(is_token[..., tf.newaxis], self._piece(top_ids), ""),
        }

    def _forbidden(self, words):
        """Bad words, string [batch, count], as ids [batch, 2 * count, length], padded in front with NONE.

        Each as it is and with a space before it, for which tokenizers may have tokens of their own.
        A word with an unknown token never occurs.
        """
        spaced = tf.where(words == "", "", tf.strings.join([" ", words]))
        words = tf.concat([words, spaced], axis=1)
        tokens = self.model.tokenizer.tokenize(tf.reshape(words, [-1]))
        length = tf.cast(tf.maximum(tf.reduce_max(tokens.row_lengths()), 1), tf.int32)
        sequences = decoding.last_tokens(tokens, length)
        is_known = tf.reduce_all(sequences != self.model.tokenizer.unknown_id, axis=1, keepdims=True)
        sequences = tf.where(is_known, sequences, NONE)
        return tf.reshape(sequences, tf.concat([tf.shape(words), [length]], 0))

    def _read(self, tokens):
        """What the model reads of a text: the boundary, then the tokens."""
        return tf.concat([tf.fill([tokens.nrows(), 1], self.model.tokenizer.boundary_id), tokens], axis=1)

    def _started(self, tokens):
        """The last token of prompts, ids [batch, (tokens)], and the states before it."""
        tokens = self._read(tokens)
        read = tokens[:, :-1]
        _, states = self.model.read(read.to_tensor(), read.row_lengths())
        return tf.reshape(tokens[:, -1:].flat_values, [-1]), states

    def _context(self, read):
        """The model after all of these tokens [batch, (tokens)]."""
        inputs, lengths = read.to_tensor(), read.row_lengths()
        contexts, states = self.model.read(inputs, lengths)
        last = {name: tf.gather(each, lengths - 1, batch_dims=1) for name, each in contexts.items()}
        mask = tf.sequence_mask(lengths, tf.shape(inputs)[1])
        return Context(self.model.logits(last), states, tf.cast(contexts["hidden"], tf.float32), mask)

    def _next_logits(self, token, states, step_weights=None):
        contexts, states = self.model.step(token, states, step_weights)
        return self.model.logits(contexts), states

    def _packed(self, states, token):
        """Side by side, in the order of the model's `state_size`."""
        columns = [*(states[name] for name in self.model.state_size), token[:, tf.newaxis]]
        return tf.concat([tf.cast(column, tf.float32) for column in columns], axis=1)

    def _unpacked(self, state):
        sizes = self.model.state_size
        *columns, token = tf.split(state, [*sizes.values(), 1], axis=1)
        initial = self.model.initial_states(1)
        states = {
            name: tf.cast(column, initial[name].dtype) for name, column in zip(sizes, columns, strict=True)
        }
        return tf.cast(token[:, 0], tf.int32), states
