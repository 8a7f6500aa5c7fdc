"""What a task's and a kind's models start from, where neither a preset nor a flag says otherwise.

Meant for a few thousand examples; where not given here, the defaults are those of Config.
"""

from __future__ import annotations

from typing import Any

_OF_TEXTS: dict[str, Any] = {
    "tokenizer": "words",
    "units": 100,
    "embedding_size": 100,
    "bidirectional": True,
    "dropout": 0.5,
    "batch_size": 32,
}

TASK_DEFAULTS: dict[str, dict[str, Any]] = {
    "classification": {**_OF_TEXTS, "epochs": 5},
    "reading": {**_OF_TEXTS, "units": 64, "embedding_size": 64, "dropout": 0.2},
    "translation": {
        **_OF_TEXTS,
        "tokenizer": "subwords",
        "vocabulary_size": 4000,
        "units": 256,
        "embedding_size": 256,
        "dropout": 0.3,
        "batch_size": 64,
    },
    "tagging": {**_OF_TEXTS, "character_units": 32, "epochs": 10},
}

MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "snm": {"epochs": 2, "learning_rate": 0.1},
}
