"""ARPA files: there and back, exchanged with KenLM, and damaged ones."""

from __future__ import annotations

import io

import numpy as np
import pytest

from zoo import ngram
from zoo.ngram import arpa

WORDS = [b"<unk>", b"</s>", b"a", b"rose", b"is", b"r\xc3\xb6d"]
LINES = ["a rose is a rose", "is a rose röd", "", "a rose is a", "röd", "rose a rose is röd"]


def ids_of(lines: list[str]) -> np.ndarray:
    words = [word for line in lines for word in [*line.encode().split(), b"</s>"]]
    return np.array([1, *(WORDS.index(word) if word in WORDS else 0 for word in words)])


def model_of(order=3, across=False, **options) -> ngram.BackoffModel:
    counts = ngram.count([ids_of(LINES)], order, len(WORDS), None if across else 1)
    return ngram.estimate(counts, fallback=ngram.FALLBACK, **options)


def written(model: ngram.BackoffModel, words=WORDS, across=False) -> bytes:
    file = io.BytesIO()
    arpa.write(file, model, words, across)
    return file.getvalue()


def read(content: bytes) -> tuple[ngram.BackoffModel, list[bytes]]:
    return arpa.read(io.BytesIO(content))


def assert_same(model: ngram.BackoffModel, other: ngram.BackoffModel) -> None:
    for name in ("keys", "log_prob", "backoff"):
        assert len(getattr(model, name)) == len(getattr(other, name))
        for values, others in zip(getattr(model, name), getattr(other, name), strict=True):
            np.testing.assert_array_equal(values, others)


@pytest.mark.parametrize("across", [False, True], ids=["sentences", "stream"])
@pytest.mark.parametrize("order", [1, 2, 3, 5, 12])
def test_there_and_back(order, across):
    model = model_of(order, across, prune=(0, 0, 1)[:order])
    again, words = read(written(model, across=across))
    assert words == WORDS
    assert_same(model, again)


def test_a_closed_vocabulary_there_and_back():
    model = model_of(open_vocabulary=False)
    again, _ = read(written(model))
    assert again.log_prob[0][0] == -np.inf
    assert_same(model, again)


def test_what_is_written():
    content = written(model_of(2)).decode().split("\n")
    assert content[:6] == ["\\data\\", "ngram 1=7", "ngram 2=14", "", "\\1-grams:", content[5]]
    unigrams, bigrams = content[5:12], content[14:28]
    assert [line.split("\t")[1] for line in unigrams] == ["<s>", "<unk>", "</s>", "a", "rose", "is", "röd"]
    beginning, _, end = (list(map(float, line.split("\t")[::2])) for line in unigrams[:3])
    assert beginning[0] == -99
    assert beginning[1] < 0 == end[1]
    assert {"<s> </s>", "<s> a", "röd </s>", "a rose"} < {line.split("\t")[1] for line in bigrams}
    assert {len(line.split("\t")) for line in bigrams} == {2}
    assert content[28:] == ["", "\\end\\", ""]


# With KenLM


@pytest.fixture
def open_in_kenlm(tmp_path):
    kenlm = pytest.importorskip("kenlm")

    def open_file(content: bytes):
        path = tmp_path / "model.arpa"
        path.write_bytes(content)
        return kenlm.Model(str(path))

    return open_file


SENTENCES = [*LINES, "a tulip is a rose", "is is is", "rose röd röd a a rose is a rose", "tulip"]


@pytest.mark.parametrize("prune", [(), (0, 0, 1)], ids=str)
@pytest.mark.parametrize("order", [2, 3, 6])
def test_kenlm_gives_the_same_scores(open_in_kenlm, order, prune):
    model = model_of(order, prune=prune[:order])
    theirs = open_in_kenlm(written(model))
    assert theirs.order == model.order
    for sentence in SENTENCES:
        scores = [score for score, _, _ in theirs.full_scores(sentence)]
        np.testing.assert_allclose(model.log_probs(ids_of([sentence])) / np.log(10), scores, rtol=1e-5)


def test_kenlm_gives_the_same_scores_of_a_stream(open_in_kenlm):
    model = model_of(4, across=True)
    theirs = open_in_kenlm(written(model, across=True))
    text = " </s> ".join(["", *LINES, ""]).strip()
    score = theirs.score(text, bos=False, eos=False)
    first = model.log_prob[0][1]  # what KenLM counts, and log_probs takes as given
    assert (model.log_probs(ids_of(LINES)).sum() + first) / np.log(10) == pytest.approx(score, rel=1e-5)


# As others write it

SRILM = b"""
\\data\\
ngram 1=5
ngram 2=4
ngram 3=1

\\1-grams:
-0.7\t</s>
-99\t<s>\t-0.2
-0.5\ta\t-0.3
-0.6\tb
-0.9\tc\t0.1

\\2-grams:
-0.1\t<s> a\t-0.05
-0.4 a b
-0.3\ta </s>
-0.8\tc c

\\3-grams:
-0.01\t<s> a </s>

\\end\\
"""


def test_srilm_leaves_out_what_is_zero_and_sorts_in_its_own_way():
    model, words = read(SRILM)
    assert words == [b"<unk>", b"</s>", b"a", b"b", b"c"]
    assert model.sizes == [5, 4, 1]

    def scores(*ids):
        return (model.log_probs([1, *ids]) / np.log(10)).tolist()

    assert scores(2, 1) == pytest.approx([-0.1, -0.01])
    assert scores(2, 3, 3) == pytest.approx([-0.1, -0.05 - 0.4, -0.6])
    assert scores(4, 4, 2) == pytest.approx([-0.2 - 0.9, -0.8, 0.1 - 0.5])
    assert scores(0)[0] == -np.inf  # a closed vocabulary
    assert_same(model, read(written(model, words))[0])


def test_comments_and_empty_orders():
    content = b"# Smoothing: Modified Kneser-Ney\n\n" + SRILM.strip().replace(b"ngram 3=1", b"ngram 3=0")
    model, _ = read(content.replace(b"-0.01\t<s> a </s>\n", b""))
    assert model.sizes == [5, 4]


# Damaged files


@pytest.mark.parametrize("kept", [0, 5, 20, 60, 100, 170, len(SRILM) - 8])
def test_cut_off_files(kept):
    with pytest.raises(ValueError, match=r"cut off|expected|line"):
        read(SRILM[:kept])


def test_every_truncation_is_noticed():
    """Wherever a file ends too early, but for the last line's end."""
    for kept in range(len(SRILM.rstrip())):
        with pytest.raises(ValueError, match=r"line \d+"):
            read(SRILM[:kept])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ngram 2=4", b"ngram 2=5", "line 19: expected one of 5 2-grams, got ''"),
        (b"ngram 2=4", b"ngram 2=3", "line 18: expected \\3-grams: after as many n-grams as \\data\\ says"),
        (b"ngram 2=4", b"ngram 2=99999999999", "line 19: expected one of 99999999999 2-grams, got ''"),
        (b"ngram 2=4", b"ngram 3=4", "line 4: expected ngram 2=NUMBER, got 'ngram 3=4'"),
        (b"ngram 2=4", b"ngram 2=x", "line 4: expected ngram 2=NUMBER, got 'ngram 2=x'"),
        (b"ngram 3=1", b"ngram 3=1\nngram 4=2", "line 24: expected \\4-grams: after"),
        (b"\\data\\", b"\\date\\", "line 2: no ARPA file: expected \\data\\, got '\\\\date\\\\'"),
        (b"-0.4 a b", b"-0.4 a d", "line 16: 'd' is not among the 1-grams"),
        (b"-0.4 a b", b"-0.4 a", "line 16: expected one of 4 2-grams, got '-0.4 a'"),
        (b"-0.4 a b", b"x a b", "line 16: 'x' is no logarithm"),
        (b"-0.4 a b", b"nan a b", "line 16: 'nan' is no logarithm"),
        (b"-0.4 a b", b"0.4 a b", "line 16: '0.4' is no logarithm"),
        (b"-0.4 a b", b"-0.4 a b inf", "line 16: 'inf' is no logarithm"),
        (b"-0.4 a b", b"-0.4 a <s>", "line 16: '<s>' can only be the first word"),
        (b"-0.4 a b", b"-0.4 <s> a", "line 18: one of the 2-grams above is there twice"),
        (b"-0.01\t<s> a </s>", b"-0.01 b a a", "line 21: 'b a', which it goes on from, is no n-gram above"),
        (b"-0.6\tb", b"-0.6\ta", "line 12: 'a' is there twice among the 1-grams above"),
        (b"-0.7\t</s>", b"-0.7\t</s>\t-1", "cannot have a back-off weight each"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old, new, message):
    assert SRILM.count(old) == 1
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared whole)
        read(SRILM.replace(old, new))
    assert message in str(caught.value)


def test_a_huge_order():
    header = b"\\data\\\n" + b"".join(b"ngram %d=1\n" % order for order in range(1, 14)) + b"\n"
    with pytest.raises(ValueError, match="n-grams of 13 orders; expected 1 to 12"):
        read(header)
    with pytest.raises(ValueError, match="n-grams of 0 orders"):
        read(b"\\data\\\n\n")


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([b" a", b" rose", b"red"], ["a", "rose", "red"]),
        ([b" a", b"a"], ["\u2420a", "a"]),  # within a line, and at its beginning
        ([b"a", b" ", b"\t"], ["a", "\u2420", "\u2409"]),
    ],
    ids=str,
)
def test_what_pieces_are_written_as(pieces, words):
    found = arpa.words_of([b" <unk>", b"\n", *pieces])
    assert [word.decode() for word in found[2:]] == words
    uniform = [np.full(len(found), -1, np.float32)]
    assert b"\t" + found[-1] + b"\n" in written(
        ngram.BackoffModel(len(found), [np.arange(len(found))], uniform, []), found
    )


@pytest.mark.parametrize(
    ("word", "reason"),
    [(b"", "is empty"), (b"a rose", "white space"), (b"<s>", "several"), (b"a", "several")],
)
def test_words_that_cannot_be_written(word, reason):
    with pytest.raises(ValueError, match=reason):
        written(model_of(), [*WORDS[:-1], word])
