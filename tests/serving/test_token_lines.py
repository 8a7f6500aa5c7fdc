"""Tokens with their probabilities, as a terminal shows them."""

from __future__ import annotations

import math

import pytest

from serving.client_results import Alternative, TokenDetails
from serving.token_lines import quoted, token_lines


def details(text, probability, **alternatives):
    others = [Alternative(name.encode(), math.log(share)) for name, share in alternatives.items()]
    return TokenDetails(text.encode(), math.log(probability) if probability else -math.inf, others)


def test_lines():
    tokens = [details("ab", 0.5, a=0.5, b=0.25), details(" ", 1.0, c=1.0), details("é", 0.0)]
    assert token_lines(tokens, 80).splitlines() == [
        '  -0.6931 ████     "ab"  "a" 50%  "b" 25%',
        '   0.0000 ████████ " "   "c" 100%',
        '     -inf          "é"',
    ]
    assert token_lines([], 80) == ""


@pytest.mark.parametrize(("columns", "shown"), [(41, 2), (40, 1), (32, 1), (31, 0), (1, 0)])
def test_alternatives_end_before_the_terminal_does(columns, shown):
    line = token_lines([details("ab", 0.5, a=0.5, b=0.25)], columns)
    assert line.count("%") == shown
    assert line.startswith("  -0.6931")


@pytest.mark.parametrize(
    ("probability", "bar"), [(1 / 16, "▌"), (3 / 16, "█▌"), (1 / 64, "▏"), (1e-9, ""), (0.999, "████████")]
)
def test_the_bar_is_in_proportion(probability, bar):
    assert token_lines([details("a", probability)], 80).split('"')[0].split()[1:] == [bar] * bool(bar)


def test_a_long_token_moves_only_its_own_line():
    first, second = token_lines([details("a" * 40, 1.0, b=1.0), details("c", 1.0, d=1.0)], 80).splitlines()
    assert first.endswith('"' + "a" * 40 + '"  "b" 100%')
    assert second.index('"d"') == 19 + 24 + 2


def test_quoted():
    assert quoted(b"\n\x1b ") == '"\\n\\x1b "'
    assert quoted("é".encode()[:1]) == '"\\xc3"'
    assert quoted(b"") == '""'
