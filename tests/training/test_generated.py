"""The data sets that are made, not read: what is in them is true, and the same each time."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import pytest
from opened import records

from training.datasets import color_names, dates, python_source, stories
from zoo.cutting import SEPARATOR


class TestColorFamilies:
    @pytest.mark.parametrize(
        ("color", "name"),
        [
            ((1, 0, 0), "red"),
            ((1, 0.5, 0), "orange"),
            ((1, 1, 0), "yellow"),
            ((0, 0.5, 0), "green"),
            ((0, 0.8, 0.8), "turquoise"),
            ((0, 0, 1), "blue"),
            ((0.5, 0, 0.9), "purple"),
            ((1, 0, 0.8), "pink"),
            ((1, 0.7, 0.7), "pink"),
            ((0.4, 0.2, 0), "brown"),
            ((0.5, 0.5, 0.5), "grey"),
            ((1, 1, 1), "white"),
            ((0.1, 0, 0), "black"),
        ],
    )
    def test_by_hand(self, color, name):
        assert color_names.family(*color) == name

    def test_of_the_survey(self):
        families = dict(records("color_names"))
        assert families["grass green"] == "green"
        assert families["navy blue"] == "blue"
        assert families["chocolate brown"] == "brown"
        named = [
            (name, found) for name, found in families.items() if name.split()[-1] in set(families.values())
        ]
        right = sum(name.split()[-1] == found for name, found in named)
        assert right / len(named) > 0.75  # what people call green is seldom called otherwise here
        assert min(Counter(families.values()).values()) >= 5


class TestDates:
    def test_are_what_they_say(self):
        pairs = records("dates")
        assert len(pairs) == dates.COUNT
        assert pairs == records("dates")
        for text, iso in pairs:
            day = date.fromisoformat(iso)
            possible = {dates.written(day, form).lower() for form in dates.FORMS}
            assert text.lower() in possible
        years = {iso[:4] for _, iso in pairs}
        assert min(years) == "1900"
        assert max(years) == "2099"

    @pytest.mark.parametrize(
        ("form", "pattern"),
        [
            ("{d} {month} {y}", "%d %B %Y"),
            ("{weekday}, {month} {d}, {y}", "%A, %B %d, %Y"),
            ("{wd}, {d} {mon} {y}", "%a, %d %b %Y"),
            ("{mm}/{dd}/{y}", "%m/%d/%Y"),
            ("{d}.{m}.{y}", "%d.%m.%Y"),
        ],
    )
    def test_are_read_by_python(self, form, pattern):
        for ordinal in range(date(1900, 1, 1).toordinal(), date(2099, 12, 31).toordinal(), 371):
            day = date.fromordinal(ordinal)
            assert datetime.strptime(dates.written(day, form), pattern).date() == day

    def test_ordinals(self):
        days = [dates.written(date(2001, 1, day), "{dth}") for day in range(1, 32)]
        assert days[:4] == ["1st", "2nd", "3rd", "4th"]
        assert days[10:13] == ["11th", "12th", "13th"]
        assert days[20:23] == ["21st", "22nd", "23rd"]
        assert days[30] == "31st"


class TestStories:
    def test_the_answer_is_the_last_place_that_somebody_went_to(self):
        rows = records("stories")
        assert len(rows) == stories.COUNT
        for context, question, answer, start in rows[:500]:
            person = re.fullmatch(r"Where is (\w+)\?", question)[1]
            sentences = [sentence for sentence in context.split(".") if sentence.split()[:1] == [person]]
            assert sentences[-1].split()[-1] == answer
            assert context[int(start) :].startswith(f"{answer}.")


class TestPythonSource:
    SOURCE = (
        "import os  # why\n"
        'def f(x, *y):\n    """Doc\n    string."""\n'
        '    return x[1:] + 0x1F - 1.5e3 if x is not None else f"{x!r}é"\n'
        "a = \\\n    b'c'; class_ = 1\n"
    )

    def test_by_hand(self):
        tags, ends = python_source.highlighted(self.SOURCE)
        found = [
            (kind, "".join(run))
            for kind, run in _runs(zip(tags, self.SOURCE, strict=True))
            if kind != "space"
        ]
        assert found == [
            *[("keyword", "import"), ("name", "os"), ("comment", "# why")],
            *[("keyword", "def"), ("name", "f"), ("operator", "("), ("name", "x"), ("operator", ",")],
            *[("operator", "*"), ("name", "y"), ("operator", "):"), ("string", '"""Doc\n    string."""')],
            *[("keyword", "return"), ("name", "x"), ("operator", "["), ("number", "1"), ("operator", ":]")],
            *[("operator", "+"), ("number", "0x1F"), ("operator", "-"), ("number", "1.5e3")],
            *[("keyword", "if"), ("name", "x"), ("keyword", "is"), ("keyword", "not"), ("keyword", "None")],
            *[("keyword", "else"), ("string", 'f"{x!r}é"'), ("name", "a"), ("operator", "=")],
            *[("operator", "\\"), ("string", "b'c'"), ("operator", ";"), ("name", "class_")],
            *[("operator", "="), ("number", "1")],
        ]
        assert [self.SOURCE[:end].count("\n") for end in ends] == [1, 2, 4, 5, 7, 7]

    def test_examples_are_whole_statements_of_whole_files(self):
        parts = {
            split: records("python_source", split, validation_fraction=0.1, test_fraction=0.1)
            for split in ("validation", "test")
        }
        for tokens, tags in parts["test"]:
            characters = tokens.split(SEPARATOR)
            assert all(len(character) == 1 for character in characters)
            assert len(characters) == len(tags.split(SEPARATOR)) <= python_source.LONGEST
        read = dict.fromkeys(parts, 0)
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            examples = list(python_source._statements(path.read_text(encoding="utf-8")))
            for split, rows in parts.items():
                if examples and rows[read[split] :][: len(examples)] == examples:
                    read[split] += len(examples)
                    break  # a module is in one of them only
        assert read == {split: len(rows) for split, rows in parts.items()}


def _runs(pairs):
    """(kind, characters) of neighbours of the same kind."""
    runs: list[tuple[str, list[str]]] = []
    for kind, character in pairs:
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(character)
        else:
            runs.append((kind, [character]))
    return runs
