"""The files below deploy/, read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PYPROJECT = (ROOT / "pyproject.toml").read_text()
_DEPENDENCIES = re.search(r"^dependencies = \[(.*?)^\]", PYPROJECT, re.DOTALL | re.MULTILINE)[1]
DEPENDENCIES = {text.name: text for text in map(Requirement, re.findall(r'"(.+?)"', _DEPENDENCIES))}


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(problem=f"{twice} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def load_all(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file; none may be empty."""
    documents = list(yaml.load_all(path.read_text(), _Loader))
    assert documents, path
    assert all(isinstance(document, dict) for document in documents), path
    return documents


def load(path: Path) -> dict[str, Any]:
    """The one document of a YAML file."""
    (document,) = load_all(path)
    return document


def compose_service(name: str) -> dict[str, Any]:
    return load(DEPLOY / "compose" / f"{name}.yaml")["services"]["model-server"]


def instructions() -> Iterator[tuple[str, str]]:
    """(instruction, what follows it) of the Dockerfile, each in one line."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    for line in text.replace("\\\n", "").splitlines():
        if line:
            instruction, _, rest = line.partition(" ")
            yield instruction, rest.strip()


def instruction(name: str) -> str:
    """What follows the only instruction of that name."""
    (found,) = [rest for candidate, rest in instructions() if candidate == name]
    return found


def words(value: str) -> list[str]:
    """The command that an instruction gives in JSON, behind its options."""
    return json.loads(value[value.index("[") :])


def values(flags: list[str]) -> dict[str, str]:
    """The flags of a command line, all of the form --name=value, by name."""
    pairs = [re.fullmatch(r"--(\w+)=(.+)", flag) for flag in flags]
    assert all(pairs), flags
    named = {pair[1]: pair[2] for pair in pairs if pair}
    assert len(named) == len(flags), flags
    return named
