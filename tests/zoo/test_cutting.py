"""Tokens of raw text: what they are, and that each is the slice of the text that it says it is."""

from __future__ import annotations

import random

import pytest
import tensorflow as tf

from zoo.cutting import CUTS

SENTENCES = {
    "I don't like it.": ["I", "do", "n't", "like", "it", "."],
    "It's Ada's, isn’t it?": ["It", "'s", "Ada", "'s", ",", "is", "n’t", "it", "?"],  # noqa: RUF001
    "They'll pay $1,000.50 (or 50%)!!": [
        "They",
        "'ll",
        "pay",
        "$",
        "1,000.50",
        "(",
        "or",
        "50",
        "%",
        ")",
        "!!",
    ],
    "a well-known U.S. firm...": ["a", "well", "-", "known", "U.S.", "firm", "..."],
    "see https://x.org/a?b=1 or me@x.org, @you #now": (
        ["see", "https://x.org/a?b=1", "or", "me@x.org", ",", "@you", "#now"]
    ),
    "": [],
    " \t\n ": [],
    "n't": ["n't"],
    "שלום עולם!": ["שלום", "עולם", "!"],
    "cafe\u0301 na\u00efve": ["cafe\u0301", "na\u00efve"],
    "東京に行く 😀": ["東京に行く", "😀"],
}


def cut(kind, texts):
    return [part.to_list() for part in CUTS[kind](tf.constant(texts))]


@pytest.mark.parametrize("kind", CUTS)
def test_tokens_are_slices_of_the_text(kind):
    draw = random.Random(1)
    alphabet = [
        "a",
        "é",
        "e\u0301",
        "ש",
        "語",
        "😀",
        " ",
        "\n",
        "\u00a0",
        "'",
        "’",  # noqa: RUF001
        "n't",
        ".",
        "-",
        "1",
        ",",
        "@",
        "#",
    ]
    texts = [*SENTENCES, *("".join(draw.choices(alphabet, k=draw.randint(0, 30))) for _ in range(200))]
    words, starts, ends = cut(kind, texts)
    for text, row in zip(texts, zip(words, starts, ends, strict=True), strict=True):
        data, place = text.encode(), 0
        for word, start, end in zip(*row, strict=True):
            assert data[start:end] == word != b""
            assert not data[place:start].strip(b" \t\n\xa0\xc2")  # nothing but white space is left out
            place = end
        assert not data[place:].strip(b" \t\n\xa0\xc2")


def test_words():
    words, _, _ = cut("words", list(SENTENCES))
    for sentence, row in zip(SENTENCES, words, strict=True):
        assert [word.decode() for word in row] == SENTENCES[sentence]


def test_whitespace_and_characters_are_pythons():
    texts = ["a bc  d\n e", "", " x", "é\u00a0語"]
    words, _, _ = cut("whitespace", texts)
    assert [[word.decode() for word in row] for row in words] == [text.split() for text in texts]
    characters, _, _ = cut("characters", texts)
    assert [[each.decode() for each in row] for row in characters] == [list(text) for text in texts]


@pytest.mark.parametrize("kind", CUTS)
def test_bytes_that_are_no_text_are_survived(kind):
    words, starts, ends = cut(kind, [b"ab \xff\xfe c", b"\xff", b"ok"])
    assert [len(row) for row in words] == [len(row) for row in starts] == [len(row) for row in ends]
    assert words[2][-1].endswith(b"k")
