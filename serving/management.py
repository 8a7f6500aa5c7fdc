"""tensorflow.serving.ModelService: the state of every version, and which models are served."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import grpc
from absl import logging

from serving import model_config
from serving.messages import get_model_status_pb2, model_management_pb2, model_server_config_pb2
from serving.model_config import ModelConfig
from serving.repository import Repository, State
from serving.rpc import StatusError, invalid, model_spec


class ModelService:
    """Answers as the stock server does (model_servers/get_model_status_impl.cc, model_service_impl.cc)."""

    def __init__(self, repository: Repository, reloadable_base_paths: Sequence[str] | None = None):
        """Lets callers change the configuration only where `reloadable_base_paths` is given.

        They can have models then that lie in one of these folders, besides those that are served already.
        """
        self._repository = repository
        self._reloadable_base_paths = reloadable_base_paths

    def GetModelStatus(  # noqa: N802 - the RPC's name
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of all versions known, newest first, or of the one asked for; labels are ignored."""
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

    async def HandleReloadConfigRequest(  # noqa: N802 - the RPC's name
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the whole configuration, then waits until models that were not in the old one can answer.

        It waits for as long as the call lasts: whoever gives it a deadline, or gives up, cancels it. The new
        configuration is in force then all the same.
        """
        if self._reloadable_base_paths is None:
            raise _denied("HandleReloadConfigRequest is off; --allow_model_config_reload turns it on")
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        added = await asyncio.to_thread(self._configure, request.config)
        await self._wait_until_available(added)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()  # code OK
        return response

    def _configure(self, config: model_server_config_pb2.ModelServerConfig) -> set[str]:
        models = [
            self._confined(model) for model in model_config.from_proto(config, self._repository.model_names())
        ]
        added = self._repository.configure(models)
        logging.info(
            "configured by a caller to serve %s", ", ".join(model.name for model in models) or "nothing"
        )
        return added

    def _confined(self, model: ModelConfig) -> ModelConfig:
        """Keeps callers to the folders that are theirs, whatever links and dots their paths are made of."""
        if model.base_path == self._repository.base_path(model.name):
            return model
        real = os.path.realpath(model.base_path)
        for folder in map(os.path.realpath, self._reloadable_base_paths or ()):
            if os.path.commonpath([real, folder]) == folder:
                return model._replace(base_path=real)  # what links point to later does not matter
        raise _denied(
            f"Model {model.name} has base_path {model.base_path}, which is in none of the folders of "
            "--reloadable_base_paths"
        )

    async def _wait_until_available(self, names: AbstractSet[str]) -> None:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(changed.set)

        with self._repository.listening(wake):
            while not self._repository.check_available(names):
                await changed.wait()
                changed.clear()


def _denied(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.PERMISSION_DENIED, message)


def _add_status(response: Any, number: int, state: State, error: StatusError | None) -> None:
    status = response.model_version_status.add(version=number, state=int(state))
    status.status.SetInParent()  # present also when all is well: code OK, no message
    if error is not None:
        status.status.error_code = error.code.value[0]
        status.status.error_message = error.message
