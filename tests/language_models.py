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
        outputs = self.embedding[ids][np.newaxis]
        for cell, step in zip(self.model.stack.cells, self.steps, strict=True):
            inputs, zeros = outputs, [np.zeros((1, size)) for size in cell.state_size]
            outputs, _, _ = run(step, inputs, zeros)
            if self.model.stack.skip == "residual" and inputs.shape == outputs.shape:
                outputs = inputs + outputs
        return outputs[0] @ self.output_embedding.T + self.bias

    def targets(self, text: str) -> list[int]:
        end = [BOUNDARY] if self.model.separate_texts else []
        return ids_of(text) + end

    def log_prob(self, text: str) -> float:
        targets = self.targets(text)
        if not targets:
            return 0.0
        log_prob = log_softmax(self.logits([BOUNDARY, *targets[:-1]]))
        return sum(log_prob[now, target] for now, target in enumerate(targets))

    def generate(self, prompt: str, limit: int, uniform=None, **settings) -> tuple[str, int, float]:
        """The continuation, its number of tokens, and their log-probability."""
        ids, drawn, log_prob = [BOUNDARY, *ids_of(prompt)], [], 0.0
        for now in range(limit):
            logits = self.logits(ids)[-1]
            allowed = np.where(np.arange(len(logits)) == UNKNOWN, -np.inf, logits)
            if uniform is None:
                token = int(allowed.argmax())
            else:
                cumulative = np.cumsum(sampling_distribution(allowed, **settings))
                token = int(np.searchsorted(cumulative, uniform[now], side="right"))
            log_prob += log_softmax(logits)[token]
            ids.append(token)
            drawn.append(token)
            if self.model.separate_texts and token == BOUNDARY:
                break
        ended = self.model.separate_texts and drawn[-1:] == [BOUNDARY]
        return "".join(PIECES[token] for token in (drawn[:-1] if ended else drawn)), len(drawn), log_prob


def ids_of(text: str) -> list[int]:
    return [PIECES.index(character) if character in PIECES else UNKNOWN for character in text]


def decoded(texts) -> list[str]:
    return [text.decode() for text in texts]


def call_generate(signature, prompts, **settings) -> dict[str, np.ndarray]:
    types = {"temperature": np.float32, "top_p": np.float32}
    given = {name: np.array(value, types.get(name, np.int32)) for name, value in settings.items()}
    return {
        name: value.numpy() for name, value in signature(tf.constant(prompts, tf.string), **given).items()
    }
