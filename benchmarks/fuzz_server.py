"""Malformed requests against a running zoo-serve: it stays up, and says whose fault they are.

    python benchmarks/fuzz_server.py --model_base_path=BASE [--cases=50000] [--seed=1]

Mutated PredictRequests over gRPC, to every method, and mutated JSON bodies over HTTP, to every endpoint.
Fails if an answer is INTERNAL, UNKNOWN or 500, or if a good request is not answered after them.
"""

from __future__ import annotations

import collections
import http.client
import json
import random
import subprocess
import sys
from collections.abc import Sequence

import grpc
from absl import app, flags

from serving.calls import predict_request, row
from serving.client import Client
from serving.messages import predict_pb2

METHODS = [
    *(f"/tensorflow.serving.PredictionService/{name}" for name in ("Predict", "Classify", "Regress")),
    "/tensorflow.serving.PredictionService/MultiInference",
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    "/rnn_zoo.serving.GenerationService/Generate",
]
PATHS = [f"/v1/models/fuzzed{verb}" for verb in (":predict", ":classify", ":regress", ":generate")]
PATHS += ["/v1/completions"]
OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
WORDS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"\xff",
]


def mutated(whole: bytes, pieces: Sequence[bytes], chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or replaced by pieces that mean something."""
    body = bytearray(whole)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(body) + 1)
        kind = chance.randrange(5)
        if kind == 0 and body:
            body[min(at, len(body) - 1)] = chance.randrange(256)
        elif kind == 1:
            del body[at : at + chance.randint(1, 8)]
        elif kind == 2:
            body[at:at] = chance.choice(pieces)
        elif kind == 3:
            body[at:at] = body[at : at + chance.randint(1, 16)]
        else:
            body[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(body)


def seeds_of_json() -> list[bytes]:
    documents = [
        {"instances": [{"prompt": "a"}]},
        {"signature_name": "score", "inputs": {"text": ["a", "b"]}},
        {"signature_name": "step", "inputs": {"state": [[0.5, 1e3]]}},
        {"examples": [{"text": "a", "x": [1, 2.5]}], "context": {"y": 1}},
        {"prompt": "a", "max_new_tokens": 2, "temperature": 0.5, "seed": [1, 2], "tokens_per_message": 2},
        {"model": "fuzzed", "prompt": ["a"], "max_tokens": 2, "stop": ["x"], "stream": True},
    ]
    return [json.dumps(document).encode() for document in documents]


def seeds_of_protos() -> list[bytes]:
    text, prompt = row("what"), row("a")
    requests = [
        predict_request(predict_pb2.PredictRequest(model_spec={"name": "fuzzed"}).model_spec, name, inputs)
        for name, inputs in (
            ("score", {"text": text}),
            ("generate", {"prompt": prompt}),
            ("", {"prompt": prompt}),
        )
    ]
    requests[0].output_filter.append("perplexity")
    return [request.SerializeToString() for request in requests]


def over_grpc(channel: grpc.Channel, cases: int, chance: random.Random) -> collections.Counter:
    """How many answers of each code; the offending bodies are printed."""
    codes: collections.Counter = collections.Counter()
    seeds = seeds_of_protos()
    pieces = [b"\x0a", b"\x12\x06fuzzed", b"\xff\xff\xff\xff\x0f", b"\x08\x07", b"text", b"prompt"]
    calls = {
        method: (channel.unary_stream if method.endswith("/Generate") else channel.unary_unary)(method)
        for method in METHODS
    }
    for _ in range(cases):
        method, body = chance.choice(METHODS), mutated(chance.choice(seeds), pieces, chance)
        try:
            answer = calls[method](body, timeout=60)
            if method.endswith("/Generate"):
                list(answer)
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
            if code in OURS:
                print(f"{code.name} {error.details()}: {method} {body!r}", flush=True)
        codes[code.name] += 1
    return codes


def over_http(port: int, cases: int, chance: random.Random) -> collections.Counter:
    codes: collections.Counter = collections.Counter()
    seeds = seeds_of_json()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(cases):
        path, body = chance.choice(PATHS), mutated(chance.choice(seeds), WORDS, chance)
        connection.request("POST", path, body)
        response = connection.getresponse()
        content = response.read()
        if response.status == 500:
            print(f"500 {content!r}: {path} {body!r}", flush=True)
        codes[str(response.status)] += 1
        if response.getheader("connection") == "close":
            connection.close()
    return codes


def main(_: Sequence[str]) -> None:
    values = flags.FLAGS
    arguments = ["--port=0", f"--rest_api_port={values.rest_api_port}", "--max_stream_tokens=64"]
    arguments += ["--model_name=fuzzed", f"--model_base_path={values.model_base_path}", "--enable_batching"]
    code = "from serving import program; program.zoo_serve()"
    server = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        chance, half = random.Random(values.seed), values.cases // 2
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            codes = over_grpc(channel, half, chance)
        codes += over_http(values.rest_api_port, values.cases - half, chance)
        with Client(f"127.0.0.1:{port}", "fuzzed") as client:
            print("afterwards:", client.score("what").perplexity)
        assert server.poll() is None
    finally:
        server.terminate()
        ended = server.wait()
    print(
        f"seed {values.seed}, {sum(codes.values())} cases: {dict(sorted(codes.items()))}; exit code {ended}"
    )
    if codes["INTERNAL"] or codes["UNKNOWN"] or codes["500"] or ended:
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("model_base_path", None, "Of an exported language model.", required=True)
    flags.DEFINE_integer("cases", 50_000, "Half over gRPC, half over HTTP.", lower_bound=2)
    flags.DEFINE_integer("seed", 1, "Of the mutations.")
    flags.DEFINE_integer("rest_api_port", 18501, "Port of HTTP for the time.")
    app.run(main)
