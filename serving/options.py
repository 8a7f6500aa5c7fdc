"""The options of zoo-serve, and the flags that set them: the stock server's names where it has them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

from absl import flags

from serving import config_files
from serving.batching import BatchingOptions
from serving.config_files import Tls
from serving.generation import StreamLimits
from serving.lifecycle import LoadPolicy
from serving.model_config import ModelConfig
from serving.program import UsageError, UserError
from serving.server_flags import FLAGS

_INT32 = range(-(2**31), 2**31)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """What the flags say, and the files that they name."""

    model_name: str = "default"
    model_base_path: str = ""
    models: Sequence[ModelConfig] | None = None  # of the model config file, instead of the one above
    model_config_file: str = ""
    model_config_file_poll_seconds: float = 0.0  # 0: it is read once
    policy: LoadPolicy = dataclasses.field(default_factory=LoadPolicy)
    warm_up_iterations: int = 1  # 0: no warm-up

    host: str = "127.0.0.1"
    port: int = 0  # 0: any that is free
    grpc_socket_path: str = ""
    grpc_channel_arguments: Sequence[tuple[str, int | str]] = ()
    rest_api_port: int | None = None  # None: no HTTP; 0: any that is free
    rest_api_timeout_seconds: float = 30.0
    rest_api_cors: bool = False
    tls: Tls | None = None  # of gRPC
    bearer_token: str = dataclasses.field(default="", repr=False)  # that callers must have, if any
    max_threads: int = 16
    max_message_bytes: int = 64 << 20
    max_batch_rows: int = 1 << 16  # of one request
    limits: StreamLimits = dataclasses.field(default_factory=StreamLimits)
    batching: BatchingOptions | None = None  # None: every request runs by itself
    per_model_batching: bool = False  # versions bring their own batching options along
    prefer_tflite_model: bool = False
    serialize_as_tensor_content: bool = False
    reloadable_base_paths: Sequence[str] | None = None  # where callers may have models; None: nowhere

    health_service: bool = False
    profiler_service: bool = True
    prometheus_path: str | None = None  # None: no metrics
    log_format: str = "text"
    shutdown_grace_seconds: float = 30.0

    def initial_models(self) -> Sequence[ModelConfig]:
        """What to serve at first."""
        if self.models is not None:
            return self.models
        return [ModelConfig(self.model_name, self.model_base_path)]


def from_flags() -> ServerOptions:
    """What the command line says.

    Raises:
        UsageError: it does not say enough, or too much.
        UserError: a file that it names cannot be used.
    """
    values = flags.FLAGS
    _check(values)
    return ServerOptions(
        model_name=values.model_name,
        model_base_path=values.model_base_path or "",
        models=_models(values) if values.model_config_file else None,
        model_config_file=values.model_config_file or "",
        model_config_file_poll_seconds=values.model_config_file_poll_wait_seconds,
        policy=LoadPolicy(
            poll_seconds=values.file_system_poll_wait_seconds,
            max_retries=values.max_num_load_retries,
            retry_seconds=max(values.load_retry_interval_micros, 0) / 1e6,
            allow_unavailable_labels=values.allow_version_labels_for_unavailable_models,
        ),
        warm_up_iterations=(
            max(values.num_request_iterations_for_warmup, 1) if values.enable_model_warmup else 0
        ),
        host=values.host,
        port=values.port,
        grpc_socket_path=values.grpc_socket_path or "",
        grpc_channel_arguments=parse_channel_arguments(values.grpc_channel_arguments or ""),
        rest_api_port=values.rest_api_port or None,
        rest_api_timeout_seconds=values.rest_api_timeout_in_ms / 1e3,
        rest_api_cors=values.rest_api_enable_cors_support,
        tls=config_files.read_tls(values.ssl_config_file) if values.ssl_config_file else None,
        bearer_token=_read_token(values.bearer_token_file) if values.bearer_token_file else "",
        max_threads=values.grpc_max_threads,
        max_message_bytes=values.max_message_bytes,
        max_batch_rows=values.max_batch_rows,
        limits=StreamLimits(values.max_streams, values.max_stream_tokens, values.max_stream_seconds),
        batching=_batching(values.enable_batching, values.batching_parameters_file),
        per_model_batching=values.enable_batching and values.enable_per_model_batching_parameters,
        prefer_tflite_model=values.prefer_tflite_model,
        serialize_as_tensor_content=values.enable_serialization_as_tensor_content,
        reloadable_base_paths=values.reloadable_base_paths if values.allow_model_config_reload else None,
        health_service=values.enable_grpc_healthcheck_service,
        profiler_service=values.enable_profiler,
        prometheus_path=(
            config_files.read_prometheus_path(values.monitoring_config_file)
            if values.monitoring_config_file
            else None
        ),
        log_format=values.log_format,
        shutdown_grace_seconds=values.shutdown_grace_seconds,
    )


def _check(values: flags.FlagValues) -> None:
    """What flags say together."""
    if not values.model_base_path and not values.model_config_file:
        raise UsageError(
            "what to serve? --model_base_path=BASE is the folder that holds <version>/; "
            "--model_config_file=FILE lists several models"
        )
    if not values.model_name and not values.model_config_file:
        raise UsageError("--model_name is empty")
    if values.rest_api_port and values.rest_api_port == values.port:
        raise UsageError(f"--rest_api_port={values.port} cannot be same as --port; give it another")
    if values.batching_parameters_file and not values.enable_batching:
        raise UsageError("--batching_parameters_file is set without setting --enable_batching to true")
    if values.allow_model_config_reload and not values.reloadable_base_paths:
        raise UsageError(
            "--allow_model_config_reload needs --reloadable_base_paths=DIR,DIR, the folders that callers may "
            "have models from"
        )
    for path in values.reloadable_base_paths:
        if not os.path.isabs(path):
            raise UsageError(f"--reloadable_base_paths: {path} is not an absolute path")


def _models(values: flags.FlagValues) -> Sequence[ModelConfig]:
    models = config_files.read_models(values.model_config_file)
    labelled = [(model.name, number) for model in models for number in model.labels.values()]
    if labelled and not values.allow_version_labels_for_unavailable_models:
        name, number = labelled[0]
        raise UserError(
            f"Request to assign label to version {number} of model {name}, which is not currently available "
            "for inference; --allow_version_labels_for_unavailable_models lets labels be given at the start "
            f"(--model_config_file={values.model_config_file})"
        )
    return models


def parse_channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """KEY=VALUE,KEY=VALUE; a value that is an int32 is one.

    Raises:
        UsageError: a part has no value.
    """
    arguments: list[tuple[str, int | str]] = []
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not key or not separator:
            raise UsageError(f"--grpc_channel_arguments: {part} is not KEY=VALUE")
        is_number = re.fullmatch(r"-?\d{1,10}", value, re.ASCII) and int(value) in _INT32
        arguments.append((key, int(value) if is_number else value))
    return arguments


def _read_token(path: str) -> str:
    try:
        token = config_files.read_text(path).strip()
        if not token:
            raise ValueError("the file is empty")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("a token is of one line of printable ASCII characters")
    except ValueError as error:
        raise UserError(f"{error} (--bearer_token_file={path})") from error
    return token


def _batching(enabled: bool, path: str | None) -> BatchingOptions | None:
    if not enabled:
        return None
    return config_files.read_batching(path) if path else BatchingOptions()


def define_flags() -> None:
    """Defined when the program runs, so that importing this module claims no flag names."""
    for flag in FLAGS:
        if flag.choices:
            flags.DEFINE_enum(flag.name, flag.default, flag.choices, flag.help)
        elif isinstance(flag.default, bool):
            flags.DEFINE_boolean(flag.name, flag.default, flag.help)
        elif isinstance(flag.default, int):
            flags.DEFINE_integer(flag.name, flag.default, flag.help, flag.least, flag.most)
        elif isinstance(flag.default, float):
            flags.DEFINE_float(flag.name, flag.default, flag.help, flag.least)
        elif isinstance(flag.default, list):
            flags.DEFINE_list(flag.name, flag.default, flag.help)
        else:
            flags.DEFINE_string(flag.name, flag.default, flag.help)
