"""Imports run one way: training -> zoo, serving.export -> zoo, and down the layers inside zoo."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("zoo", "training", "serving")

# Lowest first: a module imports from its own layer and those below.
LAYERS = [
    ["zoo.linear_scan"],
    ["zoo.cells"],
    ["zoo.time_loop", "zoo.recomputation"],
    ["zoo.recurrence", "zoo.skips"],
    ["zoo.named_states"],
    [
        "zoo.embedding",
        "zoo.character_cnn",
        "zoo.heads",
        "zoo.pooling",
        "zoo.wrappers",
        "zoo.convert",
        "zoo.decoding",
        "zoo.beam_search",
        "zoo.attention",
        "zoo.neural_cache",
    ],
    ["zoo.spans", "zoo.vocabulary", "zoo.cutting", "zoo.ngram", "zoo.snm"],
    ["zoo.crf", "zoo.text", "zoo.metrics", "zoo.text_metrics"],
    ["zoo.labelling"],
    ["zoo.models"],
    ["zoo.model_directory"],
    ["zoo.encoder"],
]


def modules(package: str) -> dict[str, Path]:
    """Module names and files of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str, package: str) -> Iterator[str]:
    """Full names of what source in a package imports, inside functions and for type checking too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imports(package: str) -> Iterator[tuple[str, str]]:
    """(module, what it imports of our own) of all modules of a package."""
    for module, path in modules(package).items():
        inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name in imported(path.read_text(), inside):
            if name.split(".")[0] in PACKAGES:
                yield module, name


def is_part(name: str, of: str) -> bool:
    return name == of or name.startswith(of + ".")


def layer(name: str) -> int | None:
    return next((n for n, parts in enumerate(LAYERS) if any(is_part(name, part) for part in parts)), None)


def test_zoo_imports_neither_training_nor_serving():
    assert [pair for pair in imports("zoo") if not is_part(pair[1], "zoo")] == []


def test_serving_imports_nothing_but_the_zoo_for_exports():
    foreign = [pair for pair in imports("serving") if not is_part(pair[1], "serving")]
    assert [(module, name) for module, name in foreign if module != "serving.export"] == []
    assert [(module, name) for module, name in foreign if not is_part(name, "zoo")] == []


def test_training_imports_of_serving_only_what_programs_share():
    foreign = [pair for pair in imports("training") if is_part(pair[1], "serving")]
    shared = ("serving.program",)
    assert [
        (module, name) for module, name in foreign if not any(is_part(name, part) for part in shared)
    ] == []


def test_every_module_of_the_zoo_has_a_layer():
    assert [module for module in modules("zoo") if module != "zoo" and layer(module) is None] == []


def test_layers_of_the_zoo_import_downwards():
    upwards = [
        (module, name)
        for module, name in imports("zoo")
        if is_part(name, "zoo") and layer(name) is not None and layer(name) > layer(module)
    ]
    assert upwards == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import zoo.cells, os", ["zoo.cells", "os"]),
        ("from zoo import cells as c", ["zoo.cells"]),
        ("def f():\n    from training.loop import Trainer", ["training.loop.Trainer"]),
        ("if TYPE_CHECKING:\n    from zoo.models import base", ["zoo.models.base"]),
        ("from . import rpc", ["serving.rpc"]),
        ("from ..zoo import cells", ["zoo.cells"]),
        ("from .rpc import invalid", ["serving.rpc.invalid"]),
    ],
)
def test_imports_are_found(source, names):
    assert list(imported(source, "serving")) == names
