"""What a server can be asked about its models and itself."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import text_format
from grpc_health.v1 import health_pb2

from serving import tensors
from serving.calls import Call, Rpc, version_of
from serving.client_results import Metadata, Signature, TensorInfo, VersionStatus
from serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_server_config_pb2,
    types_pb2,
)

_METADATA = Rpc(
    "/tensorflow.serving.PredictionService/GetModelMetadata", get_model_metadata_pb2.GetModelMetadataResponse
)
_STATUS = Rpc("/tensorflow.serving.ModelService/GetModelStatus", get_model_status_pb2.GetModelStatusResponse)
_RELOAD = Rpc(
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest", model_management_pb2.ReloadConfigResponse
)
_HEALTH = Rpc("/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse)
_INITIALIZATION = "__saved_model_init_op"  # a signature that nobody can ask for
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def status(spec: Any) -> Call[list[VersionStatus]]:
    """Every version that the server has seen of the model, newest first."""
    return Call(_STATUS, get_model_status_pb2.GetModelStatusRequest(model_spec=spec), _versions)


def _versions(response: Any) -> list[VersionStatus]:
    state_name = get_model_status_pb2.ModelVersionStatus.State.Name
    return [
        VersionStatus(
            each.version,
            state_name(each.state),
            _CODES.get(each.status.error_code, "UNKNOWN"),
            each.status.error_message,
        )
        for each in response.model_version_status
    ]


def metadata(spec: Any) -> Call[Metadata]:
    """The model's signatures: dtype, shape and default of each input, dtype and shape of each output."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    )
    return Call(_METADATA, request, _metadata)


def _metadata(response: Any) -> Metadata:
    found = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(found)
    signatures = {
        name: _signature(proto) for name, proto in found.signature_def.items() if name != _INITIALIZATION
    }
    return Metadata(signatures, version_of(response))


def _signature(proto: Any) -> Signature:
    inputs = {alias: _tensor_info(info) for alias, info in proto.inputs.items()}
    for alias, default in proto.defaults.items():
        inputs[alias] = inputs[alias]._replace(default=tensors.to_array(default))
    outputs = {alias: _tensor_info(info) for alias, info in proto.outputs.items()}
    return Signature(proto.method_name, inputs, outputs)


def _tensor_info(info: Any) -> TensorInfo:
    dtype = types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
    if info.tensor_shape.unknown_rank:
        return TensorInfo(dtype, None)
    return TensorInfo(dtype, tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim))


def reload(_: Any, config: str) -> Call[None]:
    """Has the server serve what a ModelServerConfig in text format says, and nothing else.

    Waits until models that are new can answer. It is not tried again.

    Raises:
        ValueError: the text is no ModelServerConfig.
    """
    message = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(config, message)
    except text_format.ParseError as error:
        raise ValueError(f"Error parsing text-format {message.DESCRIPTOR.full_name}: {error}") from error
    request = model_management_pb2.ReloadConfigRequest(config=message)
    return Call(_RELOAD, request, lambda response: None)


def is_serving(_: Any) -> Call[bool]:
    """Whether the server says that all of its models can answer; it is not tried again."""
    return Call(_HEALTH, health_pb2.HealthCheckRequest(), _is_serving)


def _is_serving(response: Any) -> bool:
    return response.status == health_pb2.HealthCheckResponse.SERVING
