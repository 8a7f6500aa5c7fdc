"""The flags of zoo-serve: first the stock server's, with its names and defaults, then ours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """Name, default (which says of what kind it is) and meaning."""

    name: str
    default: Any
    help: str
    least: int | None = None
    most: int | None = None
    choices: Sequence[str] = ()


FLAGS = (
    Flag("model_name", "default", "Name under which the model is served."),
    Flag("model_base_path", None, "Folder that holds the versions of the model."),
    Flag(
        "model_config_file",
        None,
        "File with a ModelServerConfig in text format: several models, which of their versions, and labels. "
        "--model_name and --model_base_path do not count then.",
    ),
    Flag(
        "model_config_file_poll_wait_seconds",
        0,
        "Seconds between looks whether that file has changed; 0 reads it once. One that cannot be used is "
        "reported, and changes nothing.",
        least=0,
    ),
    Flag(
        "file_system_poll_wait_seconds",
        1,
        "Seconds between looks for new versions; 0 looks only until there are some.",
        least=0,
    ),
    Flag(
        "allow_version_labels_for_unavailable_models",
        False,
        "Labels may be given to versions that are not loaded yet, as none is at the start. A label that is "
        "in use still moves only to a version that can answer.",
    ),
    Flag("max_num_load_retries", 5, "How often to try again to load a version that failed.", least=0),
    Flag("load_retry_interval_micros", 60_000_000, "Microseconds between these tries."),
    Flag(
        "enable_model_warmup",
        True,
        "Run the requests in a version's assets.extra/tf_serving_warmup_requests before anybody else's.",
    ),
    Flag("num_request_iterations_for_warmup", 0, "How often to run each of them; 0 means once.", least=0),
    Flag("port", 8500, "Port of gRPC; 0 takes any that is free.", least=0, most=65535),
    Flag("grpc_socket_path", None, "Serve gRPC on a unix socket of this path, too."),
    Flag("grpc_channel_arguments", None, "Arguments for the gRPC server: KEY=VALUE,KEY=VALUE."),
    Flag(
        "grpc_max_threads",
        max(16, 4 * (os.cpu_count() or 1)),
        "Requests, or batches of them, that run at once.",
        least=1,
    ),
    Flag("rest_api_port", 0, "Port of the HTTP API; 0: there is none.", least=0, most=65535),
    Flag("rest_api_timeout_in_ms", 30_000, "How long a request over HTTP may take.", least=1),
    Flag("rest_api_enable_cors_support", False, "Let web pages of all origins use the HTTP API."),
    Flag("enable_batching", False, "Run requests that come together as one batch."),
    Flag("batching_parameters_file", None, "File with BatchingParameters in text format."),
    Flag(
        "enable_per_model_batching_parameters",
        False,
        "With --enable_batching: each version is batched as the file batching_params.pbtxt in its folder "
        "says, and one without that file is not.",
    ),
    Flag("ssl_config_file", None, "File with an SSLConfig in text format: gRPC is encrypted."),
    Flag(
        "monitoring_config_file",
        None,
        "File with a MonitoringConfig in text format: metrics for Prometheus on the HTTP port.",
    ),
    Flag(
        "prefer_tflite_model",
        False,
        "Serve the model.tflite of a version that has one instead of its saved_model.pb.",
    ),
    Flag(
        "enable_serialization_as_tensor_content",
        False,
        "Results are sent in tensor_content, not in typed value fields.",
    ),
    Flag("enable_grpc_healthcheck_service", False, "Offer grpc.health.v1.Health."),
    Flag("enable_profiler", True, "Offer tensorflow.ProfilerService."),
    Flag("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all of this machine's."),
    Flag("max_message_bytes", 64 << 20, "Largest request accepted.", least=1),
    Flag("max_batch_rows", 1 << 16, "Most rows of one request.", least=1),
    Flag("max_streams", 256, "Most texts that are generated token by token at once.", least=0),
    Flag("max_stream_tokens", 4096, "Most tokens of one of them.", least=0),
    Flag("max_stream_seconds", 600.0, "How long one of them may take.", least=0),
    Flag(
        "allow_model_config_reload",
        False,
        "Callers may change what is served (HandleReloadConfigRequest), within --reloadable_base_paths.",
    ),
    Flag("reloadable_base_paths", [], "DIR,DIR: folders in which the models that callers ask for must be."),
    Flag(
        "bearer_token_file",
        None,
        "File with a token; callers must send `authorization: Bearer TOKEN`.",
    ),
    Flag("shutdown_grace_seconds", 30.0, "How long to wait for requests when asked to stop.", least=0),
    Flag("log_format", "text", "How lines of the log are written.", choices=("text", "json")),
)
