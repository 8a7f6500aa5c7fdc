"""The task models, by the name of their task."""

from collections.abc import Mapping
from typing import Any

from zoo.models.base import TaskModel
from zoo.models.classifier import Classifier
from zoo.models.language_model import LanguageModel
from zoo.models.ngram_model import NgramModel
from zoo.models.reader import Reader
from zoo.models.snm_model import SparseMatrixModel
from zoo.models.tagger import Tagger
from zoo.models.translator import Translator

TASKS: dict[str, type[TaskModel]] = {
    "language_model": LanguageModel,
    "classification": Classifier,
    "tagging": Tagger,
    "translation": Translator,
    "reading": Reader,
}

# What predicts: --model. Networks are of all tasks, the others are language models.
KINDS: dict[str, type[TaskModel] | None] = {
    "recurrent": None,
    "ngram": NgramModel,
    "snm": SparseMatrixModel,
}


def model_class(task: str, options: Mapping[str, Any]) -> type[TaskModel]:
    """The class of a task's models, by a configuration's options."""
    kind = KINDS[options.get("model", "recurrent")] if task == "language_model" else None
    return kind or TASKS[task]
