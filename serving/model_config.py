"""Which models are to be served, and which of their versions: a ModelServerConfig, checked and taken apart.

The checks, their order and their words are the stock server's (model_servers/server_core.cc).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from serving.messages import model_server_config_pb2
from serving.rpc import invalid

_PLATFORM = "tensorflow"


@dataclasses.dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions that exist are wanted: the newest so many (None: all), or specific ones."""

    latest: int | None = 1
    specific: frozenset[int] | None = None

    def choose(self, numbers: Iterable[int]) -> frozenset[int]:
        """The wanted ones among the versions that exist."""
        if self.specific is not None:
            return self.specific.intersection(numbers)
        return frozenset(sorted(numbers, reverse=True)[: self.latest])

    def missing(self, numbers: Iterable[int]) -> frozenset[int]:
        """Versions that are asked for by number and do not exist."""
        return (self.specific or frozenset()).difference(numbers)

    @classmethod
    def from_proto(cls, proto: Any) -> VersionPolicy:
        """A ServableVersionPolicy; where nothing is chosen, the newest version is wanted."""
        choice = proto.WhichOneof("policy_choice")
        if choice == "all":
            return cls(latest=None)
        if choice == "specific":
            return cls(specific=frozenset(proto.specific.versions))
        return cls(latest=max(proto.latest.num_versions, 1))


class ModelConfig(NamedTuple):
    """One model to serve. A pair of name and base path is the short form of one."""

    name: str
    base_path: str
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = {}


def from_proto(
    config: model_server_config_pb2.ModelServerConfig, served: Collection[str] = ()
) -> list[ModelConfig]:
    """The models of a configuration that lists them; `served` are the names of those that run.

    Raises:
        StatusError: the list is not one that can be served, in the stock server's words.
    """
    models = config.model_config_list.config
    _check_names(models)
    for model in models:
        _check_base_path(model)
    for model in models:
        platform = _platform(model)
        if platform != _PLATFORM and model.name in served:
            raise invalid(
                f"Illegal to change a model's platform. For model {model.name} platform was {_PLATFORM} "
                f"and new platform requested is {platform}"
            )
        if platform != _PLATFORM:
            raise invalid(f"Model {model.name} requests unsupported platform {platform}")
        if model.HasField("logging_config"):
            raise invalid("No request-logger-creator provided.")
    return [
        ModelConfig(
            model.name,
            model.base_path,
            VersionPolicy.from_proto(model.model_version_policy),
            dict(model.version_labels),
        )
        for model in models
    ]


def _check_names(models: Iterable[Any]) -> None:
    seen = set()
    for model in models:
        if model.name in seen:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)


def _check_base_path(model: Any) -> None:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", model.base_path):
        raise invalid(
            f"Model {model.name} has base_path {model.base_path}, a URI; only folders can be served here"
        )
    if "\0" in model.base_path:
        raise invalid(f"Model {model.name} has a NUL character in its base_path")
    if not os.path.isabs(model.base_path):
        raise invalid(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
        )


def _platform(model: Any) -> str:
    """The platform's name, also from the field that said it once, `model_type`."""
    if not model.model_type:
        if not model.model_platform:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform."
            )
        return model.model_platform
    if model.model_platform:
        raise invalid(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform."
        )
    if model.model_type != model_server_config_pb2.TENSORFLOW:
        raise invalid(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
    return _PLATFORM
