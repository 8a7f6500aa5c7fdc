"""The task models, by the name of their task."""

from zoo.models.base import TaskModel
from zoo.models.classifier import Classifier
from zoo.models.language_model import LanguageModel

TASKS: dict[str, type[TaskModel]] = {"language_model": LanguageModel, "classification": Classifier}
