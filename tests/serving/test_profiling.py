"""tensorflow.ProfilerService: the answers of TensorFlow's own, and TensorFlow's client."""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from serving import profiler_messages, profiling
from serving.messages import predict_pb2, prediction_service_pb2_grpc
from serving.profiler_messages import MonitorRequest, ProfileRequest, TerminateRequest

CODES = grpc.StatusCode
DEADLINE = 60
BUSY = (CODES.INTERNAL, "Another profiling session active.")
SERVICE = "tensorflow.ProfilerService"
A_WHILE = 3_600_000  # ms: a session that is not ended would outlast the deadline

STOCK = """
import sys, tensorflow as tf
tf.profiler.experimental.server.start(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


class Stub:
    """The three RPCs over a channel."""

    def __init__(self, channel):
        for method in profiler_messages.SERVICE.methods:
            response = getattr(profiler_messages, method.output_type.name, None)
            call = channel.unary_unary(
                f"/{SERVICE}/{method.name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=response and response.FromString,
            )
            setattr(self, method.name, call)

    def answer(self, method, request):
        """Code and message, or the response."""
        try:
            return getattr(self, method)(request, timeout=DEADLINE)
        except grpc.RpcError as error:
            return error.code(), error.details()


def profile_request(milliseconds, session_id="", emit_xspace=False, **opts):
    return ProfileRequest(
        session_id=session_id, emit_xspace=emit_xspace, opts={"duration_ms": milliseconds, **opts}
    )


@pytest.fixture
def profiler(arithmetic):
    return Stub(arithmetic.channel)


@contextlib.contextmanager
def running(call):
    """Calls a function again and again, in a thread of its own."""
    stop = threading.Event()

    def loop():
        while not stop.is_set():
            call()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def predicting(server):
    return running(lambda: server.predict({"x": np.zeros(1, np.float32)}))


def event_names(space):
    return {
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    }


def test_what_runs_is_recorded(arithmetic, profiler):
    with predicting(arithmetic):
        response = profiler.Profile(profile_request(300), timeout=DEADLINE)
    assert not response.empty_trace
    assert not response.HasField("xspace")
    assert [data.name for data in response.tool_data] == ["xplane.pb"]
    space = xplane_pb2.XSpace.FromString(response.tool_data[0].data)
    assert "SessionRun" in event_names(space)


def test_the_trace_itself_where_it_is_asked_for(arithmetic, profiler):
    with predicting(arithmetic):
        response = profiler.Profile(profile_request(300, emit_xspace=True), timeout=DEADLINE)
    assert not response.empty_trace
    assert not response.tool_data
    assert "SessionRun" in event_names(xplane_pb2.XSpace.FromString(response.xspace.SerializeToString()))


def test_an_idle_server_has_an_empty_trace(profiler):
    response = profiler.Profile(profile_request(50), timeout=DEADLINE)
    assert response.empty_trace
    assert xplane_pb2.XSpace.FromString(response.tool_data[0].data).hostnames


@pytest.mark.parametrize(
    ("level", "seen", "unseen"),
    [
        (0, set(), {"SessionRun", "ExecutorPropagateOutputs"}),
        (2, {"SessionRun"}, {"ExecutorPropagateOutputs"}),
        (3, {"SessionRun", "ExecutorPropagateOutputs"}, set()),
    ],
)
def test_levels(arithmetic, profiler, level, seen, unseen):
    with predicting(arithmetic):
        request = profile_request(300, version=1, host_tracer_level=level)
        response = profiler.Profile(request, timeout=DEADLINE)
    names = event_names(xplane_pb2.XSpace.FromString(response.tool_data[0].data))
    assert seen <= names
    assert not unseen & names
    assert response.empty_trace == (not names)


def read_by_the_server(profiler):
    """Returns when the server has read the calls made before on the same connection."""
    profiler.Terminate(TerminateRequest(session_id="another"), timeout=DEADLINE)


@pytest.mark.parametrize("ahead", [False, True], ids=["recording", "before its start"])
def test_terminate_ends_the_session_named(profiler, monkeypatch, ahead):
    monkeypatch.setattr(profiling, "MAX_SECONDS", 1e6)
    opts = {"start_timestamp_ns": int((time.time() + 3600) * 1e9)} if ahead else {}
    future = profiler.Profile.future(profile_request(A_WHILE, "this", **opts), timeout=DEADLINE)
    read_by_the_server(profiler)
    assert not future.done()
    assert profiler.answer("Profile", profile_request(0)) == BUSY
    profiler.Terminate(TerminateRequest(session_id="this"), timeout=DEADLINE)
    assert future.result().tool_data


def test_a_caller_that_goes_away_ends_its_session(profiler, monkeypatch, eventually):
    monkeypatch.setattr(profiling, "MAX_SECONDS", 1e6)
    future = profiler.Profile.future(profile_request(A_WHILE), timeout=DEADLINE)
    read_by_the_server(profiler)
    assert profiler.answer("Profile", profile_request(0)) == BUSY
    future.cancel()
    eventually(lambda: profiler.answer("Profile", profile_request(0)) != BUSY)


def test_something_else_in_the_process_that_records(profiler, tmp_path):
    with tf.profiler.experimental.Profile(str(tmp_path)):
        assert profiler.answer("Profile", profile_request(0)) == BUSY
    assert profiler.Profile(profile_request(0), timeout=DEADLINE).tool_data


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ({"duration_ms": 10_001}, "opts.duration_ms is 10.001 s; at most 10 s are recorded"),
        ({"duration_ms": 2**64 - 1}, "opts.duration_ms is 1.84467e+16 s; at most 10 s are recorded"),
        ({"start_timestamp_ns": 2**64 - 1}, " s ahead; at most 10 s are allowed"),
    ],
)
def test_sessions_are_bounded(profiler, opts, message):
    code, details = profiler.answer("Profile", ProfileRequest(opts=opts))
    assert code == CODES.INVALID_ARGUMENT
    assert message in details


def test_no_path_of_a_request_is_used(arithmetic, profiler, tmp_path, monkeypatch):
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    request = profile_request(
        100, str(theirs / "session"), repository_path=str(theirs), override_hostname=str(theirs / "host")
    )
    request.opts.session_id = request.session_id
    request.repository_root, request.host_name = str(theirs), str(theirs / "host")
    with predicting(arithmetic):
        response = profiler.Profile(request, timeout=DEADLINE)
    assert response.tool_data[0].name == "xplane.pb"
    assert list(tmp_path.rglob("*")) == [own]


def reflected(channel, *symbols):
    """Names of services, and the files that describe the symbols."""
    request = reflection_pb2.ServerReflectionRequest
    requests = [request(list_services=""), *(request(file_containing_symbol=symbol) for symbol in symbols)]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    services, *files = stub.ServerReflectionInfo(iter(requests), timeout=DEADLINE)
    return {service.name for service in services.list_services_response.service}, files


def test_reflection_describes_the_service(arithmetic):
    names, (file,) = reflected(arithmetic.channel, SERVICE)
    assert SERVICE in names
    pool = descriptor_pool.DescriptorPool()
    for serialized in reversed(file.file_descriptor_response.file_descriptor_proto):
        pool.AddSerializedFile(serialized)
    methods = pool.FindServiceByName(SERVICE).methods
    assert [method.name for method in methods] == ["Profile", "Terminate", "Monitor"]
    assert methods[0].input_type.fields_by_name["opts"].message_type.fields_by_name["duration_ms"].number == 9


def test_reflection_describes_all_other_services_as_well(arithmetic):
    names, _ = reflected(arithmetic.channel)
    _, files = reflected(arithmetic.channel, *names)
    assert len(names) == 6
    assert not [file for file in files if not file.HasField("file_descriptor_response")]


def test_without_the_profiler(serve, publish, exports, tmp_path):
    publish(exports["first"], tmp_path, 1)
    server = serve(tmp_path, profiler_service=False)
    stub = Stub(server.channel)
    for method, request in (("Profile", ProfileRequest()), ("Terminate", TerminateRequest())):
        code, _ = stub.answer(method, request)
        assert code == CODES.UNIMPLEMENTED
    names, (file,) = reflected(server.channel, SERVICE)
    assert SERVICE not in names
    assert file.error_response.error_code == CODES.NOT_FOUND.value[0]


@pytest.fixture(scope="module")
def stock():
    """TensorFlow's own service, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-c", STOCK, str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Stub(channel)
        process.kill()


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Monitor", MonitorRequest(duration_ms=100)),
        ("Terminate", TerminateRequest(session_id="unknown")),
        ("Profile", ProfileRequest(duration_ms=A_WHILE, emit_xspace=True)),  # not what it goes by
        ("Profile", profile_request(50, emit_xspace=True, version=1, host_tracer_level=0)),
    ],
    ids=["monitor", "terminate", "no duration", "nothing"],
)
def test_answers_are_those_of_tensorflow(profiler, stock, method, request_):
    ours, theirs = (stub.answer(method, request_) for stub in (profiler, stock))
    if method == "Profile":
        for response in (ours, theirs):
            response.xspace.planes[:] = [plane_name(plane) for plane in response.xspace.planes]
    assert ours == theirs


def plane_name(plane):
    """Of a plane without events; what else it holds are times."""
    return xplane_pb2.XPlane.FromString(plane).name.encode()


def test_a_second_caller_hears_what_tensorflow_says(stock):
    future = stock.Profile.future(profile_request(A_WHILE, "this", emit_xspace=True), timeout=DEADLINE)
    read_by_the_server(stock)
    assert stock.answer("Profile", profile_request(0, emit_xspace=True)) == BUSY
    stock.Terminate(TerminateRequest(session_id="this"), timeout=DEADLINE)
    assert future.result().HasField("xspace")


@pytest.fixture
def server_process(program_command, publish, exports, tmp_path):
    """The address of a server that runs by itself, in a folder of its own."""
    publish(exports["first"], tmp_path / "base", 1)
    (tmp_path / "cwd").mkdir()
    command = program_command(
        "serving.server", "--port=0", "--model_name=model", f"--model_base_path={tmp_path}/base"
    )
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path / "cwd"
    ) as process:
        yield f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.kill()


def test_tensorflows_client(server_process, tmp_path, make_spec):
    """It saves what the response holds; the server writes nothing where the client says."""
    logdir = tmp_path / "logs"
    request = predict_pb2.PredictRequest(model_spec=make_spec())
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros(1, np.float32)))
    with grpc.insecure_channel(server_process) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with running(lambda: stub.Predict(request, timeout=DEADLINE)):
            tf.profiler.experimental.client.trace(f"grpc://{server_process}", str(logdir), duration_ms=300)
    (file,) = (path for path in logdir.rglob("*") if path.is_file())
    assert file.name == f"{server_process.replace(':', '_')}.xplane.pb"
    assert file.parent.parent == logdir / "plugins" / "profile"
    assert "SessionRun" in event_names(xplane_pb2.XSpace.FromString(file.read_bytes()))
    assert list((tmp_path / "cwd").iterdir()) == []
    with pytest.raises(RuntimeError, match="UNAVAILABLE: No trace event was collected"):
        tf.profiler.experimental.client.trace(
            f"grpc://{server_process}", str(logdir), duration_ms=50, num_tracing_attempts=1
        )
    with pytest.raises(RuntimeError, match=r"UNIMPLEMENTED: unimplemented\."):
        tf.profiler.experimental.client.monitor(f"grpc://{server_process}", duration_ms=50)
