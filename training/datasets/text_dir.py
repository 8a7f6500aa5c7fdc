"""A folder with a subfolder for each label, and in it a file for each text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.program import UserError
from training.datasets import files
from training.datasets.examples import Example, FileFormat, Made, open_text

FIELDS = ("text", "label")


class TextDir(FileFormat):
    """The label of a text is the name of the folder it is in. Empty files are errors."""

    def reader(self, path: str, config: Any) -> Made:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise UserError(f"{path}: no such folder")
        labels = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
        if not labels:
            raise UserError(f"{path}: expected a subfolder for each label; there is none")
        return Made(path, FIELDS, lambda: _texts(labels))


def _texts(labels: list[Path]) -> Iterator[Example]:
    for folder in labels:
        for source in files.find(str(folder)):
            with open_text(source, newline="") as file:
                text = file.read().strip()
            if not text:
                raise UserError(f"{source.name} is empty")
            yield text, folder.name
