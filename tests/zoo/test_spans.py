"""Tags of spans: which may follow each other, and how many entities are right, as seqeval counts, too."""

from __future__ import annotations

import numpy as np
import pytest

from zoo import spans
from zoo.metrics import Accuracy, SpanF1

BIO = ("O", "B-x", "I-x", "B-y", "I-y")
BIOES = (*BIO, "E-x", "S-x", "E-y", "S-y")


class TestMoves:
    @pytest.mark.parametrize(
        ("before", "tag", "in_bio"),
        [
            *[("O", "B-x", True), ("O", "I-x", False), ("B-x", "I-x", True), ("B-x", "I-y", False)],
            *[("I-x", "I-x", True), ("I-x", "B-x", True), ("I-x", "O", True), ("B-x", "B-y", True)],
        ],
    )
    def test_in_bio(self, before, tag, in_bio):
        assert spans.may_follow(before, tag, ends=False) == in_bio

    @pytest.mark.parametrize(
        ("before", "tag", "in_bioes"),
        [
            *[("O", "S-x", True), ("O", "E-x", False), ("B-x", "E-x", True), ("B-x", "O", False)],
            *[("B-x", "S-x", False), ("I-x", "E-x", True), ("I-x", "B-x", False), ("E-x", "B-x", True)],
            *[("E-x", "I-x", False), ("S-x", "S-y", True), ("S-x", "E-x", False), ("B-x", "E-y", False)],
        ],
    )
    def test_in_bioes(self, before, tag, in_bioes):
        assert spans.may_follow(before, tag, ends=True) == in_bioes

    def test_all_is_legal_where_tags_mark_no_spans(self):
        assert all(legal.all() for legal in spans.legal_moves(["NOUN", "VERB", "X"]))

    def test_sentences_begin_and_end_like_beside_an_o(self):
        first, moves, last = spans.legal_moves(BIOES)
        np.testing.assert_array_equal(first, moves[0])
        np.testing.assert_array_equal(last, moves[:, 0])
        assert [tag for tag, legal in zip(BIOES, last, strict=True) if not legal] == [
            "B-x",
            "I-x",
            "B-y",
            "I-y",
        ]


@pytest.mark.parametrize(
    ("tags", "mark"),
    [
        (BIO, True),
        (["O"], False),
        (["NOUN", "O"], False),
        (["B-", "O"], False),
        (["I-x"], True),
        (["Q-x"], False),
    ],
)
def test_tags_that_mark_spans(tags, mark):
    assert spans.mark_spans(tags) == mark


def entities(tags):
    """(first, last, kind) of each, by the rules of the CoNLL 2000 evaluation, read from left to right."""
    found, begun = [], None
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if begun is not None:
            before, _, kind_before = tags[place - 1].partition("-")
            if before in "ES" or prefix in "BSO" or kind != kind_before:
                found.append((begun, place - 1, kind_before))
                begun = None
        if begun is None and prefix != "O":
            begun = place
    return found


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-x I-x O B-y", [(0, 1, "x"), (3, 3, "y")]),
        ("I-x I-y I-y B-y", [(0, 0, "x"), (1, 2, "y"), (3, 3, "y")]),
        ("B-x E-x E-x S-x I-x", [(0, 1, "x"), (2, 2, "x"), (3, 3, "x"), (4, 4, "x")]),
    ],
)
def test_entities_by_hand(tags, expected):
    assert entities(tags.split()) == expected


@pytest.mark.parametrize("tags", [BIO, BIOES])
def test_entities_are_counted(tags):
    """In sequences at random, most of them not legal."""
    draw, metric = np.random.default_rng(1), SpanF1(tags)
    right = predicted = actual = 0
    for _ in range(40):
        lengths = draw.integers(1, 10, 5)
        mask = np.arange(9) < lengths[:, np.newaxis]
        ids = draw.integers(0, len(tags), mask.shape)
        said = np.where(draw.random(ids.shape) < 0.7, ids, draw.integers(0, len(tags), mask.shape))
        metric.update_state(ids, said, mask)
        for row, length in enumerate(lengths):
            marked, found = (set(entities([tags[i] for i in each[row, :length]])) for each in (ids, said))
            right, predicted, actual = (
                right + len(marked & found),
                predicted + len(found),
                actual + len(marked),
            )
    result = {name: float(value) for name, value in metric.result().items()}
    f1 = 2 * right / (predicted + actual)
    assert result == pytest.approx({"precision": right / predicted, "recall": right / actual, "f1": f1})
    assert 0.1 < f1 < 0.9


def test_no_entities_are_a_score_of_zero():
    metric = SpanF1(BIO)
    metric.update_state(np.zeros((2, 3), int), np.zeros((2, 3), int), np.ones((2, 3), bool))
    assert [float(value) for value in metric.result().values()] == [0, 0, 0]


def test_accuracy_counts_what_the_mask_lets_through():
    metric = Accuracy("token")
    metric.update_state(np.array([[True, False, True]]), np.array([[True, True, False]]), nats=3.0)
    metric.update_state(np.array([[True]]), np.array([[True]]), nats=0.0)
    result = {name: float(value) for name, value in metric.result().items()}
    assert result == {"tokens": 3, "nats_per_token": 1, "accuracy": pytest.approx(2 / 3)}
