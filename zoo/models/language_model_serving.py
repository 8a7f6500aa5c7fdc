"""What an exported language model answers: score, generate, start, step.

A generation state is one row of floats, [batch, S]: the model's states side by side and the last
token, which the model has not read yet. It is all that a caller keeps between steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from zoo import decoding
from zoo.decoding import Sampling

if TYPE_CHECKING:
    from zoo.models.next_token import NextTokenModel

MAX_NEW_TOKENS = 4096


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

    def start(self, prompt: tf.Tensor) -> tf.Tensor:
        """The generation states [batch, S] after prompts, string [batch]."""
        tokens = self.model.tokenizer.tokenize(prompt)
        boundary = tf.fill([tokens.nrows(), 1], self.model.tokenizer.boundary_id)
        tokens = tf.concat([boundary, tokens], axis=1)
        read = tokens[:, :-1]
        states = self.model.read(read.to_tensor(), read.row_lengths())
        last = tf.reshape(tokens[:, -1:].flat_values, [-1])
        return self._packed(states, last)

    def step(self, state: tf.Tensor, sampling: Sampling, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """One more token a row, and the states after it."""
        batch_size = tf.shape(state)[0]
        sampling = sampling.checked(batch_size)
        logits, states = self._next_logits(*self._unpacked(state))
        uniform = decoding.uniforms(seed, batch_size, 1)[:, 0]
        token = sampling.choose(self._allowed(logits), uniform)
        ends = tf.equal(token, self._end_id) if self._end_id is not None else tf.zeros_like(token, tf.bool)
        return {
            "token": tf.where(ends, "", self.model.tokenizer.piece(token)),
            "token_id": token,
            "log_prob": tf.gather(tf.nn.log_softmax(logits), token, batch_dims=1),
            "done": ends,
            "state": self._packed(states, token),
        }

    def generate(
        self, prompt: tf.Tensor, max_new_tokens: tf.Tensor, sampling: Sampling, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Continuations of prompts, string [batch]; `num_tokens` counts a token that ended the text."""
        batch_size = tf.size(prompt)
        sampling = sampling.checked(batch_size)
        max_new_tokens = decoding.rows(max_new_tokens, batch_size)
        in_range = (max_new_tokens >= 0) & (max_new_tokens <= MAX_NEW_TOKENS)
        with tf.control_dependencies(
            [decoding.require(in_range, f"max_new_tokens must be between 0 and {MAX_NEW_TOKENS}")]
        ):
            token, states = self._unpacked(self.start(prompt))
        step_weights = self.model.step_weights()
        generated = decoding.generate(
            lambda token, states: self._next_logits(token, states, step_weights),
            token,
            states,
            max_new_tokens,
            sampling,
            decoding.uniforms(seed, batch_size, MAX_NEW_TOKENS),
            self._allowed,
            self._end_id,
        )
        ids = generated.ids
        written = tf.sequence_mask(generated.lengths, tf.shape(ids)[1])
        if self._end_id is not None:
            written &= tf.not_equal(ids, self._end_id)
        pieces = tf.where(written, self.model.tokenizer.piece(ids), "")
        return {
            "text": tf.strings.reduce_join(pieces, axis=1),
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

    def _next_logits(self, token, states, step_weights=None):
        logits, states = self.model.step(token, states, step_weights)
        return tf.cast(logits, tf.float32), states

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


def signatures(model: NextTokenModel) -> dict:
    """Functions by signature name; an argument's default, of one row, becomes the signature's."""
    service = LanguageModelService(model)
    text, prompt = (tf.TensorSpec([None], tf.string, name) for name in ("text", "prompt"))
    state = tf.TensorSpec([None, service.state_width], tf.float32, "state")
    limit = tf.TensorSpec([None], tf.int32, "max_new_tokens")
    settings = [
        tf.TensorSpec([None], tf.float32, "temperature"),
        tf.TensorSpec([None], tf.int32, "top_k"),
        tf.TensorSpec([None], tf.float32, "top_p"),
        tf.TensorSpec([None, 2], tf.int32, "seed"),
    ]
    one, zero, fresh = tf.constant([1.0]), tf.constant([0]), tf.constant([[-1, -1]])
    hundred = tf.constant([100])

    def score(text):
        return service.score(text)

    def start(prompt):
        return {"state": service.start(prompt)}

    def step(state, temperature=one, top_k=zero, top_p=one, seed=fresh):
        return service.step(state, Sampling(temperature, top_k, top_p), seed)

    def generate(prompt, max_new_tokens=hundred, temperature=one, top_k=zero, top_p=one, seed=fresh):
        return service.generate(prompt, max_new_tokens, Sampling(temperature, top_k, top_p), seed)

    generate = tf.function(generate, input_signature=[prompt, limit, *settings], autograph=False)
    return {
        "serving_default": generate,
        "generate": generate,
        "score": tf.function(score, input_signature=[text], autograph=False),
        "start": tf.function(start, input_signature=[prompt], autograph=False),
        "step": tf.function(step, input_signature=[state, *settings], autograph=False),
    }


def requests(model: NextTokenModel) -> dict:
    """Inputs by signature name: texts of different lengths, and prompts continued greedily."""
    words = [piece for piece in model.tokenizer.pieces if piece.strip()][:8]
    texts = [b"", *words, b"".join(words), b"".join(reversed(words))]
    greedy = {"temperature": [0.0], "top_k": [0], "top_p": [1.0], "seed": [[1, 2]]}
    prompts = {"prompt": texts, "max_new_tokens": [20], **greedy}
    state = LanguageModelService(model).start(tf.constant(texts)).numpy()
    return {
        "score": {"text": texts},
        "generate": prompts,
        "serving_default": prompts,
        "start": {"prompt": texts},
        "step": {"state": state, **greedy},
    }
