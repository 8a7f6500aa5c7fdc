"""Raw text to tokens that know where in the text they stand, inside the TensorFlow graph.

For models that say something about each token; those of zoo.text, by contrast, cover a text without a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

SEPARATOR = "\x1f"  # ASCII's unit separator: between the parts of a field that holds several

SPACE = r"[\pZ\t\n\f\r\v]"


class Tokens(NamedTuple):
    """Tokens of texts, [batch, (tokens)] each."""

    words: tf.RaggedTensor  # string
    starts: tf.RaggedTensor  # int32: where in the text, in bytes
    ends: tf.RaggedTensor


def at_spaces(texts: tf.Tensor) -> Tokens:
    """Text that is tokenized already: what is between spaces."""
    return _matches(texts, rf"{SPACE}+|[^\pZ\t\n\f\r\v]+")


def into_words(texts: tf.Tensor) -> Tokens:
    """Words, numbers and punctuation marks, much as the Penn Treebank and the English Universal
    Dependencies have them.

    Apart are a word's clitics ("do", "n't"; "it", "'s") and the parts of a hyphenated word; whole are
    numbers ("1,000.5"), abbreviations ("U.S."), addresses of the Web and of mail, names of accounts
    ("@someone") and runs of the same mark ("...").
    """
    # RE2 cannot look ahead, so the n of "n't" is cut off first. 0xFF does not occur in UTF-8.
    return _matches(tf.strings.regex_replace(texts, _NEGATION, b"\\1\xff\\2"), _WORDS)


def into_characters(texts: tf.Tensor) -> Tokens:
    """Unicode code points, spaces among them."""
    characters, starts = tf.strings.unicode_split_with_offsets(texts, "UTF-8")
    starts = tf.cast(starts, tf.int32)
    lengths = tf.strings.length(characters.flat_values)
    return Tokens(characters, starts, starts.with_flat_values(starts.flat_values + lengths))


_NEGATION = r"(?i)(\pL)(n['’]t\b)"  # noqa: RUF001 (the typographic apostrophe is meant)
_WORDS = "|".join(
    [
        rf"{SPACE}+",
        r"(?i:https?://|www\.)[^\pZ\t\n\f\r\v]+",
        r"[\pL\pN._%+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+",
        r"[@#][\pL\pM\pN_]+",
        r"(?i:n['’]t)\b",  # noqa: RUF001
        r"['’](?i:s|m|d|ll|re|ve)\b",  # noqa: RUF001
        r"\pN+(?:[.,:]\pN+)*",
        r"(?:\pL\.){2,}",
        r"[\pL\pM\pN_]+",
        r"\.+|-+|!+|\?+",
        r"[^\pZ\t\n\f\r\v]",
    ]
)


def _matches(texts: tf.Tensor, pattern: str) -> Tokens:
    """The matches of a pattern that covers any text, but for those of white space."""
    marked = tf.strings.regex_replace(texts, pattern, b"\\0\xff")
    slices = tf.compat.v1.string_split(marked, b"\xff", skip_empty=True, result_type="RaggedTensor")
    ends = tf.cumsum(tf.strings.length(slices.values))
    before = tf.gather(tf.pad(ends, [[1, 0]]), slices.row_starts())  # of the texts before this one
    ends -= tf.gather(before, slices.value_rowids())
    starts = ends - tf.strings.length(slices.values)
    kept = tf.where(~tf.strings.regex_full_match(slices.values, rf"{SPACE}+"))[:, 0]
    rows = tf.gather(slices.value_rowids(), kept)
    return Tokens(
        *(
            tf.RaggedTensor.from_value_rowids(tf.gather(part, kept), rows, slices.nrows(), validate=False)
            for part in (slices.values, starts, ends)
        )
    )


CUTS: dict[str, Callable[[tf.Tensor], Tokens]] = {
    "characters": into_characters,
    "whitespace": at_spaces,
    "words": into_words,
}


def parts(joined: tf.Tensor) -> tf.RaggedTensor:
    """The parts of strings [batch] that SEPARATOR joined: [batch, (parts)]."""
    return tf.compat.v1.string_split(joined, SEPARATOR, skip_empty=False, result_type="RaggedTensor")
