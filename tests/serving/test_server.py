"""The server as a whole: in this process where that will do, as a program where signals and output matter."""

import collections
import concurrent.futures
import json
import signal
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import program
from serving.messages import get_model_status_pb2, predict_pb2, prediction_service_pb2_grpc
from serving.options import ServerOptions
from serving.server import ModelServer

STATES = get_model_status_pb2.ModelVersionStatus
DEADLINE = 60


@pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
def test_health(arithmetic, service):
    assert arithmetic.is_healthy(service)


def test_health_of_an_unknown_service(arithmetic):
    with pytest.raises(grpc.RpcError) as raised:
        arithmetic.is_healthy("AnyService")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_follows_the_versions(serve, publish, exports, tmp_path, eventually):
    publish(exports["first"], tmp_path, 1)
    server = serve(tmp_path)
    assert server.is_healthy()
    (tmp_path / "1").rename(tmp_path / "gone")
    eventually(lambda: not server.is_healthy())
    (tmp_path / "gone").rename(tmp_path / "2")
    eventually(lambda: server.is_healthy("PredictionService"))


def states(server, make_spec):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=make_spec())
    versions = server.management.GetModelStatus(request).model_version_status
    return {version.version: version.state for version in versions}


def test_versions_swap_under_load(serve, publish, exports, tmp_path, make_spec, eventually):
    """Versions come, one of them broken, while callers ask; no call fails, each answer is of one version."""
    bias = {1: 1.0, 2: 2.0, 4: 1.0}  # version 3 is broken
    publish(exports["first"], tmp_path, 1)
    server = serve(tmp_path)
    stop, seen = threading.Event(), set()

    def call_until_stopped():
        while not stop.is_set():
            response = server.predict({"x": np.zeros(1, np.float32)})
            version = response.model_spec.version.value
            assert response.outputs["y"].float_val[0] == bias[version]
            seen.add(version)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(call_until_stopped) for _ in range(3)]
        try:
            eventually(lambda: 1 in seen)
            publish(exports["second"], tmp_path, 2)
            eventually(lambda: 2 in seen)
            publish(exports["broken"], tmp_path, 3)
            eventually(lambda: states(server, make_spec).get(3) == STATES.END)
            publish(exports["first"], tmp_path, 4)
            eventually(lambda: 4 in seen)
        finally:
            stop.set()
        for caller in callers:
            caller.result()
    ended = {1: STATES.END, 2: STATES.END, 3: STATES.END, 4: STATES.AVAILABLE}
    eventually(lambda: states(server, make_spec) == ended)


def test_an_answer_comes_from_the_version_that_began_it(
    serve, publish, exports, tmp_path, make_spec, eventually
):
    base_path, go = tmp_path / "base", tmp_path / "go"
    publish(exports["first"], base_path, 1)
    server = serve(base_path)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.predict, {"path": str(go)}, "wait")
        repository = server.server.repository
        eventually(lambda: repository._models["model"].versions[1].leases)
        publish(exports["second"], base_path, 2)
        eventually(lambda: states(server, make_spec) == {2: STATES.AVAILABLE, 1: STATES.UNLOADING})
        go.touch()
        response = answer.result()
    assert (response.model_spec.version.value, response.outputs["bias"].float_val[0]) == (1, 1.0)
    eventually(lambda: states(server, make_spec) == {2: STATES.AVAILABLE, 1: STATES.END})


def test_a_broken_version_says_why_in_the_status(serve, publish, exports, tmp_path, make_spec, eventually):
    publish(exports["first"], tmp_path, 1)
    server = serve(tmp_path)
    publish(exports["broken"], tmp_path, 2)
    eventually(lambda: states(server, make_spec) == {1: STATES.AVAILABLE, 2: STATES.END})
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=make_spec(version=2))
    (version,) = server.management.GetModelStatus(request).model_version_status
    assert version.status.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert "saved_model.pb" in version.status.error_message
    assert server.is_healthy()


def test_stopping_finishes_what_is_under_way(serve, publish, exports, tmp_path, eventually):
    base_path, go = tmp_path / "base", tmp_path / "go"
    publish(exports["first"], base_path, 1)
    running = serve(base_path)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answer = pool.submit(running.predict, {"path": str(go)}, "wait")
        eventually(lambda: running.server.repository._models["model"].versions[1].leases)
        stopped = pool.submit(running.server.stop, DEADLINE)
        eventually(lambda: refuses(running))
        assert not stopped.done()
        go.touch()
        assert answer.result().outputs["bias"].float_val[0] == 1.0
        assert stopped.result()


def refuses(running):
    try:
        return not running.predict({"x": np.zeros(1, np.float32)})
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.UNAVAILABLE


def test_more_calls_than_it_can_take_are_refused_and_not_cancelled(arithmetic, make_spec):
    request = predict_pb2.PredictRequest(model_spec=make_spec())
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0]))
    calls = [arithmetic.prediction.Predict.future(request, timeout=DEADLINE) for _ in range(4000)]
    codes = collections.Counter(call.code() for call in calls)
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert codes[grpc.StatusCode.OK] >= 500


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_in_use_is_named(arithmetic, tmp_path, host):
    port = arithmetic.server.port
    with pytest.raises(program.UserError, match=rf"cannot listen on {host}:{port}: address already in use"):
        ModelServer(ServerOptions("model", str(tmp_path), host=host, port=port), load=print)


def test_a_host_that_is_not_here(tmp_path):
    with pytest.raises(program.UserError, match=r"cannot listen on 192\.0\.2\.1:0: .*assign"):
        ModelServer(ServerOptions("model", str(tmp_path), host="192.0.2.1"), load=print)


def test_loopback_unless_told_otherwise(arithmetic):
    assert ServerOptions("model", "base").host == "127.0.0.1"
    with socket.create_connection(("127.0.0.1", arithmetic.server.port), timeout=DEADLINE):
        pass


class Program:
    """zoo-serve as a process."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def announced(self):
        return json.loads(self.process.stdout.readline())

    def interrupt(self, signal_number):
        self.process.send_signal(signal_number)

    def end(self):
        """Exit code, rest of stdout, stderr."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


@pytest.fixture
def zoo_serve(program_command):
    started = []

    def start(*arguments):
        started.append(Program(program_command("serving.server", "--port=0", *arguments)))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def test_the_program_from_start_to_sigterm(zoo_serve, publish, exports, tmp_path, eventually):
    """Also: an unknown flag, three lines on stderr, a request under way when the signal comes."""
    base_path, go = tmp_path / "base", tmp_path / "go"
    publish(exports["first"], base_path, 5)
    server = zoo_serve(
        "--model_name=model", f"--model_base_path={base_path}", "--tensorflow_flag=1",
        "--enable_grpc_healthcheck_service",
    )  # fmt: skip
    announced = server.announced()
    assert announced == {"host": "127.0.0.1", "port": announced["port"], "model": "model"}
    with grpc.insecure_channel(f"127.0.0.1:{announced['port']}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        request = predict_pb2.PredictRequest(model_spec={"name": "model", "signature_name": "wait"})
        request.inputs["path"].dtype = 7  # string
        request.inputs["path"].tensor_shape.SetInParent()
        request.inputs["path"].string_val.append(str(go).encode())
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        # A call that the server has read, since a later one on the same connection was answered.
        answer = stub.Predict.future(request, timeout=DEADLINE)
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        server.interrupt(signal.SIGTERM)
        another = health_pb2_grpc.HealthStub(channel).Check.future
        eventually(lambda: another(health_pb2.HealthCheckRequest()).code() is grpc.StatusCode.UNAVAILABLE)
        assert not answer.done()
        go.touch()
        assert answer.result().outputs["bias"].float_val[0] == 1.0
    code, out, err = server.end()
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert lines[0] == "zoo-serve: unknown argument ignored: --tensorflow_flag=1"
    assert f"serving version 5 of model from {base_path}/5" in lines[1]
    assert lines[2:5] == [
        f"zoo-serve: listening: gRPC on 127.0.0.1:{announced['port']}",
        "zoo-serve: serving: model",
        "zoo-serve: Ctrl-C stops it, when what is under way is done",
    ]
    assert [line for line in lines[5:] if "unloaded version 5" not in line] == []


def test_the_program_waits_for_a_base_path_until_interrupted(zoo_serve, tmp_path):
    server = zoo_serve("--model_name=model", f"--model_base_path={tmp_path}/absent")
    line = server.process.stderr.readline()
    assert f"waiting for a first version of model: a folder named by a number in {tmp_path}/absent" in line
    server.interrupt(signal.SIGINT)
    assert server.end() == (0, "", "")


def test_the_program_gives_up_on_a_model_that_cannot_be_loaded(zoo_serve, publish, exports, tmp_path):
    publish(exports["broken"], tmp_path, 1)
    server = zoo_serve(f"--model_base_path={tmp_path}", "--max_num_load_retries=0")
    code, out, err = server.end()
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("zoo-serve: cannot serve default: Cannot parse file")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "what to serve? --model_base_path=BASE"),
        (["--model_base_path=base", "--model_name="], 2, "--model_name is empty"),
        (["--model_base_path=base", "--port=70000"], 2, "port"),
        (["--model_base_path=base", "--port=http"], 2, "http"),
    ],
)
def test_command_lines_that_cannot_be(zoo_serve, arguments, code, message):
    returned, out, err = zoo_serve(*arguments).end()
    assert (returned, out, len(err.splitlines())) == (code, "", 1)
    assert message in err


def test_the_program_names_a_port_in_use(zoo_serve, arithmetic, tmp_path):
    code, out, err = zoo_serve(f"--model_base_path={tmp_path}", f"--port={arithmetic.server.port}").end()
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert f"127.0.0.1:{arithmetic.server.port}: address already in use" in err


def test_the_server_needs_neither_our_models_nor_tensorflow_to_start():
    code = (
        "import sys, serving.server, serving.client\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'zoo', 'training', 'keras'}, loaded\n"
        "assert 'tensorflow' not in sys.modules and 'tensorflow.python' not in sys.modules\n"
        "import serving.saved_model, tensorflow as tf\n"
        "from serving.messages import tensor_pb2\n"
        "assert type(tf.make_tensor_proto(1)) is tensor_pb2.TensorProto\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'zoo', 'training'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE)
