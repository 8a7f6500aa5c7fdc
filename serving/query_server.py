"""The commands of zoo-query that ask a server about its models and itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
from absl import flags

from serving import management_calls, program, query_flags
from serving.client import Client, ServerError, models
from serving.client_results import Metadata, ServedModel, TensorInfo
from serving.query_output import finish, show


def _status(client: Client) -> None:
    versions = client.status()
    for version in versions:
        error = f": {version.error_code}: {version.error_message}" if version.error_message else ""
        show(f"{client.model} version {version.version} is {version.state}{error}")
    finish({"model": client.model, "versions": versions})


def _metadata(client: Client) -> None:
    metadata = client.metadata()
    show(f"{client.model} version {metadata.version}")
    show(_signatures(metadata))
    finish({"model": client.model, "version": metadata.version, "signatures": metadata.signatures})


def _signatures(metadata: Metadata) -> str:
    """Each signature with its inputs and outputs, in columns."""
    blocks = []
    for name, signature in sorted(metadata.signatures.items()):
        width = max(map(len, [*signature.inputs, *signature.outputs]), default=0)
        lines = [name, *_lines("<-", signature.inputs, width), *_lines("->", signature.outputs, width)]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _lines(arrow: str, tensors: Mapping[str, TensorInfo], width: int) -> list[str]:
    return [f"  {arrow} {alias:{width}}  {_tensor(info)}" for alias, info in sorted(tensors.items())]


def _tensor(info: TensorInfo) -> str:
    if info.shape is None:
        shape = "of any shape"
    else:
        shape = f"[{', '.join('?' if size is None else str(size) for size in info.shape)}]"
    default = "" if info.default is None else f", {_value(info.default)} if not given"
    return f"{info.dtype} {shape}{default}"


def _value(array: np.ndarray) -> str:
    return np.array2string(array, separator=", ", threshold=8).replace("\n", "")


def _models(_: Client) -> None:
    served = models(query_flags.rest_server(), flags.FLAGS.timeout_s, query_flags.bearer_token())
    for model in served:
        versions = ", ".join(f"version {number} is {state}" for number, state in model.versions.items())
        show(f"{model.name}: {versions or 'no version yet'}")
    finish({"models": [{"name": model.name, "versions": _listed(model)} for model in served]})


def _listed(model: ServedModel) -> list[dict[str, Any]]:
    return [{"version": number, "state": state} for number, state in model.versions.items()]


def _reload(client: Client) -> None:
    text = query_flags.read_file("model_config_file").decode("utf-8", "replace")
    try:
        call = management_calls.reload(client.spec, text)
    except ValueError as error:
        path = flags.FLAGS.model_config_file
        raise program.UserError(f"{error} (--model_config_file={path})") from error
    client.ask(call)
    names = [model.name for model in call.request.config.model_config_list.config]
    show(f"{client.server} now serves {', '.join(names) or 'nothing'}")
    finish({"reloaded": names})


def _health(client: Client) -> None:
    try:
        serving = client.is_serving()
    except ServerError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        raise program.UserError(
            f"{client.server} says nothing about its health; --enable_grpc_healthcheck_service lets it"
        ) from error
    if not serving:
        raise program.UserError(f"{client.server} is not serving: not all of its models can answer")
    show(f"{client.server} is serving")
    finish({"serving": True})


COMMANDS: Mapping[str, Callable[[Client], None]] = {
    "status": _status,
    "metadata": _metadata,
    "models": _models,
    "reload": _reload,
    "health": _health,
}
