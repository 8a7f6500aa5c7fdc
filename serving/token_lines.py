"""Tokens, each on a line with its probability and what else might have been there, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serving.alignment import visible, width
from serving.client_results import TokenDetails

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_COLUMNS = 8  # of a token that is certain
_MOST_TOKEN_COLUMNS = 24  # a longer token moves what follows it


def token_lines(tokens: Sequence[TokenDetails], columns: int) -> str:
    """A line for each token: log probability in nats, probability as a bar, token, and as many of the
    alternatives with their probabilities as the columns of the terminal hold."""
    column = min(max((width(quoted(token.text)) for token in tokens), default=0), _MOST_TOKEN_COLUMNS)
    return "\n".join(_line(token, column, columns) for token in tokens)


def quoted(text: bytes) -> str:
    """With all that a terminal would not show, the ends' spaces among them."""
    return f'"{visible(text.decode("utf-8", "backslashreplace"))}"'


def _line(token: TokenDetails, column: int, columns: int) -> str:
    text = quoted(token.text)
    line = f"{token.log_prob:9.4f} {_bar(math.exp(token.log_prob))} {text}{' ' * (column - width(text))}"
    for alternative in token.alternatives:
        entry = f"  {quoted(alternative.text)} {math.exp(alternative.log_prob):.0%}"
        if width(line + entry) > columns:
            break
        line += entry
    return line.rstrip()


def _bar(share: float) -> str:
    full, eighths = divmod(round(share * _BAR_COLUMNS * 8), 8)
    return (_EIGHTHS[-1] * full + _EIGHTHS[eighths]).ljust(_BAR_COLUMNS)[:_BAR_COLUMNS]
