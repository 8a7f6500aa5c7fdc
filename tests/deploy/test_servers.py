"""What starts the servers: images, command lines, compose files and configuration files."""

from __future__ import annotations

import contextlib
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from absl import flags
from check_jsonschema.builtin_schemas import get_builtin_schema
from google.protobuf import text_format

from deploy.kustomize import build
from deploy.manifests import (
    DEPENDENCIES,
    DEPLOY,
    PYPROJECT,
    ROOT,
    compose_service,
    instruction,
    load,
    values,
    words,
)
from serving import config_messages, options
from serving.messages import model_server_config_pb2

SERVERS = ("zoo-serve", "stock-serving")

# Of tensorflow_model_server, model_servers/main.cc.
STOCK_FLAGS = set(
    """
    port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms
    rest_api_enable_cors_support model_name model_base_path model_config_file
    model_config_file_poll_wait_seconds file_system_poll_wait_seconds enable_batching
    batching_parameters_file enable_per_model_batching_parameters
    allow_version_labels_for_unavailable_models num_load_threads num_unload_threads max_num_load_retries
    load_retry_interval_micros tensorflow_session_parallelism tensorflow_intra_op_parallelism
    tensorflow_inter_op_parallelism tensorflow_session_config_file ssl_config_file platform_config_file
    saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
    num_request_iterations_for_warmup monitoring_config_file prefer_tflite_model
    enable_signature_method_name_check enable_profiler enable_grpc_healthcheck_service
    enable_serialization_as_tensor_content per_process_gpu_memory_fraction xla_cpu_compilation_enabled
    xla_gpu_compilation_enabled mixed_precision version thread_pool_factory_config_file use_alts_credentials
    flush_filesystem_caches num_tflite_pools num_tflite_interpreters_per_pool skip_initialize_tpu
    """.split()  # noqa: SIM905 - many
)


def pod_containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """(server, container) of the overlays and KServe's runtimes."""
    for name in SERVERS:
        objects = build(DEPLOY / "kubernetes/overlays" / name)
        (deployment,) = [candidate for candidate in objects if candidate["kind"] == "Deployment"]
        yield name, *deployment["spec"]["template"]["spec"]["containers"]
        yield name, *load(DEPLOY / "kserve" / f"{name}.yaml")["spec"]["containers"]


def command_lines(name: str) -> list[list[str]]:
    """Each command line that starts a server, the program first."""
    found = [
        container["command"] + container["args"] for owner, container in pod_containers() if owner == name
    ]
    service = compose_service(name)
    found.append(service.get("entrypoint", words(instruction("ENTRYPOINT"))) + service["command"])
    return found


def images(name: str) -> list[str]:
    return [c["image"] for owner, c in pod_containers() if owner == name] + [compose_service(name)["image"]]


@pytest.mark.parametrize("line", range(3))
def test_zoo_serve_understands_its_command_lines(line, run_program):
    """All flags are known, their values and what they say together make sense, the files can be read."""
    program, *flags_given = command_lines("zoo-serve")[line]
    assert program == "zoo-serve"
    understood = []

    def run():
        options.define_flags()
        flags.FLAGS(sys.argv)
        understood.append(options.from_flags())

    arguments = [flag.replace("=/config/", f"={DEPLOY}/config/") for flag in flags_given]
    assert run_program(SimpleNamespace(__name__=program, run=run), *arguments)[0] == 0
    (read,) = understood
    given = values(flags_given)
    assert (read.host, read.port) == ("0.0.0.0", int(given["port"]))
    assert read.rest_api_port == int(given["rest_api_port"])
    if "model_config_file" in given:
        assert [model.base_path for model in read.models] == ["/models/demo"]
        assert read.batching.max_batch_size == 32
        assert read.prometheus_path == "/monitoring/prometheus/metrics"
        assert read.health_service
        assert read.shutdown_grace_seconds == 30


def test_the_stock_server_knows_its_flags():
    for program, *given in command_lines("stock-serving"):
        assert program == "tensorflow_model_server"
        assert set(values(given)) - STOCK_FLAGS == set()


def test_both_servers_serve_alike():
    """Clients do not notice which one it is: the same ports, models, batching and metrics."""
    own = {"host", "shutdown_grace_seconds", "log_format"}
    for ours, stock in zip(command_lines("zoo-serve"), command_lines("stock-serving"), strict=True):
        shared = {name: value for name, value in values(ours[1:]).items() if name not in own}
        assert shared == values(stock[1:])
        assert values(ours[1:])["host"] == "0.0.0.0"  # the stock server listens on no other


@pytest.mark.parametrize("name", SERVERS)
def test_images_are_pinned(name):
    tags = {image: image.rpartition(":")[2] for image in images(name)}
    assert len(set(tags)) == 1  # all files name the same
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", tag) for tag in tags.values())


def test_stock_image_is_of_the_tensorflow_that_exports():
    """A server runs what an equal or older minor version exported; and ours exports with but one."""
    (tag,) = {image.removeprefix("tensorflow/serving:") for image in images("stock-serving")}
    assert DEPENDENCIES["tensorflow"].specifier.contains(tag)
    pinned = re.search(r"^tensorflow==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert tag.rpartition(".")[0] == pinned[1].rpartition(".")[0]


def test_our_image_has_the_packages_version():
    (image,) = set(images("zoo-serve"))
    version = re.search(r'^version = "(.+)"', PYPROJECT, re.MULTILINE)
    assert image == f"zoo-serve:{version[1]}"
    assert f"--tag={image} " in (DEPLOY / "Dockerfile").read_text()


@contextlib.contextmanager
def model_status(state: str) -> Iterator[int]:
    """A port where GET /v1/models/demo answers as the stock server does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/v1/models/demo" else 404)
            self.end_headers()
            self.wfile.write(b'{"model_version_status": [{"version": "1", "state": "%s"}]}' % state.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
            thread.join()


@pytest.mark.parametrize(("state", "healthy"), [("AVAILABLE", True), ("LOADING", False)])
def test_health_check_of_the_stock_image(state, healthy):
    kind, *command = compose_service("stock-serving")["healthcheck"]["test"]
    assert kind == "CMD"
    with model_status(state) as port:
        command = [word.replace("/8501", f"/{port}") for word in command]
        assert f"/{port}" in command[-1]
        assert (subprocess.run(command).returncode == 0) is healthy
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0  # nobody listens any more


@pytest.mark.parametrize("name", SERVERS)
def test_compose_files(name):
    document = load(DEPLOY / "compose" / f"{name}.yaml")
    jsonschema.validate(document, get_builtin_schema("vendor.compose-spec"))
    service = compose_service(name)
    assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    mounts = {mount["target"]: mount for mount in service["volumes"]}
    assert set(mounts) == {"/models", "/config"}
    assert all(mount["read_only"] is True for mount in mounts.values())
    assert mounts["/models"]["source"].startswith("${MODELS_DIR:?")
    assert (DEPLOY / "compose" / mounts["/config"]["source"]).resolve() == DEPLOY / "config"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "healthcheck" in service or service["build"]["dockerfile"] == "deploy/Dockerfile"
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    assert {value for key, value in service["environment"].items() if "THREADS" in key} == {limits["cpus"]}


def test_compose_knows_no_other_fields():
    document = load(DEPLOY / "compose/zoo-serve.yaml")
    document["services"]["model-server"]["invented"] = 1
    with pytest.raises(jsonschema.ValidationError, match="invented"):
        jsonschema.validate(document, get_builtin_schema("vendor.compose-spec"))


def test_compose_builds_our_image_and_lets_it_finish():
    service = compose_service("zoo-serve")
    folder = DEPLOY / "compose" / service["build"]["context"]
    assert folder.resolve() == ROOT
    assert (folder / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    grace = float(values(service["command"])["shutdown_grace_seconds"])
    assert float(service["stop_grace_period"].removesuffix("s")) > grace


def config(name: str, message: Any) -> Any:
    return text_format.Parse((DEPLOY / "config" / name).read_text(), message)


def test_models_config():
    (model,) = config("models.config", model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert model.model_platform == "tensorflow"
    assert model.base_path == f"/models/{model.name}"
    assert f"/v1/models/{model.name} " in compose_service("stock-serving")["healthcheck"]["test"][-1]


def test_batching_config():
    parameters = config("batching.config", config_messages.BatchingParameters())
    given = {field.name: value.value for field, value in parameters.ListFields()}
    threads = compose_service("stock-serving")["deploy"]["resources"]["limits"]["cpus"]
    assert given == {
        "max_batch_size": 32,
        "batch_timeout_micros": 1000,
        "num_batch_threads": int(threads),
        "max_enqueued_batches": 64,
    }


def test_monitoring_config():
    monitoring = config("monitoring.config", config_messages.MonitoringConfig())
    assert monitoring.prometheus_config.enable


def test_readme_points_at_files():
    text = (DEPLOY / "README.md").read_text()
    links = re.findall(r"\]\((?!http)(.+?)\)", text)
    paths = re.findall(r"(?<==)deploy/\S+", text)
    assert len(links) > 8
    assert len(paths) > 3
    assert [link for link in links if not (DEPLOY / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert set(re.findall(r"`([\w/-]+:\d[\w.]*)`", text)) == {*images("zoo-serve"), *images("stock-serving")}
