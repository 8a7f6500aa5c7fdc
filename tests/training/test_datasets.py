"""Data sets against plain Python: what is in each split, and what the user is told about bad data."""

from __future__ import annotations

import gzip
import os
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib.colors
import pytest
from opened import complaint, configured

from training.datasets import DATASETS, FORMATS, files, open_dataset
from training.datasets.splitting import RUN, Fractions

SPLITS = ("train", "validation", "test")


def load(dataset: str, split: str, **changes) -> list[bytes]:
    """The texts of a split's records."""
    records = open_dataset(configured(dataset, **changes)).load(split)
    return [record["text"] for record in records.as_numpy_iterator()]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that every text has many."""
    monkeypatch.setattr(files, "BLOCK_BYTES", 13)


def prose(length: int, alphabet: str = "abc de\n", seed: int = 3) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


class TestStream:
    @pytest.mark.parametrize("length", [30, 999, 1000])
    def test_splits_by_default_as_slicing_does(self, write, small_blocks, length):
        text = prose(length)
        path = f"text:{write('a.txt', text)}"
        assert b"".join(load(path, "train")).decode() == text[: int(0.9 * length)]
        assert b"".join(load(path, "validation")).decode() == text[int(0.9 * length) :]
        assert open_dataset(configured(path)).stream

    @pytest.mark.parametrize(
        ("validation", "test"), [(0.1, 0.1), (0.05, 0.2), (0.0, 0.5), (0.3, 0.0), (0, 0)]
    )
    def test_splits_by_the_fractions_given(self, write, small_blocks, validation, test):
        text = prose(1234)
        path = f"text:{write('a.txt', text)}"
        ends = [0, int(1234 * (1 - validation - test)), int(1234 * (1 - test)), 1234]
        shares = {"validation_fraction": validation, "test_fraction": test}
        for split, (start, end) in zip(SPLITS, pairwise(ends), strict=True):
            if start < end:
                assert b"".join(load(path, split, **shares)).decode() == text[start:end]
            else:
                assert f"--{split}_fraction" in complaint(path, split, **shares)

    @pytest.mark.parametrize("seed", range(20))
    def test_never_cuts_a_character(self, write, small_blocks, seed):
        text = prose(60 + seed, "a é語😀", seed)
        path = f"text:{write('a.txt', text)}"
        shares = {"validation_fraction": 0.3, "test_fraction": 0.3}
        parts = [load(path, split, **shares) for split in SPLITS]
        assert "".join(block.decode() for part in parts for block in part) == text
        sizes = [len(b"".join(part)) for part in parts]
        assert sizes == pytest.approx([0.4 * sum(sizes), 0.3 * sum(sizes), 0.3 * sum(sizes)], abs=5)

    def test_cuts_after_lines_else_before_spaces(self, write, small_blocks):
        text = "one\ntwo three\nfour five six seven eight nine ten"
        path = f"text:{write('a.txt', text)}"
        blocks = load(path, "train", validation_fraction=0.0)
        assert b"".join(blocks).decode() == text
        assert len(blocks) > 3
        assert all(left.endswith(b"\n") or right.startswith(b" ") for left, right in pairwise(blocks))

    def test_blocks_are_neither_lines_nor_everything(self, write):
        path = f"text:{write('a.txt', prose(2_000_000))}"
        blocks = load(path, "train")
        assert all(len(block) <= 1_000_000 for block in blocks)
        assert sum(len(block) for block in blocks) / len(blocks) > 60_000

    def test_gives_the_same_again(self, write, small_blocks):
        data = open_dataset(configured(f"text:{write('a.txt', prose(500))}")).load("train")
        first, second = ([record["text"] for record in data.as_numpy_iterator()] for _ in range(2))
        assert first == second

    def test_keeps_line_ends_and_null_bytes(self, write):
        text = "a\r\nb\x00\n\n\r c\x00"
        assert load(f"text:{write('a.txt', text)}", "train", validation_fraction=0.0) == [text.encode()]

    def test_leaves_out_a_byte_order_mark(self, write):
        path = write("a.txt", "\ufeffabcdefghij")
        assert load(f"text:{path}", "train") == [b"abcdefghi"]
        assert load(f"text:{path}", "validation") == [b"j"]

    @pytest.mark.parametrize("mode", ["stream", "lines"])
    def test_a_line_of_10_megabytes(self, write, mode):
        long_line = "0123456789" * 1_000_000
        path = write("a.txt", f"short\n{long_line}\nshort")
        texts = load(f"text:{path}", "train", text_mode=mode, validation_fraction=0.0)
        if mode == "lines":
            assert texts == [b"short", long_line.encode(), b"short"]
        else:
            assert b"".join(texts).decode() == f"short\n{long_line}\nshort"


class TestPaths:
    def test_a_folder_is_all_its_files_sorted(self, write, tmp_path, small_blocks):
        for name in ("b.txt", "a/z.txt", "a/deep/er.txt", "c.txt.gz", ".hidden", ".git/config"):
            write(f"corpus/{name}", f"this is {name}\n")
        names = ["a/deep/er.txt", "a/z.txt", "b.txt", "c.txt.gz"]
        everything = load(f"text:{tmp_path / 'corpus'}", "train", validation_fraction=0.0)
        assert b"".join(everything).decode() == "".join(f"this is {name}\n" for name in names)

    def test_splits_run_across_files(self, write, tmp_path, small_blocks):
        text = prose(400)
        for index, start in enumerate(range(0, 400, 50)):
            write(f"corpus/{index}.txt", text[start : start + 50])
        parts = [
            b"".join(load(f"text:{tmp_path / 'corpus'}", split, test_fraction=0.45)).decode()
            for split in SPLITS
        ]
        assert parts == [text[:180], text[180:220], text[220:]]

    def test_a_pattern_is_its_matches_sorted(self, write, tmp_path):
        for name in ("b.txt", "a.txt", "c.md", "below/d.txt"):
            write(name, name + "\n")
        one = load(f"text:{tmp_path}/*.txt", "train", validation_fraction=0.0)
        assert b"".join(one) == b"a.txt\nb.txt\n"
        deep = load(f"text:{tmp_path}/**/*.txt", "train", validation_fraction=0.0)
        assert b"".join(deep) == b"a.txt\nb.txt\nbelow/d.txt\n"

    def test_a_file_whose_name_looks_like_a_pattern(self, write):
        assert load(f"text:{write('a[1].txt', 'abc')}", "train", validation_fraction=0.0) == [b"abc"]

    @pytest.mark.parametrize("mode", ["stream", "lines"])
    def test_gz_reads_as_the_plain_file_does(self, write, small_blocks, mode):
        text = prose(700, "a é語😀\n")
        for split in SPLITS:
            plain, packed = (
                load(f"text:{write(name, text)}", split, text_mode=mode, test_fraction=0.2)
                for name in ("a.txt", "a.txt.gz")
            )
            assert plain == packed

    def test_splits_of_the_users_own_are_taken_as_given(self, write):
        paths = {f"{split}_path": write(f"{split}.txt", f"{split}\ntext") for split in ("train", "test")}
        assert load("text", "train", **paths) == [b"train\ntext"]
        assert load("text", "test", **paths, text_mode="lines") == [b"test", b"text"]
        assert "--validation_path" in complaint("text", "validation", **paths)


class TestLines:
    def test_are_drawn_in_exact_shares(self, write):
        lines = [f"line {index}" for index in range(RUN * 3 + 77)]
        path = f"text:{write('a.txt', chr(10).join(lines))}"
        shares = {"validation_fraction": 0.1, "test_fraction": 0.2, "text_mode": "lines"}
        parts = [[text.decode() for text in load(path, split, **shares)] for split in SPLITS]
        assert sorted(text for part in parts for text in part) == sorted(lines)
        held_out = len(lines) - int(len(lines) * (1 - 0.1 - 0.2))
        assert len(parts[1]) + len(parts[2]) == held_out
        assert len(parts[2]) == int(held_out * 2 / 3)
        for part in parts:
            places = [int(text.split()[1]) for text in part]
            assert places == sorted(places)
        gaps = Counter(b - a for a, b in pairwise(places))
        assert len(gaps) > 5  # at random, not one in so many
        assert not open_dataset(configured(path, text_mode="lines")).stream

    def test_are_drawn_by_the_seed_alone(self, write, monkeypatch):
        lines = [f"line {index}" for index in range(500)]
        one_file = f"text:{write('a.txt', chr(10).join(lines))}"
        for index, line in enumerate(lines):
            write(f"corpus/{index:03}.txt", line)
        many_files = f"text:{Path(one_file[5:]).parent / 'corpus'}"
        first = load(one_file, "validation", text_mode="lines", seed=1)
        assert first == load(one_file, "validation", text_mode="lines", seed=1)
        assert first == load(many_files, "validation", text_mode="lines", seed=1)
        assert first != load(one_file, "validation", text_mode="lines", seed=2)
        monkeypatch.setattr(files, "BLOCK_BYTES", 13)
        assert first == load(one_file, "validation", text_mode="lines", seed=1)
        assert len(load(one_file, "validation", text_mode="lines", seed=-1)) == 50

    def test_are_what_lies_between_line_ends(self, write, small_blocks):
        text = "\n\na line\r\n\r\n  spaces kept \nno carriage \r return\nnull\x00\n é語😀\n\n\nthe end"
        expected = [line for line in re.split("\r?\n", text) if line]
        path = f"text:{write('a.txt', text)}"
        texts = load(path, "train", text_mode="lines", validation_fraction=0.0)
        assert [text.decode() for text in texts] == expected

    @pytest.mark.parametrize("total", [1, 2, 7, 10, 100, RUN, RUN + 1])
    @pytest.mark.parametrize("shares", [(0.1, 0.0), (0.0, 0.1), (0.05, 0.5), (0.3, 0.3), (0.0, 0.0)])
    def test_each_is_in_one_split_however_they_are_asked_for(self, total, shares):
        fractions = Fractions(*shares)
        labels = fractions.draw(0, total, total).tolist()
        assert set(labels) <= {0, 1, 2}
        assert labels.count(0) == int(total * (1 - shares[0] - shares[1]))
        assert labels.count(2) == pytest.approx(total * shares[1], abs=1)
        one_by_one = [fractions.draw(place, 1, total).item() for place in range(total)]
        assert one_by_one == labels


class TestOfTheZoo:
    def test_python_docs_is_all_topics_in_one_text(self):
        assert open_dataset(configured("python_docs")).stream
        texts = load("python_docs", "train") + load("python_docs", "validation")
        text = b"".join(texts).decode()
        assert text == "".join(topics[name] for name in sorted(topics))
        assert len(text) > 300_000

    def test_color_names_are_matplotlibs(self):
        assert not open_dataset(configured("color_names")).stream
        texts = load("color_names", "train", seed=5) + load("color_names", "validation", seed=5)
        names = sorted(text.decode() for text in texts)
        assert names == sorted(key.split(":")[1] for key in matplotlib.colors.XKCD_COLORS)
        assert "dusty rose" in names

    def test_all_open_by_name(self):
        for name in DATASETS:
            assert next(iter(open_dataset(configured(name)).load("train")))


class TestComplaints:
    @pytest.mark.parametrize("value", ["nonsense", "python_doc", "colour_names:x", "tex:file.txt", "", ":x"])
    def test_about_an_unknown_name_list_the_right_ones(self, value):
        message = complaint(value)
        assert repr(value) in message or f"--dataset={value}" in message
        expected = FORMATS if ":" in value else [*DATASETS, *FORMATS]
        assert all(name in message for name in expected)

    def test_about_a_slip_of_the_pen_suggest_the_name(self):
        assert "did you mean 'python_docs'" in complaint("pythondocs")

    def test_about_a_path_without_a_format_say_what_to_write(self, write):
        path = write("a.txt", "abc")
        assert f"--dataset=text:{path}" in complaint(path)

    def test_about_a_missing_path_name_it(self, tmp_path):
        missing = str(tmp_path / "missing.txt")
        assert complaint(f"text:{missing}").startswith(f"{missing}: no such file")
        assert complaint("text", train_path=missing).startswith(f"{missing}: no such file")
        assert "a path is missing" in complaint("text:")
        assert "--train_path" in complaint("text")

    def test_about_paths_without_files(self, tmp_path):
        assert "no file matches" in complaint(f"text:{tmp_path}/*.txt")
        assert "holds no files" in complaint(f"text:{tmp_path}")

    @pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
    def test_about_an_empty_file(self, write, name):
        path = write(name, "")
        assert complaint(f"text:{path}") == f"{path} is empty"

    def test_about_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in complaint(f"text:{tmp_path / 'pipe'}")

    def test_about_nothing_but_empty_lines(self, write):
        path = write("a.txt", "\n\r\n\n")
        assert "nothing but empty lines" in complaint(f"text:{path}", text_mode="lines")

    @pytest.mark.parametrize(
        ("content", "line", "offset", "byte"),
        [
            (b"ok\nfine\ncaf\xe9 au lait\n", 3, 11, "0xe9"),
            (b"\xff\xfea\x00", 1, 0, "0xff"),
            (b"line\n" * 20 + "語".encode()[:2], 21, 100, "0xe8"),
            (b"0123456789a" + "é語".encode() * 9 + b"\n\x80", 2, 57, "0x80"),
            (b"surrogate \xed\xa0\x80", 1, 10, "0xed"),
        ],
    )
    @pytest.mark.parametrize("name", ["a.txt", "a.gz"])
    def test_about_other_encodings_name_line_and_byte(
        self, write, small_blocks, name, content, line, offset, byte
    ):
        path = write(name, content)
        message = complaint(f"text:{path}")
        assert message.startswith(f"{path}, line {line}: not UTF-8 text: byte {byte} at offset {offset};")

    @pytest.mark.parametrize(
        "damage", [lambda packed: b"not gzip", lambda packed: packed[: len(packed) // 2]]
    )
    def test_about_a_broken_gz(self, tmp_path, damage):
        path = tmp_path / "a.txt.gz"
        path.write_bytes(damage(gzip.compress(prose(5000).encode())))
        assert complaint(f"text:{path}").startswith(f"{path}: not a whole .gz file: ")

    def test_about_damage_inside_a_gz(self, tmp_path):
        packed = bytearray(gzip.compress(prose(5000).encode()))
        packed[len(packed) // 2] ^= 0xFF
        path = tmp_path / "a.txt.gz"
        path.write_bytes(packed)
        assert str(path) in complaint(f"text:{path}")

    @pytest.mark.parametrize(
        ("validation", "test", "flag"),
        [
            (1.0, 0.0, "validation"),
            (-0.1, 0.0, "validation"),
            (0.1, 10, "test"),
            (float("nan"), 0, "validation"),
        ],
    )
    def test_about_fractions_out_of_range(self, validation, test, flag):
        message = complaint("python_docs", validation_fraction=validation, test_fraction=test)
        assert f"--{flag}_fraction=" in message

    def test_about_fractions_that_leave_nothing_to_train_on(self):
        message = complaint("python_docs", validation_fraction=0.5, test_fraction=0.5)
        assert "--validation_fraction=0.5 and --test_fraction=0.5" in message

    @pytest.mark.parametrize("mode", ["stream", "lines"])
    @pytest.mark.parametrize(("split", "content"), [("train", "x"), ("test", "some text\n" * 30)])
    def test_about_a_split_without_data(self, write, mode, split, content):
        path = f"text:{write('a.txt', content)}"
        message = complaint(path, split, text_mode=mode)
        assert message.startswith(f"the {split} split of {path[5:]} has no data")
        assert f"--{'test' if split == 'test' else 'validation'}_fraction" in message

    def test_about_other_flags(self, write):
        path = write("a.txt", "abc")
        assert "stream, lines" in complaint(f"text:{path}", text_mode="verse")
        assert "--test_path" in complaint(f"text:{path}", test_path=path)
        assert "--train_path" in complaint("python_docs", train_path=path)
        assert "train, validation, test" in complaint(f"text:{path}", "dev")
