"""Text to ids and back, inside the TensorFlow graph.

A token is the exact slice of text it covers: every tokenizer has a table `pieces`, id to the bytes
that the id stands for, and turning ids back into text is looking the pieces up and joining them. So
`detokenize(tokenize(text)) == text`, byte for byte, for any text made of known tokens, and the number
of characters or bytes behind a token is known, which makes perplexities of different tokenizers
comparable. Tokenizers differ in where they cut:

    characters   between Unicode code points
    words        raw text into words, punctuation marks and spaces
    whitespace   text that is tokenized already (the Penn Treebank, WikiText) at its spaces
    subwords     pieces that sentencepiece learned from the corpus; no text is unknown to them

Texts are UTF-8. They may be mapped in an input pipeline and exported in a SavedModel alike.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import sentencepiece
import tensorflow as tf
import tensorflow_text

from zoo.vocabulary import count

NEWLINE = b"\n"


class Tokenizer(tf.Module):
    """What all tokenizers share: the table of pieces, and everything that follows from it.

    Id 0 is the unknown token and id 1 the end of a line. The others are sorted by falling frequency (the
    bytes decide among equals), as an adaptive softmax needs them; sentencepiece sorts in its own way.
    """

    name: ClassVar[str]  # its key in TOKENIZERS
    unknown_id = 0
    boundary_id = 1  # the newline: what precedes a text, and what ends each line

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        super().__init__()
        self.pieces = pieces
        with tf.init_scope():  # a tensor of its own, also when a layer makes us while its graph is traced
            self._piece_table = tf.constant(list(pieces), tf.string)

    @property
    def vocabulary_size(self) -> int:
        return len(self.pieces)

    @property
    def characters(self) -> np.ndarray:
        """The number of characters that each id stands for: of UTF-8, all bytes but continuation bytes."""
        return np.array([sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.pieces], np.int32)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Ids of strings [batch]: int32 [batch, (tokens)]."""
        raise NotImplementedError

    def detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Texts, string [batch], of ids int32 [batch, tokens], ragged or dense."""
        return tf.strings.reduce_join(self.piece(ids), axis=-1)

    def piece(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
        """The bytes that each id stands for, in the shape of `ids`.

        A piece may be part of a character (subwords spell rare characters byte by byte).
        """
        return tf.gather(self._piece_table, ids)

    def assets(self) -> dict[str, bytes]:
        """The files, by name, from which `from_assets` makes the same tokenizer again."""
        # Bytes that are not UTF-8 go through as they are, as surrogates in between.
        words = [piece.decode("utf-8", "surrogateescape") for piece in self.pieces]
        listing = json.dumps(words, ensure_ascii=False, indent=0)
        return {"vocabulary.json": listing.encode("utf-8", "surrogateescape")}

    @classmethod
    def from_assets(cls, assets: dict[str, bytes]) -> Tokenizer:
        words = json.loads(assets["vocabulary.json"].decode("utf-8", "surrogateescape"))
        return cls(tuple(word.encode("utf-8", "surrogateescape") for word in words))

    @classmethod
    def learn(cls, texts: tf.data.Dataset, vocabulary_size: int = 0) -> Tokenizer:
        """A tokenizer with the corpus' most frequent tokens.

        Args:
            texts: string scalars, or batches of them.
            vocabulary_size: how many ids at most, the two special ones included; 0 for all that occur.

        Raises:
            ValueError: the corpus is empty, or the size leaves no room for the special tokens.
        """
        counts = cls._count(batched(texts))
        if not counts:
            raise ValueError("there is no text to learn a vocabulary from")
        if vocabulary_size and vocabulary_size < 2:
            raise ValueError(
                f"vocabulary_size={vocabulary_size}: expected 0 (all tokens) or at least 2 "
                "(the unknown token and the end of a line)"
            )
        newline = max((NEWLINE, b" \n"), key=lambda piece: counts[piece])
        special = (cls._unknown, newline)
        ranked = sorted(counts.keys() - set(special), key=lambda piece: (-counts[piece], piece))
        return cls((*special, *ranked)[: vocabulary_size or None])

    _unknown: ClassVar[bytes]  # the piece of id 0

    @classmethod
    def _count(cls, batches: tf.data.Dataset) -> Counter[bytes]:
        """How often each token occurs."""
        counts = count(batches.map(lambda texts: cls._cut(texts).flat_values))
        return Counter({cls._bytes(token): number for token, number in counts.items()})

    @classmethod
    def _cut(cls, texts: tf.Tensor) -> tf.RaggedTensor:
        """The tokens themselves, [batch, (tokens)], in whatever type finds their ids fastest."""
        raise NotImplementedError

    @staticmethod
    def _bytes(token: Any) -> bytes:
        """The piece of a token that `_cut` made."""
        return token


class Characters(Tokenizer):
    """One token a Unicode code point. Unknown ones read as U+FFFD, the replacement character."""

    name = "characters"
    _unknown = "\N{REPLACEMENT CHARACTER}".encode()

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        super().__init__(pieces)
        codes = np.array([ord(piece.decode()) for piece in pieces], np.int32)
        ids = np.argsort(codes).astype(np.int32)
        with tf.init_scope():
            self._codes = tf.constant(codes[ids])  # ascending, to be searched
            self._ids = tf.constant(ids)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        codes = self._cut(tf.reshape(texts, [-1]))
        return codes.with_values(self._identify(codes.values))

    def _identify(self, codes: tf.Tensor) -> tf.Tensor:
        # Binary search: as fast as decoding, and unlike a table over all of Unicode it is small.
        place = tf.minimum(tf.searchsorted(self._codes, codes), self.vocabulary_size - 1)
        known = tf.equal(tf.gather(self._codes, place), codes)
        return tf.where(known, tf.gather(self._ids, place), self.unknown_id)

    @classmethod
    def _cut(cls, texts: tf.Tensor) -> tf.RaggedTensor:
        return tf.strings.unicode_decode(texts, "UTF-8")

    @staticmethod
    def _bytes(token: int) -> bytes:
        return chr(token).encode()


class _Pattern(Tokenizer):
    """Tokens are the matches of a regular expression (RE2) whose matches cover any text.

    A token that is known only with the space before it, or only without, is taken for that one: a prompt
    that begins in the middle of a sentence need not begin with an unknown word.
    """

    pattern: ClassVar[str]
    _unknown = b" <unk>"

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        super().__init__(pieces)
        ids = {piece: index for index, piece in enumerate(pieces)}
        for piece, index in list(ids.items()):
            ids.setdefault(piece.removeprefix(b" ") if piece.startswith(b" ") else b" " + piece, index)
        with tf.init_scope():
            rows = tf.lookup.KeyValueTensorInitializer(list(ids), list(ids.values()), tf.string, tf.int32)
            self._table = tf.lookup.StaticHashTable(rows, default_value=self.unknown_id)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        slices = self._cut(tf.reshape(texts, [-1]))
        return slices.with_values(self._table.lookup(slices.values))

    @classmethod
    def _cut(cls, texts: tf.Tensor) -> tf.RaggedTensor:
        # Marking the end of each match and splitting at the marks runs on RE2's automaton alone, which
        # made it five times as fast as tensorflow_text.regex_split. 0xFF does not occur in UTF-8.
        marked = tf.strings.regex_replace(texts, cls.pattern, b"\\0\xff")
        return tf.compat.v1.string_split(marked, b"\xff", skip_empty=True, result_type="RaggedTensor")


class Words(_Pattern):
    """Raw text: a word or a punctuation mark, each with one space before it if there is one.

    Any other white space is a token a character. A word is a run of letters, combining marks, digits and
    underscores, with apostrophes inside. Unknown tokens read as " <unk>".
    """

    name = "words"
    pattern = (
        r" ?<unk>"
        r"| ?[\pL\pM\pN_]+(?:['’][\pL\pM\pN_]+)*"  # noqa: RUF001 (the typographic apostrophe is meant)
        r"| ?[^\pL\pM\pN_\t\n\f\r ]"
        r"|[\t\n\f\r ]"
    )


class Whitespace(_Pattern):
    """Text that is tokenized already: what is between spaces, with one space before it if there is one.

    The end of a line counts as a token, together with a space before it, so that WikiText's and the Penn
    Treebank's vocabularies and word counts are the literature's.
    """

    name = "whitespace"
    pattern = r" ?[^\t\n\f\r ]+| ?\n|[\t\f\r ]"


class Subwords(Tokenizer):
    """Pieces of words by a unigram language model (Kudo 2018, arXiv:1804.10959), with sentencepiece.

    Characters too rare for a piece of their own are spelled by their bytes, so no text is unknown. The
    order of ids is sentencepiece's: special tokens, 256 bytes, then pieces by falling probability.
    """

    name = "subwords"
    default_size = 8192

    # sentencepiece writes a space as U+2581 and cannot tell the two apart, so that a U+2581 of the text's
    # own travels as a symbol made of the noncharacter U+FFFF, and U+FFFF itself as another.
    _escapes: ClassVar[dict[str, str]] = {"\uffff": "\uffff2", "\u2581": "\uffff1"}

    def __init__(self, model: bytes) -> None:
        self._model = model
        super().__init__(_sentencepiece_bytes(model, self._escapes))
        with tf.init_scope():
            self._processor = tensorflow_text.SentencepieceTokenizer(model, out_type=tf.int32)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        texts = tf.reshape(texts, [-1])
        for character, symbol in self._escapes.items():
            texts = tf.strings.regex_replace(texts, character, symbol)
        return self._processor.tokenize(texts)

    def assets(self) -> dict[str, bytes]:
        return {"sentencepiece.model": self._model}

    @classmethod
    def from_assets(cls, assets: dict[str, bytes]) -> Subwords:
        return cls(assets["sentencepiece.model"])

    @classmethod
    def learn(cls, texts: tf.data.Dataset, vocabulary_size: int = 0) -> Subwords:
        """Train sentencepiece on a sample of the lines.

        Args:
            texts: string scalars, or batches of them.
            vocabulary_size: how many ids, 8192 for 0; fewer where the corpus does not hold as many pieces.

        Raises:
            ValueError: the corpus is empty, or the size does not hold the bytes and the common characters.
        """
        model = io.BytesIO()
        sentencepiece.set_random_generator_seed(1)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(batched(texts)),
                model_writer=model,
                vocab_size=vocabulary_size or cls.default_size,
                user_defined_symbols=["\n", *cls._escapes.values()],
                **_SENTENCEPIECE,
            )
        except RuntimeError as error:
            raise ValueError(_explain(str(error), vocabulary_size)) from error
        return cls(model.getvalue())


_SENTENCEPIECE: dict[str, Any] = {
    "hard_vocab_limit": False,  # a small corpus gives what it has
    "byte_fallback": True,
    "bos_id": -1,
    "eos_id": -1,
    # The text is cut, never changed.
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,  # indentation
    # A random sample: at most 50 million characters, which bounds memory and time.
    "input_sentence_size": 100_000,
    "shuffle_input_sentence": True,
    "num_threads": 4,  # the order of summation, and so the result, depends on it
    "minloglevel": 3,
}
_SENTENCE = re.compile(r"[^\n]{1,500}(?= |\n|\Z)|[^\n]{500}")


def batched(texts: tf.data.Dataset) -> tf.data.Dataset:
    """Strings [n], of string scalars or of batches already."""
    return texts.batch(64) if texts.element_spec.shape.rank == 0 else texts


def _sentences(batches: tf.data.Dataset) -> Iterator[str]:
    """The lines; long ones in pieces of at most 500 characters, cut before a space where there is one.

    sentencepiece leaves out lines above 4,192 bytes altogether.
    """
    for texts in batches.as_numpy_iterator():
        for text in texts.tolist():
            yield from _SENTENCE.findall(text.decode("utf-8", "replace"))


def _explain(complaint: str, vocabulary_size: int) -> str:
    """What sentencepiece's message means to the user, in one line."""
    if "sentences_.empty()" in complaint or "all_chars_count" in complaint:
        return "there is no text to learn a vocabulary from"
    if sizes := re.search(r"smaller than required_chars. (\d+) vs (\d+)", complaint):
        return (
            f"vocabulary_size={sizes[1]} is too small for subwords: it takes at least {sizes[2]} to hold the "
            "256 bytes and the characters that are common in this corpus"
        )
    return f"vocabulary_size={vocabulary_size}: no subwords could be learned: {' '.join(complaint.split())}"


def _sentencepiece_bytes(model: bytes, escapes: dict[str, str]) -> tuple[bytes, ...]:
    """The text that each of a sentencepiece model's ids stands for."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    meanings = {symbol: character for character, symbol in escapes.items()}
    meanings[processor.id_to_piece(Tokenizer.unknown_id)] = "\N{REPLACEMENT CHARACTER}"

    def meaning(index: int) -> bytes:
        piece = processor.id_to_piece(index)
        if processor.is_byte(index):  # such as <0xE2>
            return bytes([int(piece[1:-1], 16)])
        return (meanings.get(piece) or piece.replace("\u2581", " ")).encode()

    return tuple(meaning(index) for index in range(processor.get_piece_size()))


TOKENIZERS: dict[str, type[Tokenizer]] = {
    tokenizer.name: tokenizer for tokenizer in (Characters, Words, Whitespace, Subwords)
}
