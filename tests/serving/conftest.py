"""Small SavedModels made of plain TensorFlow ops, and servers that serve them in this process."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from contract import start as start_contract
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server_process import ServerProcess

from serving.messages import model_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc
from serving.options import ServerOptions
from serving.repository import LoadPolicy
from serving.saved_model import SavedModel
from serving.server import ModelServer

DEADLINE = 60.0  # seconds until a test gives up; nothing is expected to take that long
SPELLED = "déjà vu, encore".encode()  # what the fake language model says, byte by byte


TWICE = tf.constant([2.0])
SIX_TOKENS = tf.constant([6])
AS_TRAINED = tf.constant([1.0])
FRESH_SEED = tf.constant([[-1, -1]])


class Arithmetic(tf.Module):
    """y = scale * x + bias, of which only x must be given; and other signatures for odd cases."""

    def __init__(self, bias: float):
        super().__init__()
        self.bias = tf.Variable(bias)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.float32)])
    def scaled(self, x, scale=TWICE):
        return {"y": scale * x + self.bias, "x_again": x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def plain(self, x):
        return {"y": x + self.bias}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.string)])
    def number(self, text):
        return {"number": tf.strings.to_number(text), "text": text}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def wait(self, path):
        """Returns when a file appears."""

        def missing(_):
            return tf.equal(tf.size(tf.io.matching_files(path)), 0)

        turns = tf.while_loop(missing, lambda turn: [turn + 1], [tf.constant(0, tf.int64)])
        return {"bias": self.bias + 0.0 * tf.cast(turns[0], tf.float32)}


class FakeLanguageModel(tf.Module):
    """Says the same text always; with a seed, the seed itself. The state is the position in the text."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([None, 2], tf.int32),
        ]
    )
    def generate(
        self,
        prompt,
        max_new_tokens=SIX_TOKENS,
        temperature=AS_TRAINED,
        seed=FRESH_SEED,
    ):
        rows = tf.size(prompt)
        count = tf.broadcast_to(tf.minimum(max_new_tokens, len(SPELLED)), [rows])
        text = tf.strings.substr(tf.fill([rows], SPELLED), tf.zeros([rows], tf.int32), count)
        seeded = tf.broadcast_to(seed[:, 0] >= 0, [rows])
        return {
            "text": tf.where(seeded, tf.broadcast_to(_show_seed(seed), [rows]), text),
            "num_tokens": count,
            "log_prob": -tf.cast(count, tf.float32) * temperature,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def score(self, text):
        count = tf.strings.length(text)
        impossible = tf.strings.regex_full_match(text, "impossible")
        log_prob = tf.where(impossible, -float("inf"), -0.5 * tf.cast(count, tf.float32))
        perplexity = tf.exp(-log_prob / tf.cast(count, tf.float32))
        return {"log_prob": log_prob, "num_tokens": count, "perplexity": perplexity}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def start(self, prompt):
        return {"state": tf.zeros([tf.size(prompt), 1])}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.float32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([None, 2], tf.int32),
        ]
    )
    def step(self, state, temperature=AS_TRAINED, seed=FRESH_SEED):
        rows = tf.shape(state)[0]
        position = tf.cast(state[:, 0], tf.int32)
        token = tf.strings.substr(tf.fill([rows], SPELLED), position, tf.ones([rows], tf.int32))
        return {
            "token": tf.where(tf.broadcast_to(seed[:, 0] >= 0, [rows]), _show_seed(seed), token),
            "token_id": position,
            "log_prob": -tf.ones([rows]) * temperature,
            "done": position + 1 >= len(SPELLED),
            "state": state + 1.0,
        }


class EndlessLanguageModel(tf.Module):
    """Counts, and never comes to an end."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def start(self, prompt):
        return {"state": tf.zeros([tf.size(prompt), 1])}

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32)])
    def step(self, state):
        number = tf.cast(state[:, 0], tf.int32)
        return {
            "token": tf.as_string(number),
            "token_id": number,
            "log_prob": -state[:, 0],
            "done": number < 0,
            "state": state + 1.0,
        }


def _show_seed(seed: tf.Tensor) -> tf.Tensor:
    return tf.strings.reduce_join("<" + tf.strings.as_string(seed) + ">", axis=1)


def _save_arithmetic(path: Path, bias: float) -> None:
    module = Arithmetic(bias)
    signatures = {
        "serving_default": module.scaled,
        "plain": module.plain,
        "number": module.number,
        "wait": module.wait,
    }
    tf.saved_model.save(module, str(path), signatures=signatures)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of SavedModels: `first` and `second` differ in their bias (1 and 2); `language`;
    `endless`; `broken`."""
    folder = tmp_path_factory.mktemp("exports")
    _save_arithmetic(folder / "first", 1.0)
    _save_arithmetic(folder / "second", 2.0)
    module = FakeLanguageModel()
    signatures = {name: getattr(module, name) for name in ("generate", "score", "start", "step")}
    tf.saved_model.save(module, str(folder / "language"), signatures=signatures)
    endless = EndlessLanguageModel()
    signatures = {"start": endless.start, "step": endless.step}
    tf.saved_model.save(endless, str(folder / "endless"), signatures=signatures)
    (folder / "broken").mkdir()
    (folder / "broken" / "saved_model.pb").write_bytes(b"this is no SavedModel")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def publish() -> Callable[[Path, Path, int], Path]:
    """Puts a version below a base path the way exports do: written beside, moved in one rename."""

    def move_into_place(export: Path, base_path: Path, version: int) -> Path:
        base_path.mkdir(exist_ok=True)
        beside = base_path / f"being-written-{version}"
        shutil.copytree(export, beside)
        return beside.rename(base_path / str(version))

    return move_into_place


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Waits until a function returns something true, and returns that."""

    def wait(condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE
        while not (result := condition()):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)
        return result

    return wait


@dataclasses.dataclass
class RunningServer:
    """A server and stock stubs that talk to it over a socket."""

    server: ModelServer
    address: str
    channel: grpc.Channel

    def __post_init__(self) -> None:
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.management = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def predict(
        self, inputs: dict[str, Any], signature: str = "", **spec: Any
    ) -> predict_pb2.PredictResponse:
        request = predict_pb2.PredictRequest(model_spec=model_spec(signature_name=signature, **spec))
        for alias, value in inputs.items():
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
        return self.prediction.Predict(request, timeout=DEADLINE)

    def is_healthy(self, service: str = "") -> bool:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = self.health.Check(request, timeout=DEADLINE)
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def model_spec(name: str = "model", version: int | None = None, **fields: Any) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name, **fields)
    if version is not None:
        spec.version.value = version
    return spec


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., model_pb2.ModelSpec]:
    return model_spec


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers that look for versions every few hundredths of a second; stops them at the end."""
    running: list[RunningServer] = []

    def start(base_path: Path, **options: Any) -> RunningServer:
        policy = LoadPolicy(poll_seconds=0.02, max_retries=2, retry_seconds=0.05)
        given = {"policy": policy, "health_service": True, **options}
        server = ModelServer(ServerOptions("model", str(base_path), **given), SavedModel)
        server.repository.start()
        server.start()
        assert server.repository.wait_until_settled(DEADLINE)
        address = f"127.0.0.1:{server.port}"
        running.append(RunningServer(server, address, grpc.insecure_channel(address)))
        return running[-1]

    yield start
    for one in running:
        one.channel.close()
        one.server.stop(0)


@pytest.fixture(scope="session")
def arithmetic(serve, publish, exports, tmp_path_factory) -> RunningServer:
    """Version 3 of the arithmetic model, served."""
    base_path = tmp_path_factory.mktemp("arithmetic")
    publish(exports["first"], base_path, 3)
    return serve(base_path)


@pytest.fixture(scope="session")
def language(serve, publish, exports, tmp_path_factory) -> RunningServer:
    """Version 7 of the fake language model, served."""
    base_path = tmp_path_factory.mktemp("language")
    publish(exports["language"], base_path, 7)
    return serve(base_path)


@pytest.fixture(scope="session")
def program_command() -> Callable[..., list[str]]:
    """The command line of a program of the zoo, given its module."""

    def command(module: str, *arguments: str) -> list[str]:
        code = f"import {module}; {module}.run()"
        return [sys.executable, "-c", code, *arguments]

    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return command


@pytest.fixture(scope="session")
def contract(program_command, publish, exports, tmp_path_factory) -> Iterator[ServerProcess]:
    """zoo-serve as a process, with the models of tests/contract.py."""
    server = start_contract(program_command, tmp_path_factory.mktemp("contract"), publish, exports)
    try:
        assert server.announced
        yield server
    finally:
        server.stop()
