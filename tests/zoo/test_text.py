"""Tokenizers against plain Python: where they cut, what they count, and that nothing gets lost."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.text import TOKENIZERS, Characters, Subwords, Tokenizer, Whitespace, Words

TEXTS = [
    "",
    " ",
    "\n",
    "  two  spaces, and three:   \n\n\ttab\r\nend of line\r",
    "don't stop, o'clock 'quoted' it’s _name_ x2 3.14 a--b ... (yes)!",  # noqa: RUF001
    "naïve cafe\u0301 ångström ﬁne \u00a0no-break",
    "שלום עולם مرحبا بالعالم हिन्दी",
    "日本語 のテキスト。",
    "😀 👩\u200d👩\u200d👧 🇩🇪\ufe0f",
    "an <unk> word, <unk>\n <unk><unk>",
    "\u2581 \u2581\u2581 \uffff1 \uffff2 \ufffe \ufffd <0x41> </s> \x00 \x01 \u2028",
    " = Title = \n \n a line of words . \n",
]


def scalars(texts: list[str]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(tf.constant(texts, tf.string))


def learned(name: str) -> Tokenizer:
    return TOKENIZERS[name].learn(scalars(TEXTS), 420 if name == "subwords" else 0)


def random_texts(count: int, seed: int = 7) -> list[str]:
    """Strings of what is likely to be cut in the wrong place, and of anything else."""
    draw = random.Random(seed)
    likely = [*"  \n\t\r'’_-.<>ab1é", "e\u0301", "<unk>", " <unk>", "\u2581", "\uffff", "א", "語", "😀"]  # noqa: RUF001
    # Characters whose category no version of Unicode has changed, whoever's tables are used.
    old = unicodedata.ucd_3_2_0.category
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    anything = [one for one in everything if "Cn" != old(one) == unicodedata.category(one)]
    alphabet = likely * 20 + draw.sample(anything, 60)
    return ["".join(draw.choices(alphabet, k=draw.randrange(40))) for _ in range(count)]


def is_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def cut_words(text: str) -> list[str]:
    """The definition of Words, one character after the other."""
    tokens, place = [], 0
    while place < len(text):
        end = place + 1 if text[place] == " " else place
        if text.startswith("<unk>", end):
            end += len("<unk>")
        elif end < len(text) and is_word(text[end]):
            while end < len(text) and (
                is_word(text[end]) or (text[end] in "'’" and is_word(text[end + 1 : end + 2] or " "))  # noqa: RUF001
            ):
                end += 1
        elif end < len(text) and text[end] not in " \t\n\f\r":
            end += 1
        end = max(end, place + 1)
        tokens.append(text[place:end])
        place = end
    return tokens


def cut_whitespace(text: str) -> list[str]:
    """The definition of Whitespace, one character after the other."""
    tokens, place = [], 0
    while place < len(text):
        end = place + 1 if text[place] == " " else place
        if end < len(text) and text[end] == "\n":
            end += 1
        else:
            while end < len(text) and text[end] not in " \t\n\f\r":
                end += 1
        end = max(end, place + 1)
        tokens.append(text[place:end])
        place = end
    return tokens


CUTS = {"characters": list, "words": cut_words, "whitespace": cut_whitespace}


def pieces_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[str]]:
    pieces = tokenizer.piece(tokenizer.tokenize(tf.constant(texts)))
    return [[piece.decode() for piece in row] for row in pieces.to_list()]


class TestCuts:
    @pytest.mark.parametrize("name", CUTS)
    def test_are_where_plain_python_cuts(self, name):
        texts = TEXTS + random_texts(300)
        tokenizer = TOKENIZERS[name].learn(scalars(texts))
        assert pieces_of(tokenizer, texts) == [CUTS[name](text) for text in texts]

    def test_of_words_by_example(self):
        text = "I don't know: 'a  b'…\n"
        assert pieces_of(Words.learn(scalars([text])), [text]) == [
            ["I", " don't", " know", ":", " '", "a", " ", " b", "'", "…", "\n"]
        ]

    def test_of_subwords_cover_words_and_newlines_separately(self):
        tokenizer = Subwords.learn(scalars(["the cat\nthe hat\n\nthe bat\n"] * 50), 290)
        rows = pieces_of(tokenizer, ["the cat\n\nthe hat\n"])
        assert rows[0].count("\n") == 3
        assert not any("\n" in piece and piece != "\n" for piece in rows[0])
        assert len(rows[0]) < len("the cat\n\nthe hat\n")  # it did learn something

    def test_of_whitespace_count_as_the_literature_does(self):
        lines = [" = A Title = ", " ", " the cat <unk> the mat . ", " the end "]
        text = "".join(line + "\n" for line in lines)
        tokenizer = Whitespace.learn(scalars([text]))
        words = [word for line in lines for word in [*line.split(), "<eos>"]]
        assert tokenizer.tokenize(tf.constant([text])).values.shape[0] == len(words)
        assert tokenizer.vocabulary_size == len(set(words))


class TestExactness:
    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_known_text_comes_back_byte_for_byte(self, name):
        tokenizer = learned(name)
        back = tokenizer.detokenize(tokenizer.tokenize(tf.constant(TEXTS)))
        assert back.numpy().tolist() == [text.encode() for text in TEXTS]

    def test_subwords_give_back_any_unicode_text(self):
        tokenizer = Subwords.learn(scalars(["plain ascii text, and not much of it"]), 300)
        texts = TEXTS + random_texts(300, seed=11)
        ids = tokenizer.tokenize(tf.constant(texts))
        assert tokenizer.detokenize(ids).numpy().tolist() == [text.encode() for text in texts]
        assert not np.any(ids.values == tokenizer.unknown_id)

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("characters", "aéb", "a\ufffdb"),
            ("words", "a new b", "a <unk> b"),
            ("whitespace", "a c\n", "a <unk>\n"),
        ],
    )
    def test_unknown_tokens_are_id_0_and_read_as_its_piece(self, name, text, expected):
        tokenizer = TOKENIZERS[name].learn(scalars(["a b b\n"]))
        ids = tokenizer.tokenize(tf.constant([text]))
        assert np.count_nonzero(ids.values == 0) == 1
        assert tokenizer.detokenize(ids).numpy()[0].decode() == expected

    @pytest.mark.parametrize("name", ["words", "whitespace"])
    def test_a_word_known_with_a_space_is_known_without(self, name):
        tokenizer = TOKENIZERS[name].learn(scalars(["start of both both"]))
        ids = tokenizer.tokenize(tf.constant(["of start", "both"]))
        assert [[tokenizer.pieces[index] for index in row] for row in ids.to_list()] == [
            [b" of", b"start"],
            [b" both"],
        ]

    @pytest.mark.parametrize("name", ["words", "whitespace"])
    def test_the_literal_unknown_word_is_id_0(self, name):
        tokenizer = TOKENIZERS[name].learn(scalars(["an <unk> word"]))
        assert tokenizer.tokenize(tf.constant(["an <unk> word"])).to_list()[0][1] == 0
        assert tokenizer.pieces.count(b" <unk>") == 1

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_bytes_that_are_not_utf8_do_no_harm(self, name):
        tokenizer = learned(name)
        texts = [b"a \xe9\xff b", b"\xff", b"end \xe2\x82"]
        assert len(tokenizer.detokenize(tokenizer.tokenize(tf.constant(texts))).numpy()) == 3


class TestLearning:
    @pytest.mark.parametrize("name", CUTS)
    def test_ids_are_sorted_by_frequency_then_bytes(self, name):
        texts = TEXTS + random_texts(200)
        tokenizer = TOKENIZERS[name].learn(scalars(texts))
        counts = Counter(token.encode() for text in texts for token in CUTS[name](text))
        unknown, boundary = tokenizer.pieces[:2]
        del counts[unknown], counts[boundary]
        assert list(tokenizer.pieces[2:]) == sorted(counts, key=lambda piece: (-counts[piece], piece))

    @pytest.mark.parametrize("name", CUTS)
    def test_a_smaller_vocabulary_keeps_the_most_frequent(self, name):
        all_of_it = TOKENIZERS[name].learn(scalars(TEXTS))
        assert TOKENIZERS[name].learn(scalars(TEXTS), 7).pieces == all_of_it.pieces[:7]

    def test_subwords_keep_to_the_size_asked_for(self):
        corpus = [" ".join(f"{stem}{ending}" for stem in ("talk", "walk", "look", "cook", "bake", "like"))
                  for ending in ("", "s", "ed", "ing", "er", "ers")]  # fmt: skip
        assert Subwords.learn(scalars(corpus), 285).vocabulary_size == 285

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_batches_and_scalars_give_the_same(self, name):
        size = 420 if name == "subwords" else 0
        batches = scalars(TEXTS).batch(5)
        assert TOKENIZERS[name].learn(batches, size).assets() == learned(name).assets()

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_one_word_is_enough(self, name):
        tokenizer = TOKENIZERS[name].learn(scalars(["word"]))
        assert tokenizer.detokenize(tokenizer.tokenize(tf.constant(["word\nword"]))) == b"word\nword"

    @pytest.mark.parametrize("name", TOKENIZERS)
    @pytest.mark.parametrize("texts", [[], ["", ""]])
    def test_an_empty_corpus_is_an_error(self, name, texts):
        with pytest.raises(ValueError, match=r"^there is no text to learn a vocabulary from$"):
            TOKENIZERS[name].learn(scalars(texts))

    @pytest.mark.parametrize(("name", "size"), [("words", 1), ("characters", -3), ("subwords", 20)])
    def test_a_size_without_room_is_an_error_in_one_line(self, name, size):
        with pytest.raises(ValueError, match=rf"^vocabulary_size={size}\b.*at least \d+.*$"):
            TOKENIZERS[name].learn(scalars(["some text"]), size)

    def test_subwords_sample_lines_of_any_length(self):
        tokenizer = Subwords.learn(scalars(["abcd efgh " * 100_000]), 280)
        assert b" efgh" in tokenizer.pieces


class TestBoundary:
    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_is_the_newline_also_where_the_corpus_has_none(self, name):
        tokenizer = TOKENIZERS[name].learn(scalars(["no line ends here"]))
        assert tokenizer.pieces[tokenizer.boundary_id] == b"\n"
        assert tokenizer.tokenize(tf.constant(["\n"])).to_list() == [[tokenizer.boundary_id]]

    def test_is_the_newline_with_a_space_where_that_is_the_usual_one(self):
        tokenizer = Whitespace.learn(scalars([" a b \n c \n d\n"]))
        assert tokenizer.pieces[tokenizer.boundary_id] == b" \n"
        assert b"\n" in tokenizer.pieces


class TestShapes:
    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_ids_are_ragged_int32_and_dense_ids_are_read_too(self, name):
        tokenizer = learned(name)
        ids = tokenizer.tokenize(tf.constant(["an <unk>", " a line of words"]))
        assert isinstance(ids, tf.RaggedTensor)
        assert ids.dtype == tf.int32
        dense = tf.stack([ids[1], ids[1]])
        assert tokenizer.detokenize(dense).numpy().tolist() == [b" a line of words"] * 2
        assert tokenizer.piece(dense[0, 0]).shape == ()
        assert tokenizer.piece(dense[:, :, None]).shape == (*dense.shape, 1)

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_an_empty_batch_gives_an_empty_batch(self, name):
        tokenizer = learned(name)
        ids = tf.function(tokenizer.tokenize)(tf.constant([], tf.string))
        assert ids.to_list() == []
        assert tokenizer.detokenize(ids).shape == (0,)
        assert tokenizer.detokenize(tf.zeros([2, 0], tf.int32)).numpy().tolist() == [b"", b""]


class TestAssets:
    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_make_the_same_tokenizer_again(self, name):
        tokenizer = learned(name)
        again = TOKENIZERS[name].from_assets(tokenizer.assets())
        assert again.pieces == tokenizer.pieces
        ids = again.tokenize(tf.constant(TEXTS))
        assert ids.to_list() == tokenizer.tokenize(tf.constant(TEXTS)).to_list()

    def test_hold_any_bytes(self):
        pieces = (b" <unk>", b"\n", b"\xff\xfe", "\u2028 é".encode(), b'"\\\x00', b"\xed\xa0\x80")
        assert Words.from_assets(Words(pieces).assets()).pieces == pieces


class Echo(keras.layers.Layer):
    """A layer with a tokenizer, as a model has it: text to ids and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.built = True

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def echo(self, text):
        ids = self.tokenizer.tokenize(text)
        return {"text": self.tokenizer.detokenize(ids), "length": ids.row_lengths()}


class TestInGraph:
    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_an_input_pipeline_can_map_it(self, name):
        tokenizer = learned(name)
        batches = scalars(TEXTS).batch(5).map(tokenizer.tokenize, num_parallel_calls=2)
        rows = [row for batch in batches for row in batch.to_list()]
        assert rows == tokenizer.tokenize(tf.constant(TEXTS)).to_list()

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_an_exported_layer_runs_in_a_graph_session(self, name, tmp_path):
        layer = Echo(learned(name))
        archive = keras.export.ExportArchive()
        archive.track(layer)
        archive.add_endpoint("echo", layer.echo)
        archive.write_out(str(tmp_path), verbose=False)
        lengths = layer.tokenizer.tokenize(tf.constant(TEXTS)).row_lengths().numpy().tolist()
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            model = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
            signature = model.signature_def["echo"]
            outputs = {key: tensor.name for key, tensor in signature.outputs.items()}
            result = session.run(outputs, {signature.inputs["text"].name: TEXTS})
            nothing = session.run(outputs, {signature.inputs["text"].name: np.array([], object)})
        assert result["text"].tolist() == [text.encode() for text in TEXTS]
        assert result["length"].tolist() == lengths
        assert nothing["text"].shape == (0,)

    def test_it_can_be_made_while_a_graph_is_traced(self):
        made = []

        @tf.function
        def trace(texts):
            if not made:
                made.append(Characters.from_assets({"vocabulary.json": '["\ufffd", "\\n", "a"]'.encode()}))
            return made[0].tokenize(texts)

        assert trace(tf.constant(["ab\na"])).to_list() == [[2, 0, 1, 2]]
        assert made[0].tokenize(tf.constant(["a"])).to_list() == [[2]]
