"""Flags for every field of a training run's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl import flags

from training.config import Config, make_config
from training.presets import PRESETS

DATA_FIELDS = (
    *("dataset", "data_dir", "train_path", "validation_path", "test_path"),
    *("validation_fraction", "test_fraction"),
    *("text_mode", "text_column", "label_column", "translation_column", "context_column"),
    *("question_column", "answer_column", "token_column", "tag_column"),
    *("seed", "batch_size", "evaluation_batch_size"),
)


def define_flags() -> None:
    """Define --preset and a flag for each field of Config."""
    flags.DEFINE_string("preset", None, f"A published recipe, setting what follows: {', '.join(PRESETS)}.")
    for field in dataclasses.fields(Config):
        _define_flag(field, field.default)


def define_data_flags() -> None:
    """Define flags for the fields that say what data to read, by default what the model was trained on."""
    for field in dataclasses.fields(Config):
        if field.name in DATA_FIELDS:
            _define_flag(field, None)


def _define_flag(field: dataclasses.Field, default: Any) -> None:
    help_text, choices = field.metadata["help"], field.metadata["choices"]
    if choices:
        flags.DEFINE_enum(field.name, default, choices, help_text)
    elif field.type == "bool":
        flags.DEFINE_bool(field.name, default, help_text)
    else:
        define: dict[str, Any] = {
            "int": flags.DEFINE_integer,
            "float": flags.DEFINE_float,
            "str": flags.DEFINE_string,
        }
        define[str(field.type)](field.name, default, help_text)


def config_from_flags(values: flags.FlagValues = flags.FLAGS) -> Config:
    """What the preset and the flags that were given make of the defaults; see `make_config`."""
    return make_config(
        values["preset"].value,
        {
            field.name: values[field.name].value
            for field in dataclasses.fields(Config)
            if values[field.name].present
        },
    )
