"""Tiny language models, and their equations in NumPy."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf
from oracles import ORACLES, log_softmax, run, sampling_distribution, weights_of

from zoo.cells import CELLS
from zoo.models.language_model import LanguageModel
from zoo.text import Characters

CORPUS = "abcdeé \n"
TEXTS = ["", "a", "xyz", "abcabc", "\n\n", "bead é xx cab\nbade", "é", "a b c d e"]
UNKNOWN, BOUNDARY = 0, 1
TOKENIZER = Characters.learn(tf.data.Dataset.from_tensors(CORPUS))
KINDS = ("elman", "lstm", "gru")  # the conformance suite has them all
PIECES = [piece.decode() for piece in TOKENIZER.pieces]


def make(randomize, **options) -> LanguageModel:
    """A tiny model with random weights, so confident that texts differ widely in probability."""
    model = LanguageModel(TOKENIZER, **{"units": 5, **options})
    return randomize(model, seed=3, scale=1.0)


class InNumpy:
    """The model's equations, one text at a time, from its weights alone."""

    def __init__(self, model: LanguageModel, cell_options=None):
        self.model = model
        self.embedding = np.asarray(model.embedding.embeddings, np.float64)
        tied = model.head.tied_to is not None
        self.output_embedding = (
            self.embedding if tied else np.asarray(model.head.output_embedding, np.float64)
        )
        self.bias = np.asarray(model.head.bias, np.float64)
        names = {cell_class: name for name, cell_class in CELLS.items()}
        self.steps = [
            functools.partial(ORACLES[names[type(cell)]], weights_of(cell), **(cell_options or {}))
            for cell in model.stack.cells
        ]

    def logits(self, ids) -> np.ndarray:
        """[tokens, vocabulary]: after each of the ids, from the zero state."""
        return self.hidden(ids) @ self.output_embedding.T + self.bias

    def hidden(self, ids) -> np.ndarray:
        """[tokens, units]: the last layer's output."""
        outputs = self.embedding[ids][np.newaxis]
        for cell, step in zip(self.model.stack.cells, self.steps, strict=True):
            inputs, zeros = outputs, [np.zeros((1, size)) for size in cell.state_size]
            outputs, _, _ = run(step, inputs, zeros)
            if self.model.stack.skip == "residual" and inputs.shape == outputs.shape:
                outputs = inputs + outputs
        return outputs[0]

    def targets(self, text: str) -> list[int]:
        end = [BOUNDARY] if self.model.separate_texts else []
        return ids_of(text) + end

    def log_prob(self, text: str) -> float:
        targets = self.targets(text)
        if not targets:
            return 0.0
        log_prob = log_softmax(self.logits([BOUNDARY, *targets[:-1]]))
        return sum(log_prob[now, target] for now, target in enumerate(targets))

    def generate(
        self, prompt: str, limit: int, uniform=None, penalty=1.0, bad_words=(), stop=(), **settings
    ) -> tuple[str, int, float]:
        """The continuation, its number of tokens, and their log-probability."""
        ids, text, log_prob, drawn = [BOUNDARY, *ids_of(prompt)], "", 0.0, 0
        for now in range(limit):
            logits = self.logits(ids)[-1]
            changed = self._changed(logits, ids, penalty, bad_words)
            if np.isinf(changed).all():
                break
            if uniform is None:
                token = int(changed.argmax())
            else:
                cumulative = np.cumsum(sampling_distribution(changed, **settings))
                token = int(np.searchsorted(cumulative, uniform[now], side="right"))
            log_prob += log_softmax(logits)[token]
            drawn += 1
            if self.model.separate_texts and token == BOUNDARY:
                break
            ids.append(token)
            text += PIECES[token]
            if any(text.endswith(each) for each in stop):
                return (
                    min((text[: -len(each)] for each in stop if text.endswith(each)), key=len),
                    drawn,
                    log_prob,
                )
        return text, drawn, log_prob

    def _changed(self, logits, ids, penalty, bad_words):
        changed = logits.copy()
        for token in set(ids[1:]):  # the first was there before the text
            changed[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        said = "".join(PIECES[token] for token in ids[1:])
        for token, piece in enumerate(PIECES):
            if token == UNKNOWN or any((said + piece).endswith(word) for word in bad_words):
                changed[token] = -np.inf
        return changed


def ids_of(text: str) -> list[int]:
    return [PIECES.index(character) if character in PIECES else UNKNOWN for character in text]


def decoded(texts) -> list[str]:
    return [text.decode() for text in texts]


def call_generate(signature, prompts, **settings) -> dict[str, np.ndarray]:
    """What a signature answers, whose settings may be given as lists."""
    types = {
        spec.name: spec.dtype for spec in signature.get_concrete_function().structured_input_signature[0]
    }
    given = {name: tf.constant(value, types[name]) for name, value in settings.items()}
    return {
        name: value.numpy() for name, value in signature(tf.constant(prompts, tf.string), **given).items()
    }
