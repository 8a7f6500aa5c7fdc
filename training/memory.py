"""Whether a vocabulary fits into memory, before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from serving.program import UserError
from zoo.models.word_weights import word_weights

# What an optimizer holds beside each weight.
SLOTS = {"sgd": 0, "sgdw": 0, "momentum": 1, "adagrad": 1, "adam": 2, "adamw": 2}
# Those that touch no more words than have a gradient.
SPARSE = ("sgd", "adagrad")
GIGABYTE = 1e9


def check_vocabulary(options: Mapping[str, Any], vocabulary_size: int) -> None:
    """Raise UserError where the layers of a language model's vocabulary need more memory than there is.

    Counted are weights, gradients and the optimizer's state of the embedding and of the output layer: all
    that grows with the vocabulary. What a GPU holds is not looked at.
    """
    available = None if tf.config.list_physical_devices("GPU") else available_memory()
    needed = needed_memory(options, vocabulary_size)
    if available is None or sum(needed.values()) <= available:
        return
    parts = " and ".join(f"{size / GIGABYTE:.1f} GB of the {name}" for name, size in needed.items() if size)
    total = sum(needed.values()) / GIGABYTE
    raise UserError(
        f"a vocabulary of {vocabulary_size:,} tokens takes {total:.1f} GB of memory: "
        f"weights, gradients and --optimizer={options['optimizer']}'s state, {parts}; "
        f"{available / GIGABYTE:.1f} GB are available: lower --vocabulary_size, --units or --embedding_size, "
        "or choose another --output_layer, such as adaptive, or --input_layer=character_cnn"
    )


def needed_memory(options: Mapping[str, Any], vocabulary_size: int) -> dict[str, int]:
    """Bytes by layer."""
    weights = word_weights(options, vocabulary_size)
    optimizer = options["optimizer"]
    copies = 1 + SLOTS[optimizer] + bool(options["average_weights_after"])
    bytes_each = 8 if options["precision"] == "float64" else 4

    def needed(count: int, is_sparse: bool) -> int:
        gradients = 0 if is_sparse and optimizer in SPARSE else 1
        return count * (copies + gradients) * bytes_each

    is_sparse = weights.output_is_sparse or not options["tie_embeddings"]
    return {
        "embedding": needed(weights.embedding, is_sparse),
        "output layer": needed(weights.output, weights.output_is_sparse),
    }


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the system, and the control groups of this process, have left; None where none says so."""
    return min([*_of_system(root), *_of_groups(root)], default=None)


def _of_system(root: Path) -> Iterator[int]:
    found = _table(root / "proc/meminfo").get("MemAvailable:")
    if found is not None:
        yield found * 1024


def _of_groups(root: Path) -> Iterator[int]:
    """What each group, and those that it is in, may take beyond what it has, file caches not counted."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            base, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = "sys/fs/cgroup/memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = root / base / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root / base):
                break
            limit, used = (_text(folder / name).strip() for name in names[:2])
            if limit.isdecimal() and used.isdecimal():
                cached = _table(folder / "memory.stat").get(names[2], 0)
                yield max(int(limit) - int(used) + cached, 0)


def _table(path: Path) -> dict[str, int]:
    """The first number of each line of a file, by the word before it."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
