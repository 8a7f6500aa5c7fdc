"""tensorflow.serving.ModelService: the state of every version."""

from __future__ import annotations

from typing import Any

import grpc

from serving.messages import get_model_status_pb2
from serving.repository import Repository, State
from serving.rpc import StatusError, model_spec


class ModelService:
    """Answers as the stock server does (model_servers/get_model_status_impl.cc)."""

    def __init__(self, repository: Repository):
        self._repository = repository

    def GetModelStatus(  # noqa: N802 - the RPC's name
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of all versions seen since the start, newest first, or of the one asked for."""
        spec = model_spec(request)
        versions = self._repository.versions(spec.name)
        if spec.HasField("version"):
            number = spec.version.value
            versions = [version for version in versions if version[0] == number]
            missing = f"Could not find version {number} of model {spec.name}"
        else:
            missing = f"Could not find any versions of model {spec.name}"
        if not versions:
            raise StatusError(grpc.StatusCode.NOT_FOUND, missing)
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state, error in versions:
            _add_status(response, number, state, error)
        return response


def _add_status(response: Any, number: int, state: State, error: StatusError | None) -> None:
    status = response.model_version_status.add(version=number, state=int(state))
    status.status.SetInParent()  # present also when all is well: code OK, no message
    if error is not None:
        status.status.error_code = error.code.value[0]
        status.status.error_message = error.message
