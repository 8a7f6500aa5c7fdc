"""The .proto file of our own service, for clients in other languages, says what the server does."""

import re
from pathlib import Path

import tensorflow as tf
from google.protobuf import descriptor_pb2

from serving import generation, generation_calls
from serving.calls import model_spec

FILE = Path(generation.__file__).with_name("generation_service.proto")
STATEMENTS = {
    "syntax": r'syntax = "(\w+)";',
    "package": r"package ([\w.]+);",
    "dependency": r'import "([\w/.]+)";',
    "service": r"service (\w+) \{(.*?)\}",
}
RPC = r"rpc (\w+)\((stream )?([\w.]+)\) returns \((stream )?([\w.]+)\);"
ROW = re.compile(r"^  //   (\w+) +(string|int32|float|bool) \[([\w, ]+)\] ", re.MULTILINE)


def described():
    """The descriptor of the file: all that is not comments has to be understood."""
    source = re.sub(r"//.*", "", FILE.read_text())
    found = {name: re.search(pattern, source, re.DOTALL) for name, pattern in STATEMENTS.items()}
    rest = re.sub("|".join(STATEMENTS.values()), "", source, flags=re.DOTALL)
    assert rest.split() == []
    syntax, package, dependency = (found[name][1] for name in ("syntax", "package", "dependency"))
    file = descriptor_pb2.FileDescriptorProto(syntax=syntax, package=package, dependency=[dependency])
    service = file.service.add(name=found["service"][1])
    name, takes_stream, takes, gives_stream, gives = re.fullmatch(RPC, found["service"][2].strip()).groups()
    method = service.method.add(name=name, input_type=f".{takes}", output_type=f".{gives}")
    if takes_stream:
        method.client_streaming = True
    if gives_stream:
        method.server_streaming = True
    return file


def test_it_describes_the_service_in_use():
    in_use = descriptor_pb2.FileDescriptorProto()
    generation.SERVICE.file.CopyToProto(in_use)
    in_use.ClearField("name")
    assert described() == in_use


def tables():
    """Of the inputs and of the outputs in the comments: dtype and sizes by name."""
    rows = {name: (dtype, sizes.split(", ")) for name, dtype, sizes in ROW.findall(FILE.read_text())}
    inputs = {name: row for name, row in rows.items() if row[1][0] == "1"}
    return inputs, {name: row for name, row in rows.items() if name not in inputs}


def as_row(proto, n=""):
    sizes = [str(dim.size) for dim in proto.tensor_shape.dim]
    return tf.dtypes.as_dtype(proto.dtype).name.replace("float32", "float"), [n or sizes[0], *sizes[1:]]


def test_inputs_are_those_that_clients_send():
    options = {"max_new_tokens": 1, "temperature": 1.0, "top_k": 1, "top_p": 1.0, "seed": 1}
    call = generation_calls.stream(model_spec("model"), "", **options, tokens_per_message=1)
    assert {alias: as_row(proto) for alias, proto in call.request.inputs.items()} == tables()[0]


def test_outputs_are_those_that_the_server_gives(language):
    call = generation_calls.stream(model_spec("model"), "Say", max_new_tokens=3, tokens_per_message=3)
    method = language.channel.unary_stream(
        call.rpc.path,
        request_serializer=type(call.request).SerializeToString,
        response_deserializer=call.rpc.response.FromString,
    )
    (response,) = method(call.request)
    assert response.outputs["token"].tensor_shape.dim[0].size == 3
    assert {alias: as_row(proto, "n") for alias, proto in response.outputs.items()} == tables()[1]
