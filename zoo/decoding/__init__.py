"""Choosing the next token, and repeating it: decoding inside the graph.

Every row has its own settings and its own stream of random numbers, so that what a row becomes does
not depend on the rows beside it.
"""

from zoo.decoding.contrastive import Context, contrastive_search
from zoo.decoding.filters import FILTERS
from zoo.decoding.generation import Generated, Limits, generate
from zoo.decoding.random_numbers import philox, uniforms
from zoo.decoding.rules import NONE, BadWords, RepetitionPenalty, last_tokens
from zoo.decoding.sampling import SETTINGS, Sampling, draw
from zoo.decoding.settings import Setting, checked, require, rows
from zoo.decoding.stop_strings import NOWHERE, StopStrings

__all__ = [
    "FILTERS",
    "NONE",
    "NOWHERE",
    "SETTINGS",
    "BadWords",
    "Context",
    "Generated",
    "Limits",
    "RepetitionPenalty",
    "Sampling",
    "Setting",
    "StopStrings",
    "checked",
    "contrastive_search",
    "draw",
    "generate",
    "last_tokens",
    "philox",
    "require",
    "rows",
    "uniforms",
]
