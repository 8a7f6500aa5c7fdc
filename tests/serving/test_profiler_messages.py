"""The profiler's messages, as TensorFlow's libraries have them built in."""

import mmap
from pathlib import Path

import tensorflow as tf
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from serving import profiler_messages

TSL = "tsl/profiler/protobuf"


def embedded_file(name):
    """The description of a .proto file that TensorFlow's libraries have been built with."""
    head = b"\n" + bytes([len(name)]) + name.encode() + b"\x12"
    for library in Path(tf.sysconfig.get_lib()).glob("libtensorflow*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            if (start := mapped.find(head)) >= 0:
                return parsed_prefix(mapped[start : start + 10_000])
    raise AssertionError(f"{name} is not in {tf.sysconfig.get_lib()}")


def parsed_prefix(data):
    """A file's description ends with its syntax; what comes behind is something else."""
    end = data.index(b"b\x06proto3") + 8
    return descriptor_pb2.FileDescriptorProto.FromString(data[:end])


def fields_of(message, path=""):
    """(message, field) -> number, type, label, type's name, name of the oneof; of those nested as well."""
    path += message.name
    found = {}
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        type_name = field.type_name.rpartition(".")[2]
        found[path, field.name] = (field.number, field.type, field.label, type_name, oneof)
    for nested in message.nested_type:
        found |= fields_of(nested, f"{path}.")
    for enum in message.enum_type:
        found |= {(f"{path}.{enum.name}", value.name): value.number for value in enum.value}
    return found


def test_the_messages_are_those_of_tensorflow():
    names = ("profiler_service", "profiler_options", "profiler_service_monitor_result")
    files = [embedded_file(f"{TSL}/{name}.proto") for name in names]
    theirs = {}
    for file in files:
        for message in file.message_type:
            theirs |= fields_of(message)
    own_file = descriptor_pb2.FileDescriptorProto()
    profiler_messages.SERVICE.file.CopyToProto(own_file)
    ours = {}
    for message in own_file.message_type:
        ours |= fields_of(message)
    assert len(ours) > 60
    assert {key: theirs.get(key) for key in ours} == ours
    own_messages = {message.name for message in own_file.message_type}
    assert [key for key in theirs if key[0].partition(".")[0] in own_messages and key not in ours] == []
    methods = {method.name: method for method in files[0].service[0].method}
    for method in own_file.service[0].method:
        stock = methods[method.name]
        assert (method.input_type, method.output_type) == (stock.input_type, stock.output_type)


def test_a_trace_is_read_as_tensorflow_writes_it():
    """The messages inside a trace are bytes here."""
    for name in ("XSpace", "XPlane", "XLine"):
        theirs = getattr(xplane_pb2, name).DESCRIPTOR.fields_by_name
        for field in getattr(profiler_messages, name).DESCRIPTOR.fields:
            assert theirs[field.name].number == field.number
            inside = theirs[field.name].type == FieldDescriptorProto.TYPE_MESSAGE
            assert field.type == (FieldDescriptorProto.TYPE_BYTES if inside else theirs[field.name].type)
