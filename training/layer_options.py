"""Options of a layer in one flag: what a cell, input or output layer takes that is no flag of its own."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from serving.program import UserError
from zoo.cells import Cell
from zoo.character_cnn import CharacterCNN
from zoo.heads import OutputLayer

LAYER_OPTIONS = ("cell_options", "input_options", "output_options")


def parse_options(flag: str, text: str) -> dict[str, Any]:
    """ "activation=tanh,forget_bias=0" -> {"activation": "tanh", "forget_bias": 0.0}."""
    options: dict[str, Any] = {}
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"--{flag}={text}: expected NAME=VALUE[,NAME=VALUE...]")
        try:
            options[name] = float(value)
        except ValueError:
            options[name] = {"true": True, "false": False}.get(value.lower(), value)
    return options


def check_options(flag: str, text: str, layer: type[keras.layers.Layer]) -> None:
    """Raises UserError where the flag's text names what the layer does not take, or not of this type."""
    known = _options(layer)
    for name, value in parse_options(flag, text).items():
        said = f"--{flag}={name}={value}"
        if name not in known:
            raise UserError(f"{said}: {layer.__name__} has {', '.join(sorted(known)) or 'no options'}")
        kind, is_number = known[name].split(" ")[0], isinstance(value, float)
        if kind == "bool" and not isinstance(value, bool):
            raise UserError(f"{said}: must be true or false")
        if kind == "float" and not is_number:
            raise UserError(f"{said}: must be a number")
        if kind == "int" and not (is_number and value.is_integer()):
            raise UserError(f"{said}: must be a whole number")


def _options(layer: type[keras.layers.Layer]) -> dict[str, str]:
    """What the class and its base classes take beside what all do, and the types they say it has."""
    own = {"tied_to", "initializer"}  # of every input and output layer; the model gives these
    return {
        name: str(parameter.annotation)
        for kind in layer.__mro__
        if issubclass(kind, Cell | OutputLayer | CharacterCNN)
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is not parameter.empty and name not in own
    }
