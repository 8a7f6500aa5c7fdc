"""Descriptors of messages that no package brings along, in a short notation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

_SCALARS = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "int32", "int64", "string", "uint32", "uint64")
}


def add_message(messages: Any, name: str, fields: str) -> descriptor_pb2.DescriptorProto:
    """Adds a message to the `message_type` of a file, or the `nested_type` of a message.

    Fields are written NAME:TYPE=NUMBER, TYPE a scalar or the full name of a message; those that repeat TYPE*,
    maps from strings map(TYPE), and enumerations enum(TYPE).
    """
    message = messages.add(name=name)
    for field in fields.split():
        field_name, rest = field.split(":")
        kind, number = rest.split("=")
        _add_field(message, field_name, kind, int(number))
    return message


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, kind: str, number: int) -> None:
    field = message.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    kind, _, argument = kind.rstrip(")").partition("(")
    if kind.endswith("*") or kind == "map":
        field.label = FieldDescriptorProto.LABEL_REPEATED
        kind = kind.rstrip("*")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind == "enum":
        field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, f".{argument}"
    elif kind == "map":
        entry = "".join(map(str.capitalize, name.split("_"))) + "Entry"
        add_message(message.nested_type, entry, f"key:string=1 value:{argument}=2").options.map_entry = True
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, entry
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{kind}"


def add_enum(enums: Any, name: str, values: Mapping[str, int]) -> None:
    """Adds an enumeration to the `enum_type` of a file or a message."""
    enum = enums.add(name=name)
    for value, number in values.items():
        enum.value.add(name=value, number=number)


def pool(files: Iterable[Any]) -> descriptor_pool.DescriptorPool:
    """A pool of files, given their descriptors, and of those that they depend on."""
    collected = descriptor_pool.DescriptorPool()
    for file in files:
        _add_file(collected, file)
    return collected


def _add_file(collected: descriptor_pool.DescriptorPool, file: Any) -> None:
    for dependency in file.dependencies:
        _add_file(collected, dependency)
    collected.AddSerializedFile(file.serialized_pb)
