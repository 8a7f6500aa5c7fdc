"""The users' own files in each format: what is read, and what is said about bad data, with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from opened import complaint, records

from training.datasets.splitting import RUN
from zoo.cutting import SEPARATOR

SPLITS = ("train", "validation", "test")


def labelled(dataset: str, split: str = "train", **changes):
    return records(dataset, split, task="classification", **changes)


def bad_labels(dataset: str, split: str = "train", **changes):
    return complaint(dataset, split, task="classification", **changes)


def joined(*parts: str) -> str:
    return SEPARATOR.join(parts)


class TestTables:
    def test_columns_are_found_by_name(self, write):
        path = write(
            "a.tsv", 'id\tlabel\ttext\n1\tgood\tquite "nice"\n\n2\tbad\t\u05e9\u05dc\u05d5\u05dd e\u0301\n'
        )
        expected = [('quite "nice"', "good"), ("\u05e9\u05dc\u05d5\u05dd e\u0301", "bad")]
        assert labelled(f"tsv:{path}") == expected
        assert labelled(f"tsv:{write('a.tsv.gz', Path(path).read_text())}") == expected
        named = labelled(f"tsv:{path}", text_column="label", label_column="id")
        assert named == [("good", "1"), ("bad", "2")]

    def test_columns_are_found_by_number(self, write):
        path = write("a.tsv", "good\tnice\nbad\tnot nice\n")
        assert labelled(f"tsv:{path}", text_column="2", label_column="1") == [
            ("nice", "good"),
            ("not nice", "bad"),
        ]

    def test_values_between_commas_may_be_quoted(self, write):
        path = write("a.csv", '\ufefftext,label\r\n"two\nlines, ""quoted""",x\r\nplain,y\r\n')
        assert labelled(f"csv:{path}") == [('two\nlines, "quoted"', "x"), ("plain", "y")]

    def test_are_drawn_by_the_seed_in_exact_shares(self, write):
        rows = [(f"text {index}", str(index % 3)) for index in range(RUN + 500)]
        path = write("a.tsv", "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
        parts = [labelled(f"tsv:{path}", split, validation_fraction=0.25) for split in SPLITS[:2]]
        assert sorted(parts[0] + parts[1]) == sorted(rows)
        assert len(parts[1]) == len(rows) - int(len(rows) * 0.75)
        assert parts[1] != labelled(f"tsv:{path}", "validation", validation_fraction=0.25, seed=1)

    def test_splits_of_the_users_own(self, write):
        paths = {f"{split}_path": write(f"{split}.csv", f"text,label\n{split},x\n") for split in SPLITS}
        assert [labelled("csv", split, **paths) for split in SPLITS] == [[(split, "x")] for split in SPLITS]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("text\tkind\na\tb\n", "line 1: no column 'label' among 'text', 'kind'"),
            ("text\tlabel\na\tb\na\n", "line 3: columns: 1; in the first row: 2"),
            ("text\tlabel\na\tb\tc\n", "line 2: columns: 3; in the first row: 2"),
            ("text\tlabel\n  \tb\n", "line 2: the text is empty"),
            ("text\tlabel\na\t\n", "line 2: the label is empty"),
            ("text\tlabel\n", "holds no examples"),
            ("", "no column 'text'"),
        ],
    )
    def test_bad_rows_are_named(self, write, content, expected):
        path = write("a.tsv", content)
        message = bad_labels(f"tsv:{path}")
        assert path in message
        assert expected in message

    def test_an_open_quotation_is_named(self, write):
        assert "line 2: unexpected end of data" in bad_labels(
            f"csv:{write('a.csv', 'text,label' + chr(10) + chr(34) + 'a')}"
        )

    def test_a_number_beyond_the_last_column(self, write):
        path = write("a.tsv", "a\tb\n")
        assert "no column 3" in bad_labels(f"tsv:{path}", text_column="1", label_column="3")
        assert "no column" in bad_labels(f"tsv:{path}", text_column="0", label_column="1")


class TestJsonLines:
    def test_members_are_found_by_name(self, write):
        rows = [{"text": "a\nb é", "label": True, "id": 1}, {"label": 3, "text": " c "}]
        path = write("a.jsonl.gz", "\n\n".join(map(json.dumps, rows)) + "\n")
        assert labelled(f"jsonl:{path}") == [("a\nb é", "true"), ("c", "3")]
        assert labelled(f"jsonl:{path}", text_column="label", label_column="text")[1] == ("3", "c")
        assert records(f"jsonl:{path}") == [("a\nb é",), ("c",)]  # for a language model

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('{"text": "a"}', "line 2: no member 'label' among 'text'"),
            ('{"text": "a", "label": null}', "line 2: 'label' is neither text nor a number"),
            ('{"text": "a", "label": ["b"]}', "line 2: 'label' is neither text nor a number"),
            ('{"text": " ", "label": "b"}', "line 2: the text is empty"),
            ('{"text": "a", "lab', "line 2: not JSON"),
            ("[1]", "line 2: expected an object"),
        ],
    )
    def test_bad_lines_are_named(self, write, line, expected):
        path = write("a.jsonl", f'{{"text": "a", "label": "b"}}\n{line}\n')
        message = bad_labels(f"jsonl:{path}")
        assert message.startswith(path)
        assert expected in message


class TestTextDir:
    def test_folders_are_labels(self, write, tmp_path):
        for name, text in {
            "pos/b.txt": "good\nfilm",
            "pos/a.txt": "nice",
            "neg/x.txt.gz": "bad",
            ".x/y": "z",
        }.items():
            write(f"data/{name}", text)
        expected = [("bad", "neg"), ("nice", "pos"), ("good\nfilm", "pos")]
        assert labelled(f"text_dir:{tmp_path / 'data'}") == expected

    def test_bad_folders_are_named(self, write, tmp_path):
        path = write("data/pos/a.txt", " \n")
        assert bad_labels(f"text_dir:{tmp_path / 'data'}") == f"{path} is empty"
        assert "no such folder" in bad_labels(f"text_dir:{path}")
        assert "a subfolder for each label" in bad_labels(f"text_dir:{tmp_path / 'data' / 'pos'}")
        write("latin/pos/a.txt", "caf\xe9".encode("latin1"))
        assert "not UTF-8" in bad_labels(f"text_dir:{tmp_path / 'latin'}")


class TestColumns:
    BIO = "-DOCSTART- O\n\nAda B-per\nLovelace I-per\nwrote O\n\t\n\n#hash O\n\u05e9\u05dc\u05d5\u05dd B-x\n"

    def test_conll(self, write):
        expected = [
            (joined("Ada", "Lovelace", "wrote"), joined("B-per", "I-per", "O")),
            (joined("#hash", "\u05e9\u05dc\u05d5\u05dd"), joined("O", "B-x")),
        ]
        assert records(f"conll:{write('a.conll', self.BIO)}") == expected
        tabs = self.BIO.replace("-DOCSTART- O\n", "").replace(" ", "\t").replace("\n", "\r\n")
        assert records(f"conll:{write('b.conll.gz', tabs)}") == expected

    def test_conll_columns_by_number(self, write):
        path = write("a.conll", "1 x NN B-a\n2 y VB O\n")
        assert records(f"conll:{path}", token_column="2", tag_column="3") == [
            (joined("x", "y"), joined("NN", "VB"))
        ]
        assert records(f"conll:{path}", token_column="2") == [(joined("x", "y"), joined("B-a", "O"))]

    def test_a_token_with_a_space_between_tabs(self, write):
        assert records(f"conll:{write('a.conll', '10 000' + chr(9) + 'NUM' + chr(10))}") == [
            ("10 000", "NUM")
        ]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("a O\nb\n", "line 2: columns: 1; in the first line: 2"),
            ("a O\nb X O\n", "line 2: columns: 3; in the first line: 2"),
            ("a\nb\n", "line 1: there are only 1 columns"),
            ("a\tO\n\tO\n", "line 2: a token and its tag are needed"),
            ("a O\nb I-x\n", "line 2: I-x follows O: neither BIO nor BIOES"),
            ("a B-y\nb I-x\n", "line 2: I-x follows B-y: neither BIO nor BIOES"),
            ("a O\n\nb I-x\n", "line 3: I-x follows O: neither BIO nor BIOES"),
            ("a S-x\nb B-x\n\nc O\n", "line 2: O follows B-x: neither BIO nor BIOES"),
            ("a B-x\nb S-x\n", "line 2: S-x follows B-x: neither BIO nor BIOES"),
            ("", "holds no examples"),
        ],
    )
    def test_bad_lines_are_named(self, write, content, expected):
        path = write("a.conll", content)
        message = complaint(f"conll:{path}")
        assert message.startswith(path)
        assert expected in message

    @pytest.mark.parametrize("column", ["0", "x", "-1"])
    def test_column_numbers(self, write, column):
        path = write("a.conll", "a O\n")
        assert f"--tag_column={column}" in complaint(f"conll:{path}", tag_column=column)
        assert "there are only 2 columns" in complaint(f"conll:{path}", tag_column="3")

    def test_what_only_looks_like_spans_is_not_checked(self, write):
        assert len(records(f"conll:{write('a.conll', 'a I-x' + chr(10) + 'b NOUN' + chr(10))}")) == 1

    CONLLU = (
        "# text = can't\n1-2\tcan't\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "1\tca\tcan\tAUX\tMD\t_\t0\troot\t_\t_\n2\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_\n"
        "2.1\tempty\t_\tX\t_\t_\t_\t_\t_\t_\n\n1\t#\t#\tSYM\tNN\t_\t0\troot\t_\t_\n"
    )

    def test_conllu(self, write):
        path = write("a.conllu", self.CONLLU)
        assert records(f"conllu:{path}") == [(joined("ca", "n't"), joined("AUX", "PART")), ("#", "SYM")]
        for column in ("xpos", "5"):
            assert records(f"conllu:{path}", tag_column=column)[0][1] == joined("MD", "RB")
        assert "--tag_column=nonsense: CoNLL-U has id, form" in complaint(
            f"conllu:{path}", tag_column="nonsense"
        )

    def test_ragged_conllu(self, write):
        path = write("a.conllu", self.CONLLU.replace("\troot\t_\t_", "\troot"))
        assert complaint(f"conllu:{path}").startswith(f"{path}, line 3: columns: 8; CoNLL-U has 10")


class TestPairs:
    def test_parallel(self, write):
        paths = ",".join([write("a.de", "eins\n\n zwei \r\n"), write("a.en.gz", "one\n\ntwo\n")])
        assert records(f"parallel:{paths}") == [("eins", "one"), ("zwei", "two")]
        assert records("parallel", train_path=paths) == [("eins", "one"), ("zwei", "two")]

    def test_pairs_in_a_table(self, write):
        path = write("a.tsv", "translation\ttext\none\teins\n")
        assert records(f"tsv:{path}", task="translation") == [("eins", "one")]

    def test_unequal_files(self, write):
        long, short = write("a.de", "eins\nzwei\ndrei\n"), write("a.en", "one\ntwo\n")
        for paths in (f"{long},{short}", f"{short},{long}"):
            message = complaint(f"parallel:{paths}")
            assert message.startswith(f"{long} has more lines than {short}, which ends before line 3")

    def test_other_bad_files(self, write, tmp_path):
        one, two = write("a.de", "eins\nzwei\n"), write("a.en", "one\n \n")
        assert complaint(f"parallel:{one},{two}") == f"{two}, line 2: empty, but not so in the other file"
        assert "expected two files" in complaint(f"parallel:{one}")
        assert "no such file" in complaint(f"parallel:{one},{one}x")
        assert "expected one file, found 2" in complaint(f"parallel:{one},{tmp_path}")


class TestQuestions:
    CONTEXT = "Caf\u00e9 Ada is in \u05e9\u05dc\u05d5\u05dd Street."

    def squad(self, write, **changes):
        answer = {"text": "\u05e9\u05dc\u05d5\u05dd Street", "answer_start": 15, **changes}
        questions = [
            {"id": "q1", "question": "Where?", "answers": [answer, {"text": "Street", "answer_start": 20}]},
            {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True},
        ]
        paragraphs = [{"context": self.CONTEXT, "qas": questions}]
        return write("a.json", json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}))

    def test_squad(self, write):
        answers = joined("\u05e9\u05dc\u05d5\u05dd Street", "Street")
        start = str(len("Caf\u00e9 Ada is in ".encode()))
        assert records(f"squad:{self.squad(write)}") == [(self.CONTEXT, "Where?", answers, start)]

    def test_an_answer_that_is_not_in_its_context(self, write):
        path = self.squad(write, text="Main Street")
        assert complaint(f"squad:{path}").startswith(
            f"{path}, question q1: the answer 'Main Street' is not in"
        )
        assert "is not in its context" in complaint(f"squad:{self.squad(write, answer_start=14)}")

    @pytest.mark.parametrize(
        "content", ["{", "[]", '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', '{"data": 3}']
    )
    def test_what_is_not_squad(self, write, content):
        path = write("a.json", content)
        assert complaint(f"squad:{path}").startswith(f"{path}: not SQuAD's JSON")

    def test_questions_in_a_table(self, write):
        path = write("a.tsv", f"context\tquestion\tanswer\n{self.CONTEXT}\tWho?\tAda\n")
        assert records(f"tsv:{path}", task="reading") == [(self.CONTEXT, "Who?", "Ada", "6")]
        path = write("b.tsv", "context\tquestion\tanswer\nAda\tWho?\tBob\n")
        assert complaint(f"tsv:{path}", task="reading").startswith(
            f"{path}, line 2: the answer 'Bob' is not in"
        )

    def test_babi(self, write):
        path = write(
            "qa.txt",
            "1 Mary went home.\n2 Where is Mary? \thome\t1\n3 John left.\n4 Is John in? \tno\t3\n"
            "1 Bob sat.\n2 Who sat?\tBob\t1\n",
        )
        assert records(f"babi:{path}") == [
            ("Mary went home.", "Where is Mary?", "home", "-1"),
            ("Mary went home. John left.", "Is John in?", "no", "-1"),
            ("Bob sat.", "Who sat?", "Bob", "-1"),
        ]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("1 Mary sat.\nMary stood.\n", "line 2: expected a number"),
            ("1 Where is Mary?\thome\n", "line 1: a question needs a story"),
            ("1 Mary sat.\n2 Where?\t \n", "line 2: a question needs a story before it, and an answer"),
        ],
    )
    def test_bad_stories_are_named(self, write, content, expected):
        path = write("qa.txt", content)
        message = complaint(f"babi:{path}")
        assert message.startswith(path)
        assert expected in message


@pytest.mark.parametrize("task", ["tagging"])
def test_a_task_whose_data_no_table_holds(write, task):
    path = write("a.tsv", "text\tlabel\na\tb\n")
    assert f"no table has the tokens and tags of --task={task}" in complaint(f"tsv:{path}", task=task)
