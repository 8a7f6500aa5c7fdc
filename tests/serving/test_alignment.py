"""Words with something under them, as a terminal shows them."""

from __future__ import annotations

import pytest

from serving.alignment import under


def test_columns_are_as_wide_as_they_need_be():
    assert under(["The", "dog", "barks"], ["DET", "NOUN", "VERB"], 80) == "The dog  barks\nDET NOUN VERB"


def test_lines_end_before_the_terminal_does():
    shown = under(["one", "two", "three"], ["A", "BB", "C"], 8)
    assert shown == "one two\nA   BB\n\nthree\nC"
    assert under(["longer than the terminal"], ["X"], 8).startswith("longer than the terminal\n")


def test_characters_of_the_same_tag_are_taken_together():
    assert (
        under(list("def f"), ["keyword"] * 3 + ["space", "name"], 80) == "def           f\nkeyword space name"
    )


@pytest.mark.parametrize(
    ("token", "width"),
    [("e\u0301", 1), ("語", 2), ("שלום", 4), ("a\x1b[31m", 9), ("\n\n", 4), ("\u202eab", 8)],
)
def test_width_is_that_on_a_terminal(token, width):
    upper, lower = under([token, "x"], ["T", "U"], 80).split("\n")
    assert lower == "T" + " " * width + "U"
    assert "\x1b" not in upper
    assert "\u202e" not in upper


def test_nothing():
    assert under([], [], 80) == "\n"
