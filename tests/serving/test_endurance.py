"""zoo-serve as a process under load: versions swap, files break, signals come, and no request is lost."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.messages import predict_pb2, prediction_service_pb2_grpc

pytestmark = pytest.mark.slow

DEADLINE = 60
CALLERS = 32
SECONDS = 60  # of load
SWAP_SECONDS = 5


def config_text(base_path, *names):
    """A ModelServerConfig of models that all have one base path."""
    models = "".join(
        f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" }}\n'
        for name in names
    )
    return f"model_config_list {{\n{models}}}\n"


@pytest.fixture
def started(program_command):
    """Starts zoo-serve; process and port."""
    processes = []

    def start(*arguments, port=0):
        command = program_command(
            "serving.server", f"--port={port}", "--file_system_poll_wait_seconds=1", *arguments
        )
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        processes.append(process)
        return process, json.loads(process.stdout.readline())["port"]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def predict_request(model="model", signature="", **inputs):
    request = predict_pb2.PredictRequest(model_spec={"name": model, "signature_name": signature})
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


class Load:
    """Callers that ask without pause, one request after the other, until told to stop."""

    def __init__(self, port, bias):
        self.answers, self.failures, self.versions = 0, [], set()
        self._bias, self._stop = bias, threading.Event()
        self._channels = [
            grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(4)
        ]
        self._threads = [
            threading.Thread(target=self._call, args=(self._channels[index % 4], index))
            for index in range(CALLERS)
        ]

    def _call(self, channel, index):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        x = np.arange(1 + index % 5, dtype=np.float32)
        request = predict_request(x=x)
        while not self._stop.is_set():
            try:
                response = stub.Predict(request, timeout=DEADLINE)
            except grpc.RpcError as error:
                self.failures.append((error.code(), error.details()))
                continue
            version = response.model_spec.version.value
            y = tf.make_ndarray(response.outputs["y"])
            if not np.array_equal(y, 2 * x + self._bias(version)):
                self.failures.append((version, y))
            self.versions.add(version)
            self.answers += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        for channel in self._channels:
            channel.close()


def test_nothing_is_lost_under_load(started, publish, exports, tmp_path, eventually):
    """Versions swap every few seconds, one is corrupt, and the configuration changes and breaks."""
    base_path, config = tmp_path / "base", tmp_path / "models.config"
    kinds = ("second", "first")  # bias 2 for even versions, 1 for odd
    publish(exports["first"], base_path, 1)
    config.write_text(config_text(base_path, "model"))
    _, port = started(
        f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1", "--enable_batching",
        "--max_num_load_retries=1", "--load_retry_interval_micros=1000000",
    )  # fmt: skip
    end = time.monotonic() + SECONDS
    with Load(port, lambda version: 2.0 - version % 2) as load:
        version = 1
        while time.monotonic() < end:
            time.sleep(SWAP_SECONDS)
            version += 1
            publish(exports["broken" if version == 5 else kinds[version % 2]], base_path, version)
            if version == 6:
                config.write_text(config_text(base_path, "model", "another"))
            if version == 8:
                config.write_text("no configuration {")
            if version == 10:
                config.write_text(config_text(base_path, "model"))
            if version > 3:
                shutil.rmtree(base_path / str(version - 3))
        eventually(lambda: version in load.versions)
    assert load.failures == []
    assert load.versions == set(range(1, version + 1)) - {5}
    assert load.answers > 1000


def test_memory_is_flat_over_swaps(started, publish, exports, tmp_path):
    base_path = tmp_path / "base"
    publish(exports["first"], base_path, 1)
    process, port = started("--model_name=model", f"--model_base_path={base_path}")

    def resident():
        with open(f"/proc/{process.pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        sizes = []
        for version in range(2, 72):
            publish(exports["second"], base_path, version)
            shutil.rmtree(base_path / str(version - 1))
            end = time.monotonic() + DEADLINE
            while stub.Predict(predict_request(x=[1.0])).model_spec.version.value != version:
                assert time.monotonic() < end
                time.sleep(0.01)
            sizes.append(resident())
    # The first swaps fill TensorFlow's pools; a model that stayed would be over half a megabyte.
    assert sizes[-1] - sizes[19] < 50 * 200_000, sizes


def test_sigterm_under_load_drops_nothing_that_was_accepted(started, publish, exports, tmp_path, eventually):
    base_path, go = tmp_path / "base", tmp_path / "go"
    publish(exports["first"], base_path, 1)
    process, port = started("--model_name=model", f"--model_base_path={base_path}", "--grpc_max_threads=64")
    with contextlib.ExitStack() as stack:
        channels = [
            stack.enter_context(
                grpc.insecure_channel(
                    f"127.0.0.1:{port}",
                    options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)],
                )
            )
            for _ in range(CALLERS)
        ]
        stubs = [prediction_service_pb2_grpc.PredictionServiceStub(channel) for channel in channels]
        waiting = [
            stub.Predict.future(predict_request(signature="wait", path=str(go)), timeout=DEADLINE)
            for stub in stubs
        ]
        for stub in stubs:  # answered on the same connections, so the others have been accepted
            stub.Predict(predict_request(x=[1.0]), timeout=DEADLINE)
        process.send_signal(signal.SIGTERM)

        def refuses():
            try:
                stubs[0].Predict(predict_request(x=[1.0]), timeout=DEADLINE)
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

        eventually(refuses)
        go.touch()
        assert [answer.result().outputs["bias"].float_val[0] for answer in waiting] == [1.0] * CALLERS
    assert process.wait(DEADLINE) == 0


def test_killed_and_started_again(started, publish, exports, tmp_path):
    base_path = tmp_path / "base"
    publish(exports["first"], base_path, 1)
    arguments = (
        "--model_name=model",
        f"--model_base_path={base_path}",
        f"--grpc_socket_path={tmp_path}/socket",
    )
    process, port = started(*arguments)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(DEADLINE)
    _, again = started(*arguments, port=port)
    assert again == port
    for address in (f"127.0.0.1:{port}", f"unix:{tmp_path}/socket"):
        with grpc.insecure_channel(address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            response = stub.Predict(predict_request(x=[1.0]), timeout=DEADLINE)
            assert response.outputs["y"].float_val[0] == 3.0
