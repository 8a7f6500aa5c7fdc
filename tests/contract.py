"""A zoo-serve with most of the stock server's flags set, and the models that it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf
from server_process import ServerProcess
from tensorflow_1 import save_tensorflow_1

from serving import warmup
from serving.messages import predict_pb2

MODELS = ("gate", "inference", "language", "lite", "model", "swapping")
MAX_BATCH_SIZE = 8
METRICS_PATH = "/counted"
# Of "model", which has the versions 2, 3 and 4.
_VERSIONS = (
    "model_version_policy { specific { versions: 3 versions: 4 } } "
    'version_labels { key: "stable" value: 3 } version_labels { key: "canary" value: 4 }'
)
_BATCHING = (
    f"max_batch_size {{ value: {MAX_BATCH_SIZE} }} max_enqueued_batches {{ value: 1 }} "
    "num_batch_threads { value: 1 }"
)
_MONITORING = f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}'


class _Gate(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def open(self, path):
        """Waits until there is a file at one of the paths."""

        def missing(_):
            return tf.equal(tf.size(tf.io.matching_files(path)), 0)

        turns = tf.while_loop(missing, lambda turn: [turn + 1], [tf.constant(0, tf.int64)])
        with tf.control_dependencies(turns):
            return {"path_bytes": tf.identity(path)}


def config_text(folder: Path, *more: str) -> str:
    """The ModelServerConfig of MODELS, and more, each in a folder of its name."""
    models = "".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" '
        f"{_VERSIONS if name == 'model' else ''} }}\n"
        for name in (*MODELS, *more)
    )
    return f"model_config_list {{\n{models}}}\n"


def warm_up_request(signature: str = "serving_default") -> predict_pb2.PredictRequest:
    """A request for the arithmetic model, if it has that signature."""
    request = predict_pb2.PredictRequest(model_spec={"name": "model", "signature_name": signature})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    return request


def _publish_models(folder: Path, publish: Callable[..., Path], exports: Mapping[str, Path]) -> None:
    for version, name in ((2, "first"), (3, "first"), (4, "second")):
        publish(exports[name], folder / "model", version)
    warmup.write_requests(folder / "model" / "4", [warm_up_request()] * 2)
    publish(exports["first"], folder / "swapping", 1)
    publish(exports["first"], folder / "lite", 1)
    publish(exports["language"], folder / "language", 7)
    gate = _Gate()
    tf.saved_model.save(gate, str(folder / "gate" / "1"), signatures={"serving_default": gate.open})
    (folder / "inference").mkdir()
    save_tensorflow_1(folder / "inference" / "5")


def start(command: Callable[..., list[str]], folder: Path, publish, exports) -> ServerProcess:
    """The process; `announced` waits until it serves."""
    _publish_models(folder, publish, exports)
    for name, text in (
        ("models.config", config_text(folder)),
        ("batching", _BATCHING),
        ("monitoring", _MONITORING),
    ):
        (folder / name).write_text(text)
    return ServerProcess(
        command,
        folder,
        f"--model_config_file={folder / 'models.config'}",
        "--model_config_file_poll_wait_seconds=1",
        "--file_system_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
        f"--grpc_socket_path={folder / 'socket'}",
        "--num_request_iterations_for_warmup=3",
        "--enable_batching",
        f"--batching_parameters_file={folder / 'batching'}",
        f"--monitoring_config_file={folder / 'monitoring'}",
        "--max_num_load_retries=2",
        "--load_retry_interval_micros=100000",
        "--prefer_tflite_model",
        "--enable_grpc_healthcheck_service=true",
        "--allow_model_config_reload",
        f"--reloadable_base_paths={folder}",
    )
