"""Malformed requests against a running zoo-serve: it stays up, and says whose fault they are.

    python benchmarks/fuzz_server.py --model_base_path=BASE [--cases=50000] [--seed=1]

Requests of every RPC, and JSON bodies for every endpoint, with values changed for others (of the wrong type,
too large, nested deeply, not Unicode), with bytes cut out, doubled or made up, or sent where they do not
belong.
Fails if an answer is INTERNAL, UNKNOWN or 500, or if a good request is not answered after them.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from absl import app, flags

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))  # before this folder, which has a serving.py

from serving.calls import predict_request, row
from serving.client import Client
from serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

MODEL = "fuzzed"
SPEC = {"name": MODEL}
EXAMPLES = {
    "example_list": {"examples": [{"features": {"feature": {"text": {"bytes_list": {"value": [b"a"]}}}}}]}
}
PREDICTION, MANAGEMENT, GENERATION = (
    "/tensorflow.serving.PredictionService/",
    "/tensorflow.serving.ModelService/",
    "/rnn_zoo.serving.GenerationService/",
)
NUMBERS = (0, 1, -1, 2, 7, 255, 2**31 - 1, -(2**31), 2**62)
PIECES = (b"\x0a", b"\x12\x06fuzzed", b"\xff\xff\xff\xff\x0f", b"\x08\x07", b"text", b"prompt")
WORDS = (b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"-1", b"1e999", b"NaN", b"\\ud800", b"\xff")
DOCUMENTS = {
    f"/v1/models/{MODEL}:predict": [
        {"instances": [{"prompt": "a"}, {"prompt": "b"}]},
        {"instances": ["a", {"b64": "YQ=="}]},
        {"signature_name": "score", "inputs": {"text": ["a", "b"]}},
        {"signature_name": "step", "inputs": {"state": [[0.5, 1e3]]}},
    ],
    f"/v1/models/{MODEL}:classify": [{"examples": [{"text": "a", "x": [1, 2.5]}], "context": {"y": 1}}],
    f"/v1/models/{MODEL}:regress": [{"examples": [{"text": {"b64": "YQ=="}}]}],
    f"/v1/models/{MODEL}:generate": [
        {"prompt": "a", "max_new_tokens": 2, "temperature": 0.5, "seed": [1, 2], "tokens_per_message": 2}
    ],
    "/v1/completions": [
        {"model": MODEL, "prompt": ["a"], "max_tokens": 2, "stop": ["x"], "stream": True, "n": 2},
        {"model": MODEL, "prompt": "a", "max_tokens": 3, "logprobs": 1, "seed": 5, "top_p": 0.9},
    ],
}


def requests() -> list[tuple[str, Any]]:
    """Good requests, and their methods."""
    spec = predict_pb2.PredictRequest(model_spec=SPEC).model_spec
    predictions = {
        "score": {"text": row("what")},
        "generate": {"prompt": row("a")},
        "": {"prompt": row("a")},
    }
    all_predictions = [predict_request(spec, name, inputs) for name, inputs in predictions.items()]
    all_predictions[0].output_filter.append("perplexity")
    tasks = [
        {"model_spec": SPEC, "method_name": f"tensorflow/serving/{kind}"} for kind in ("classify", "regress")
    ]
    config = {"name": MODEL, "base_path": "/nowhere", "model_platform": "tensorflow"}
    return [
        *((PREDICTION + "Predict", request) for request in all_predictions),
        (GENERATION + "Generate", all_predictions[1]),
        (
            PREDICTION + "Classify",
            classification_pb2.ClassificationRequest(model_spec=SPEC, input=EXAMPLES),
        ),
        (PREDICTION + "Regress", regression_pb2.RegressionRequest(model_spec=SPEC, input=EXAMPLES)),
        (PREDICTION + "MultiInference", inference_pb2.MultiInferenceRequest(tasks=tasks, input=EXAMPLES)),
        (
            PREDICTION + "GetModelMetadata",
            get_model_metadata_pb2.GetModelMetadataRequest(model_spec=SPEC, metadata_field=["signature_def"]),
        ),
        (MANAGEMENT + "GetModelStatus", get_model_status_pb2.GetModelStatusRequest(model_spec=SPEC)),
        (
            MANAGEMENT + "HandleReloadConfigRequest",
            model_management_pb2.ReloadConfigRequest(config={"model_config_list": {"config": [config]}}),
        ),
    ]


class Chance(random.Random):
    """Makes good requests bad."""

    def bytes_of(self, whole: bytes, pieces: Sequence[bytes]) -> bytes:
        """Some bytes changed, cut out, doubled, or replaced by pieces that mean something."""
        body = bytearray(whole)
        for _ in range(self.randint(1, 3)):
            at = self.randrange(len(body) + 1)
            kind = self.randrange(5)
            if kind == 0 and body:
                body[min(at, len(body) - 1)] = self.randrange(256)
            elif kind == 1:
                del body[at : at + self.randint(1, 8)]
            elif kind == 2:
                body[at:at] = self.choice(pieces)
            elif kind == 3:
                body[at:at] = body[at : at + self.randint(1, 16)]
            else:
                body[at:at] = self.randbytes(self.randint(1, 8))
        return bytes(body)

    def message(self, message: Any) -> None:
        """Another value in one field of a message, or of one within it."""
        fields = message.DESCRIPTOR.fields
        if not fields:
            return
        present = [field for field, _ in message.ListFields()]
        field = self.choice(present if present and self.random() < 0.7 else fields)
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key = self.choice(["", "text", "prompt", "inputs", *value]) if hasattr(value, "__iter__") else ""
            with contextlib.suppress(TypeError, AttributeError, ValueError):  # keys or values of another type
                self.message(value[key])
        elif field.message_type is not None:
            inner = value if not field.is_repeated else self.choice(value) if value else value.add()
            inner.SetInParent()
            self.message(inner)
        elif field.is_repeated:
            value.extend([self.scalar(field)] * self.choice([1, 1, 2, 100]))
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: Any) -> Any:
        """A value of a field's type."""
        if field.cpp_type == field.CPPTYPE_STRING:
            text = self.choice(
                ["", "step", "score", "start", "a" * 5000, "\0", "é😀", "../../etc/passwd", "-1"]
            )
            return text.encode() if field.type == field.TYPE_BYTES else text
        if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            return self.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
        if field.cpp_type == field.CPPTYPE_BOOL:
            return self.random() < 0.5
        if field.cpp_type == field.CPPTYPE_ENUM:
            return self.choice(field.enum_type.values).number
        low, high = (0, 2**31 - 1) if "UINT" in _cpp_type(field) else (-(2**31), 2**31 - 1)
        if "64" in _cpp_type(field):
            low, high = low * 2**32, high * 2**32
        return min(max(self.choice(NUMBERS), low), high)

    def json(self, value: Any) -> Any:
        """The same document with one value changed for another."""
        if value and self.random() < 0.8:
            if isinstance(value, dict):
                key = self.choice(list(value))
                renamed = self.choice([key] * 6 + ["", "signature_name", "prompt", "b64", "\ud800"])
                return {**{k: v for k, v in value.items() if k != key}, renamed: self.json(value[key])}
            if isinstance(value, list):
                at = self.randrange(len(value))
                return [*value[:at], self.json(value[at]), *value[at + 1 :]]
        deep: Any = 1
        for _ in range(self.choice([1, 30, 800]) if self.random() < 0.1 else 1):
            deep = [deep]
        values = [
            None,
            True,
            "",
            "b",
            "\ud800",
            "\0",
            {},
            [],
            [[1, 2], [3]],
            {"b64": "?"},
            {"b64": "//8="},
            deep,
        ]
        return self.choice(
            [*values, *NUMBERS, 0.5, -1e300, float("nan"), float("-inf"), "a" * 5000, [value] * 40]
        )


def _cpp_type(field: Any) -> str:
    names = {getattr(type(field), name): name for name in dir(type(field)) if name.startswith("CPPTYPE_")}
    return names[field.cpp_type]


def over_grpc(channel: grpc.Channel, cases: int, chance: Chance) -> collections.Counter:
    """How many answers of each code; the offending bodies are printed."""
    codes: collections.Counter = collections.Counter()
    good = requests()
    calls: dict[str, Callable[..., Any]] = {
        method: (channel.unary_stream if method.startswith(GENERATION) else channel.unary_unary)(method)
        for method, _ in good
    }
    for _ in range(cases):
        method, request = chance.choice(good)
        if chance.random() < 0.1:
            method = chance.choice(list(calls))
        if chance.random() < 0.6:
            request = type(request).FromString(request.SerializeToString())
            chance.message(request)
            body = request.SerializeToString()
        else:
            body = chance.bytes_of(request.SerializeToString(), PIECES)
        code = grpc.StatusCode.OK
        try:
            answer = calls[method](body, timeout=60)
            if method.startswith(GENERATION):
                list(answer)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                print(f"{code.name} {error.details()}: {method} {body!r}", flush=True)
        codes[code.name] += 1
    return codes


def over_http(port: int, cases: int, chance: Chance) -> collections.Counter:
    """The same for HTTP."""
    codes: collections.Counter = collections.Counter()
    good = [(path, document) for path, documents in DOCUMENTS.items() for document in documents]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(cases):
        path, document = chance.choice(good)
        if chance.random() < 0.1:
            path = chance.choice(list(DOCUMENTS))
        if chance.random() < 0.6:
            body = json.dumps(chance.json(document)).encode()
        else:
            body = chance.bytes_of(json.dumps(document).encode(), WORDS)
        connection.request("POST", path, body)
        response = connection.getresponse()
        content = response.read()
        if response.status == 500:
            print(f"500 {content!r}: {path} {body!r}", flush=True)
        codes[str(response.status)] += 1
        if response.getheader("connection") == "close":
            connection.close()
    return codes


@contextlib.contextmanager
def served(base_path: str) -> Iterator[tuple[subprocess.Popen, int, int]]:
    """A server, and its ports of gRPC and HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        http_port = free.getsockname()[1]
    arguments = ["--port=0", f"--rest_api_port={http_port}", "--max_stream_tokens=64", "--enable_batching"]
    arguments += [f"--model_name={MODEL}", f"--model_base_path={base_path}"]
    code = "from serving import program; program.zoo_serve()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server, json.loads(server.stdout.readline())["port"], http_port
        finally:
            server.terminate()


def main(_: Sequence[str]) -> None:
    values = flags.FLAGS
    chance, half = Chance(values.seed), values.cases // 2
    with served(values.model_base_path) as (server, port, http_port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            codes = over_grpc(channel, half, chance)
        codes += over_http(http_port, values.cases - half, chance)
        with Client(f"127.0.0.1:{port}", MODEL) as client:
            assert client.score("what").perplexity > 1
        assert server.poll() is None
    counts = dict(sorted(codes.items()))
    print(
        json.dumps(
            {"seed": values.seed, "cases": sum(codes.values()), "codes": counts, "exit": server.returncode}
        )
    )
    if codes["INTERNAL"] or codes["UNKNOWN"] or codes["500"] or server.returncode:
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("model_base_path", None, "Of an exported language model.", required=True)
    flags.DEFINE_integer("cases", 50_000, "Half over gRPC, half over HTTP.", lower_bound=2)
    flags.DEFINE_integer("seed", 1, "Of the mutations.")
    app.run(main)
