"""The stock server's configuration files: messages in protobuf's text format."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from absl import logging
from google.protobuf import text_format

from serving import config_messages, model_config
from serving.batching import BatchingOptions
from serving.messages import model_server_config_pb2
from serving.model_config import ModelConfig
from serving.program import UserError
from serving.rpc import StatusError, invalid

# Where Prometheus finds the metrics unless the monitoring configuration says otherwise.
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
_BATCHING_FILE = "batching_params.pbtxt"


@dataclasses.dataclass(frozen=True)
class Tls:
    """What a TLS configuration says, as PEM text."""

    server_key: str = dataclasses.field(repr=False)
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False  # callers must show a certificate that `custom_ca` vouches for


def read_models(path: str) -> list[ModelConfig]:
    """The models in the file of --model_config_file; none where it says nothing.

    Raises:
        UserError: the file cannot be read, or what it says cannot be served.
    """
    try:
        config = parse_models(read_text(path))
        if config.WhichOneof("config") is None:
            logging.info("Taking no action for empty config.")
        return model_config.from_proto(config)
    except (ValueError, StatusError) as error:
        raise _unusable("model_config_file", path, error) from error


def parse_models(text: str) -> model_server_config_pb2.ModelServerConfig:
    """The ModelServerConfig in the text of such a file.

    Raises:
        ValueError: it is none, or one that does not list models.
    """
    config = _parse(text, model_server_config_pb2.ModelServerConfig())
    if config.WhichOneof("config") == "custom_model_config":
        raise ValueError("ModelServer does not yet support custom model config.")
    return config


def read_tls(path: str) -> Tls:
    """The file of --ssl_config_file. No error message quotes what is in it."""
    try:
        config = _parse(read_text(path), config_messages.SSLConfig(), secret=True)
        for field in ("server_key", "server_cert"):
            if not getattr(config, field):
                raise ValueError(f"{field} is missing")
        if config.client_verify and not config.custom_ca:
            raise ValueError("client_verify needs a custom_ca to verify clients with")
    except ValueError as error:
        raise _unusable("ssl_config_file", path, error) from None
    return Tls(config.server_key, config.server_cert, config.custom_ca, config.client_verify)


def read_prometheus_path(path: str) -> str | None:
    """Where the file of --monitoring_config_file puts Prometheus's metrics; None: it does not enable them."""
    try:
        config = _parse(read_text(path), config_messages.MonitoringConfig()).prometheus_config
        if config.path and not config.path.startswith("/"):
            raise ValueError(f"prometheus_config.path is {config.path}; it has to begin with /")
    except ValueError as error:
        raise _unusable("monitoring_config_file", path, error) from error
    return (config.path or PROMETHEUS_PATH) if config.enable else None


def read_batching(path: str) -> BatchingOptions:
    """The BatchingParameters in the file of --batching_parameters_file."""
    try:
        return _batching_options(path)
    except ValueError as error:
        raise _unusable("batching_parameters_file", path, error) from error


def read_model_batching(folder: str) -> BatchingOptions | None:
    """The BatchingParameters that a version brings along in its folder; None where it brings none.

    Raises:
        StatusError: the file cannot be used, and so the version cannot be loaded.
    """
    path = os.path.join(folder, _BATCHING_FILE)
    try:
        return _batching_options(path) if os.path.exists(path) else None
    except ValueError as error:
        raise invalid(f"Invalid protobuf file: '{path}': {error}") from error


def _batching_options(path: str) -> BatchingOptions:
    parameters = _parse(read_text(path), config_messages.BatchingParameters())
    given: dict[str, Any] = {}
    for name, least in (
        ("max_batch_size", 1),
        ("batch_timeout_micros", 0),
        ("max_enqueued_batches", 1),
        ("num_batch_threads", 1),
    ):
        if parameters.HasField(name):
            given[name] = getattr(parameters, name).value
            if given[name] < least:
                raise ValueError(f"{name} is {given[name]}; it must be at least {least}")
    if "batch_timeout_micros" in given:
        given["batch_timeout_seconds"] = given.pop("batch_timeout_micros") / 1e6
    options = BatchingOptions(**given, allowed_batch_sizes=tuple(parameters.allowed_batch_sizes))
    _check_sizes(options)
    for name in ("pad_variable_length_inputs", "enable_large_batch_splitting", "max_execution_batch_size"):
        if name in {field.name for field, _ in parameters.ListFields()}:
            logging.info("%s has no effect here (%s)", name, path)
    return options


def _check_sizes(options: BatchingOptions) -> None:
    sizes = options.allowed_batch_sizes
    if any(size >= following for size, following in zip([0, *sizes], sizes, strict=False)):
        raise ValueError(f"allowed_batch_sizes are {list(sizes)}; they must be positive and increase")
    if sizes and sizes[-1] != options.max_batch_size:
        raise ValueError(
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
            f"{sizes[-1]}; expected {options.max_batch_size}"
        )


def read_text(path: str) -> str:
    """What is in a file.

    Raises:
        ValueError: it cannot be read, or is no text.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from error
    except UnicodeDecodeError as error:
        raise ValueError("not a text file") from error


def _parse(text: str, message: Any, secret: bool = False) -> Any:
    """The message in a text; of a secret one, an error says only where it is."""
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        place, _, reason = str(error).partition(" : ")
        where = f"Error parsing text-format {message.DESCRIPTOR.full_name}: {place}"
        raise ValueError(where if secret else f"{where}: {reason}") from error


def _unusable(flag: str, path: str, error: Exception) -> UserError:
    return UserError(f"{error} (--{flag}={path})")
