"""Small output layers, their equations in NumPy, and how small language models have them."""

from __future__ import annotations

import numpy as np
import pytest
from cases import randomize
from oracles import log_softmax, weights_of

from zoo.heads import (
    HEADS,
    AdaptiveSoftmax,
    HierarchicalSoftmax,
    MaximumEntropy,
    MixtureOfSoftmaxes,
    OutputLayer,
)

TOKENS, UNITS, VOCABULARY = 9, 6, 13

CASES = {
    "full": ("full", {}),
    "adaptive": ("adaptive", {"cutoffs": [4, 9], "factor": 2.0}),
    "adaptive of one cluster": ("adaptive", {"cutoffs": "5"}),
    "adaptive without clusters": ("adaptive", {"cutoffs": []}),
    "sampled": ("sampled", {"samples": 5}),
    "nce": ("nce", {"samples": 5}),
    "blackout": ("blackout", {"samples": 5}),
    "mixture": ("mixture", {"components": 3}),
    "mixture of one": ("mixture", {"components": 1}),
    "hierarchical": ("hierarchical", {}),
    "hierarchical of uneven classes": ("hierarchical", {"classes": 3}),
    "maxent": ("maxent", {"order": 4, "buckets": 50}),
    "maxent of bigrams": ("maxent", {"order": 2, "buckets": 7}),
    "maxent that learns faster": ("maxent", {"order": 3, "buckets": 20, "scale": 2.5}),
}
SAMPLED = ("sampled", "nce", "blackout")
EXACT = [name for name, (kind, _) in CASES.items() if kind not in SAMPLED]  # their loss is -log P
HISTORY = np.random.default_rng(8).integers(VOCABULARY, size=(TOKENS, 3)).astype(np.int32)


def make(case: str, dtype: str = "float64", **further) -> OutputLayer:
    kind, options = CASES[case]
    head = HEADS[kind](VOCABULARY, dtype=dtype, **{**options, **further})
    head.build((None, UNITS))
    randomize(head, seed=2, scale=0.8)
    if head.needs_counts:
        head.set_counts(np.arange(VOCABULARY, 0, -1))
    return head


def history_of(head: OutputLayer, tokens: int = TOKENS) -> np.ndarray:
    """[tokens, history_size]; the layers that read none are given none of its columns."""
    return np.resize(HISTORY[:, HISTORY.shape[1] - head.history_size :], (tokens, head.history_size))


def example_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """hidden, targets among which are the ends of the vocabulary, and weights."""
    random = np.random.default_rng(1)
    targets = np.array([0, 3, 4, 4, 8, 9, 12, 12, 1], np.int32)
    weights = np.array([1.0, 2.0, 0.5, 1.0, 1.0, 0.0, 1.0, 3.0, 1.0])
    return random.normal(size=(TOKENS, UNITS)), targets, weights


# The equations


def adaptive_in_numpy(head: AdaptiveSoftmax, hidden):
    weights = weights_of(head)
    top = log_softmax(hidden @ weights["head_embedding"].T + weights["head_bias"])
    columns = []
    for word in range(VOCABULARY):
        cluster = sum(word >= cutoff for cutoff in head.cutoffs)
        if not cluster:
            columns.append(top[:, word])
            continue
        projected = hidden @ weights[f"projection_{cluster}"].T
        within = log_softmax(projected @ weights[f"embedding_{cluster}"].T + weights[f"bias_{cluster}"])
        first = head.cutoffs[cluster - 1]
        columns.append(top[:, head.cutoffs[0] + cluster - 1] + within[:, word - first])
    return np.stack(columns, axis=1)


def mixture_in_numpy(head: MixtureOfSoftmaxes, hidden):
    weights = weights_of(head)
    prior = np.exp(log_softmax(hidden @ weights["prior_kernel"].T))
    probabilities = 0.0
    for k, kernel in enumerate(np.split(weights["context_kernel"], head.components)):
        context = np.tanh(hidden @ kernel.T + np.split(weights["context_bias"], head.components)[k])
        component = np.exp(log_softmax(context @ np.asarray(head.embedding).T + weights["bias"]))
        probabilities += prior[:, [k]] * component
    return np.log(probabilities)


def hierarchical_in_numpy(head: HierarchicalSoftmax, hidden, history):
    weights, embedding = weights_of(head), np.asarray(head.embedding)
    log_prob = np.zeros((len(hidden), VOCABULARY))
    for row, (h, words) in enumerate(zip(hidden, history, strict=True)):
        of_classes = weights["class_embedding"] @ h + weights["class_bias"]
        if isinstance(head, MaximumEntropy):
            of_classes = of_classes + head.scale * sum(weights["class_features"][rows_of(head, words)])
        for number, class_log_prob in enumerate(log_softmax(of_classes)):
            members = np.arange(VOCABULARY)[number * head.class_size :][: head.class_size]
            logits = embedding[members] @ h + weights["bias"][members]
            if isinstance(head, MaximumEntropy):
                features = head.scale * sum(weights["word_features"][rows_of(head, words, number)])
                logits = logits + features[: len(members)]
            log_prob[row, members] = class_log_prob + log_softmax(logits)
    return log_prob


def rows_of(head: MaximumEntropy, words, class_number=None) -> list[int]:
    """The rows of features of a history's last 1, 2, ... words, and of a class."""
    rows, hashed = [], 0
    for word in reversed(words.tolist()):
        hashed = mixed_in_python(hashed, word)
        own = hashed if class_number is None else mixed_in_python(hashed, class_number)
        rows.append(own % head.buckets)
    return rows


def mixed_in_python(hashed: int, number: int) -> int:
    def wrapped(value):  # to 64 bits with a sign
        return (value + 2**63) % 2**64 - 2**63

    hashed = wrapped((hashed + number + 1) * 0x1E3779B97F4A7C15)
    hashed = wrapped((hashed ^ hashed >> 32) * 0x7F51AFD7ED558CCD)
    return hashed ^ hashed >> 29


def full_in_numpy(head, hidden):
    return log_softmax(hidden @ np.asarray(head.embedding).T + np.asarray(head.bias))


IN_NUMPY = {"AdaptiveSoftmax": adaptive_in_numpy, "MixtureOfSoftmaxes": mixture_in_numpy}


def log_probabilities(head: OutputLayer, hidden, history=None) -> np.ndarray:
    """[tokens, vocabulary], in NumPy."""
    if isinstance(head, HierarchicalSoftmax):
        return hierarchical_in_numpy(head, hidden, history_of(head) if history is None else history)
    return IN_NUMPY.get(type(head).__name__, full_in_numpy)(head, hidden)


# One of each way to compute.
WAYS = ("full", "adaptive", "mixture", "hierarchical", "maxent")

# In language models

# Of a vocabulary of nine or more.
OPTIONS = {
    "adaptive": "cutoffs=3/6",
    "sampled": "samples=4",
    "nce": "samples=4",
    "blackout": "samples=4",
    "mixture": "components=2",
    "maxent": "order=4,buckets=50",
}


def quickly(*quick: str, among=HEADS) -> list:
    """All of them as parameters of a test, the slow ones but for these."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in among]


ALL = quickly("maxent")  # that with the words before has the most to go wrong
