"""Questions about texts: SQuAD's JSON, and the stories of bAbI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from serving.program import UserError
from training.datasets.examples import Example, FileFormat, Made, lines, of_files, open_text
from training.datasets.files import Source
from zoo.cutting import SEPARATOR

COLUMNS = ("context", "question", "answer")
FIELDS = (*COLUMNS, "start")

NOWHERE = "-1"  # the answer is one of a closed set, and no part of the context


def located(context: str, question: str, answer: str, place: str, start: int | None = None) -> Example:
    """An example whose answer stands in its context at character `start`, or where it comes first.

    Raises UserError, which names the place, where it does not.
    """
    start = context.find(answer) if start is None else start
    if start < 0 or context[start : start + len(answer)] != answer:
        raise UserError(f"{place}: the answer {answer[:60]!r} is not in its context, which has to hold it")
    return context, question, answer, str(len(context[:start].encode()))


class Squad(FileFormat):
    """SQuAD: paragraphs with questions, and answers with their place. Unanswerable questions are left out."""

    def reader(self, path: str, config: Any) -> Made:
        return of_files(path, FIELDS, _squad)


def _squad(source: Source) -> Iterator[Example]:
    with open_text(source) as file:
        try:
            articles = json.load(file)["data"]
            paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
            questions = [
                (
                    paragraph["context"],
                    asked["question"],
                    asked["answers"],
                    asked.get("id", asked["question"]),
                )
                for paragraph in paragraphs
                for asked in paragraph["qas"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source.name}: not SQuAD's JSON: {type(error).__name__}: {error}") from error
    for context, question, answers, name in questions:
        place = f"{source.name}, question {name}"
        if not isinstance(answers, list) or not all("text" in each for each in answers):
            raise UserError(f"{place}: its answers are no list of objects with a text")
        found = [
            located(context, question, each["text"], place, each.get("answer_start")) for each in answers
        ]
        if not question.strip() or not all(answer.strip() for _, _, answer, _ in found):
            raise UserError(f"{place}: the question, or an answer, is empty")
        if found:
            every = SEPARATOR.join(answer for _, _, answer, _ in found)
            yield context, question, every, found[0][3]


class Babi(FileFormat):
    """bAbI: numbered statements, and between them questions with answers of a closed set.

    A question's context is all statements of its story so far.

    Source: Weston et al. 2015, arXiv:1502.05698.
    """

    def reader(self, path: str, config: Any) -> Made:
        return of_files(path, FIELDS, _babi)


def _babi(source: Source) -> Iterator[Example]:
    story: list[str] = []
    for number, line in lines(source):
        place = f"{source.name}, line {number}"
        if not line.strip():
            continue
        index, _, rest = line.lstrip().partition(" ")
        if not index.isdecimal():
            raise UserError(f"{place}: expected a number, then a sentence; got {line[:60]!r}")
        if index == "1":
            story = []
        question, *answer = rest.split("\t")
        if not answer:
            story.append(question.strip())
            continue
        if not (story and question.strip() and answer[0].strip()):
            raise UserError(f"{place}: a question needs a story before it, and an answer: {line[:60]!r}")
        yield " ".join(story), question.strip(), answer[0].strip(), NOWHERE
