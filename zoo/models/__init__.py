"""The task models, by the name of their task."""

from zoo.models.base import TaskModel
from zoo.models.classifier import Classifier
from zoo.models.language_model import LanguageModel
from zoo.models.reader import Reader
from zoo.models.tagger import Tagger
from zoo.models.translator import Translator

TASKS: dict[str, type[TaskModel]] = {
    "language_model": LanguageModel,
    "classification": Classifier,
    "tagging": Tagger,
    "translation": Translator,
    "reading": Reader,
}
