"""Flags on the command line of a zoo-serve process, and what they change."""

import json
import subprocess

import grpc
import pytest
import tensorflow as tf
from certificates import make_certificates
from contract import METRICS_PATH, config_text, warm_up_request
from grpc_health.v1 import health_pb2, health_pb2_grpc
from http_core import DEADLINE
from server_process import ServerProcess, begin

from serving import warmup

CODES = grpc.StatusCode


def predict(model, *values):
    """A PredictRequest in text format; x is 1 unless values are given."""
    values = values or (1,)
    numbers = " ".join(f"float_val: {value}" for value in values)
    value = f"dtype: DT_FLOAT tensor_shape {{ dim {{ size: {len(values)} }} }} {numbers}"
    return f'model_spec {{ name: "{model}" }} inputs {{ key: "x" value {{ {value} }} }}'


def answering_version(server, model):
    call = server.begin("Predict", predict(model))
    return call.result().model_spec.version.value if call.code() is CODES.OK else None


def states(server, model):
    response = server.ask("GetModelStatus", f'model_spec {{ name: "{model}" }}')
    return {each.version: each for each in response.model_version_status}


class TestMany:
    """The flags of the server that tests/contract.py starts."""

    def test_grpc_socket_path(self, contract):
        with grpc.insecure_channel(f"unix:{contract.folder / 'socket'}") as channel:
            assert begin(channel, "Predict", predict("model")).result().outputs["y"].float_val == [4.0]

    def test_model_config_file_and_its_polling(self, contract, publish, exports, eventually):
        """Also: a file that does not parse changes nothing."""
        publish(exports["first"], contract.folder / "polled", 1)
        config = contract.folder / "models.config"
        try:
            config.write_text(config_text(contract.folder, "polled"))
            eventually(lambda: answering_version(contract, "polled"))
            config.write_text("model_config_list {")
            eventually(lambda: "the configuration stays as it was: Error parsing" in contract.log())
            assert answering_version(contract, "polled") == 1
        finally:
            config.write_text(config_text(contract.folder))
        eventually(lambda: answering_version(contract, "polled") is None)
        assert answering_version(contract, "model") == 4

    def test_file_system_poll_wait_seconds_and_load_retries(self, contract, publish, exports, eventually):
        base_path = contract.folder / "swapping"
        first = max(states(contract, "swapping"))
        publish(exports["broken"], base_path, first + 1)
        failed = f"cannot load version {first + 1} of swapping"

        def complaints():
            return [line.rpartition("(")[2] for line in contract.log().splitlines() if failed in line]

        eventually(lambda: len(complaints()) == 3)
        publish(exports["second"], base_path, first + 2)
        eventually(lambda: answering_version(contract, "swapping") == first + 2)
        assert complaints() == ["trying again in 0.1 s)"] * 2 + ["giving up on it)"]
        status = states(contract, "swapping")[first + 1].status
        assert (status.error_code, "saved_model.pb" in status.error_message) == (5, True)  # NOT_FOUND
        eventually(lambda: states(contract, "swapping")[first].state == 50)  # END

    def test_enable_model_warmup_and_num_request_iterations_for_warmup(self, contract):
        """Two requests, three times each."""
        folder = contract.folder / "model" / "4"
        (line,) = [line for line in contract.log().splitlines() if "warmed up" in line]
        assert f"with 2 requests from {folder}/assets.extra/tf_serving_warmup_requests" in line
        metrics = contract.http("GET", METRICS_PATH).body.decode().splitlines()
        labels = f'{{model_path="{folder}",status="OK"}}'
        assert f":tensorflow:serving:model_warmup_records_read{labels} 2" in metrics
        assert f":tensorflow:serving:model_warmup_latency_count{labels} 1" in metrics

    def test_enable_batching(self, contract):
        contract.ask("Predict", predict("model"))
        metrics = contract.http("GET", METRICS_PATH).body.decode()
        counts = [
            line.rpartition(" ")[2]
            for line in metrics.splitlines()
            if line.startswith(":tensorflow:serving:batching_session:wrapped_run_count{")
        ]
        assert int(counts[0]) >= 1

    def test_prefer_tflite_model(self, contract, tmp_path, publish, exports, eventually):
        """The SavedModel beside it gives 2 x + 1."""
        module = tf.Module()
        module.triple = tf.function(
            lambda x: {"y": 3.0 * x}, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
        )
        export = publish(exports["first"], tmp_path, 2)
        tf.saved_model.save(module, str(tmp_path / "triple"), signatures={"serving_default": module.triple})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(tmp_path / "triple"), signature_keys=["serving_default"]
        )
        (export / "model.tflite").write_bytes(converter.convert())
        assert contract.ask("Predict", predict("lite")).outputs["y"].float_val == [3.0]
        number = max(states(contract, "lite")) + 1
        publish(export, contract.folder / "lite", number)
        eventually(lambda: answering_version(contract, "lite") == number)
        assert contract.ask("Predict", predict("lite", 7)).outputs["y"].float_val == [21.0]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def quoted(path):
    return '"' + path.read_text().replace("\n", "\\n") + '"'


@pytest.fixture(scope="module")
def guarded(program_command, publish, exports, certificates, tmp_path_factory):
    """One model of the command line, with a warm-up that would fail, a model.tflite that is none, and
    batching options of its own; gRPC is encrypted."""
    folder = tmp_path_factory.mktemp("guarded")
    version = publish(exports["first"], folder / "base", 1)
    warmup.write_requests(version, [warm_up_request("no such signature")])
    (version / "model.tflite").write_bytes(b"junk")
    (version / "batching_params.pbtxt").write_text("max_batch_size { value: 3 }")
    tls = {
        "server_key": quoted(certificates / "server.key"),
        "server_cert": quoted(certificates / "server.pem"),
        "custom_ca": quoted(certificates / "ca.pem"),
        "client_verify": "true",
    }
    (folder / "tls").write_text("\n".join(f"{field}: {value}" for field, value in tls.items()))
    server = ServerProcess(
        program_command,
        folder,
        "--model_name=only",
        f"--model_base_path={folder / 'base'}",
        "--file_system_poll_wait_seconds=0",
        "--rest_api_timeout_in_ms=1000",
        "--rest_api_enable_cors_support",
        "--enable_model_warmup=false",
        "--enable_batching=true",
        "--enable_per_model_batching_parameters",
        f"--ssl_config_file={folder / 'tls'}",
        "--grpc_channel_arguments=grpc.max_receive_message_length=20000",
        "--enable_serialization_as_tensor_content",
        "--tensorflow_session_parallelism=2",
    )
    try:
        assert server.announced
        yield server
    finally:
        server.stop()


def channel_of(server, certificates, caller="caller"):
    """An encrypted channel of a caller with that certificate, or with none."""
    read = [(certificates / f"{caller}.{end}").read_bytes() for end in ("key", "pem")] if caller else []
    authority = (certificates / "ca.pem").read_bytes()
    return grpc.secure_channel(server.address, grpc.ssl_channel_credentials(authority, *read))


class TestOthers:
    """Flags with values that the other server has not, and what is off unless a flag says otherwise."""

    @pytest.fixture
    def ask(self, guarded, certificates):
        """The future of an RPC from a caller with a certificate."""
        with channel_of(guarded, certificates) as channel:
            yield lambda method, request: begin(channel, method, request)

    def test_ports_and_model_name(self, guarded):
        ports = {"port": guarded.port, "rest_api_port": guarded.rest_api_port}
        assert guarded.announced == {"host": "127.0.0.1", "model": "only", **ports}

    def test_ssl_config_file(self, guarded, certificates, ask):
        assert ask("Predict", predict("only")).result().model_spec.name == "only"
        assert guarded.http("GET", "/v1/models/only").status == 200  # HTTP stays as it was
        assert guarded.begin("Predict", predict("only")).code() is CODES.UNAVAILABLE
        for caller in (None, "other"):
            with channel_of(guarded, certificates, caller) as channel:
                assert begin(channel, "Predict", predict("only")).code() is CODES.UNAVAILABLE

    def test_enable_serialization_as_tensor_content(self, ask):
        y = ask("Predict", predict("only", 1, 2)).result().outputs["y"]
        assert (len(y.float_val), len(y.tensor_content)) == (0, 8)
        assert tf.make_ndarray(y).tolist() == [3.0, 5.0]

    def test_enable_model_warmup_is_off(self, guarded, ask):
        assert ask("Predict", predict("only")).result().model_spec.version.value == 1
        assert "warm" not in guarded.log()

    def test_enable_per_model_batching_parameters(self, ask):
        call = ask("Predict", predict("only", 1, 2, 3, 4))
        assert call.details() == "Task size 4 is larger than maximum input batch size 3"

    def test_grpc_channel_arguments(self, ask):
        call = ask("Predict", predict("only", *range(5000)))
        assert (call.code(), "20000" in call.details()) == (CODES.RESOURCE_EXHAUSTED, True)

    def test_rest_api_timeout_in_ms(self, guarded, tmp_path):
        body = json.dumps({"signature_name": "wait", "inputs": str(tmp_path / "go")})
        try:
            answer = guarded.http("POST", "/v1/models/only:predict", body)
        finally:
            (tmp_path / "go").touch()
        message = "The request took longer than 1 s"
        assert (answer.status, json.loads(answer.body)) == (504, {"error": message})

    def test_rest_api_enable_cors_support(self, guarded, contract):
        answers = [
            server.http("OPTIONS", "/v1/models/only:predict", Origin="http://a")
            for server in (guarded, contract)
        ]
        headers = [answer.headers.get("Access-Control-Allow-Origin") for answer in answers]
        assert headers == ["*", None]

    def test_what_is_off(self, guarded, certificates, ask):
        reload = ask("HandleReloadConfigRequest", "config { model_config_list {} }")
        assert reload.code() is CODES.PERMISSION_DENIED
        assert guarded.http("GET", "/monitoring/prometheus/metrics").status == 404
        with channel_of(guarded, certificates) as channel, pytest.raises(grpc.RpcError) as raised:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        assert raised.value.code() is CODES.UNIMPLEMENTED

    def test_unknown_flags(self, guarded):
        first, *_ = guarded.log().splitlines()
        assert first == "zoo-serve: unknown argument ignored: --tensorflow_session_parallelism=2"

    def test_file_system_poll_wait_seconds_is_zero(
        self, guarded, contract, publish, exports, ask, eventually
    ):
        """There was a version at the start: no other is looked for, while one that looks finds two."""
        publish(exports["second"], guarded.folder / "base", 2)
        for _ in range(2):
            number = max(states(contract, "swapping")) + 1
            publish(exports["second"], contract.folder / "swapping", number)
            eventually(lambda: answering_version(contract, "swapping") == number)  # noqa: B023
        assert ask("Predict", predict("only")).result().model_spec.version.value == 1


LABELLED = """
model_config_list {
  config {
    name: "a" base_path: "/a" model_platform: "tensorflow"
    version_labels { key: "stable" value: 7 }
  }
}
"""


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        (
            "model_config_file",
            "model_config_list {",
            'Error parsing text-format tensorflow.serving.ModelServerConfig: 1:19: Expected "}".',
        ),
        (
            "model_config_file",
            LABELLED,
            "Request to assign label to version 7 of model a, which is not currently available for "
            "inference; --allow_version_labels_for_unavailable_models lets labels be given at the start",
        ),
        ("ssl_config_file", "server_cert: 'c'", "server_key is missing"),
        (
            "monitoring_config_file",
            "?",
            "Error parsing text-format tensorflow.serving.MonitoringConfig: 1:1: ",
        ),
    ],
)
def test_files_that_end_the_process(program_command, tmp_path, flag, text, message):
    (tmp_path / "file").write_text(text)
    command = program_command(
        "serving.server", "--port=0", f"--model_base_path={tmp_path}", f"--{flag}={tmp_path}/file"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(f"zoo-serve: {message}")
    assert done.stderr.endswith(f"(--{flag}={tmp_path}/file)\n")
