"""How to reach a model server over gRPC, and what it means when it does not answer.

Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import grpc

MAX_RETRIES = 4  # gRPC makes at most five attempts, whatever it is told
_RETRIED = (  # HandleReloadConfigRequest is not among them
    {"service": "tensorflow.serving.PredictionService"},
    {"service": "tensorflow.serving.ModelService", "method": "GetModelStatus"},
    {"service": "rnn_zoo.serving.GenerationService"},
)
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),  # or a request of over 256 KiB would not be sent again
    ("grpc.initial_reconnect_backoff_ms", 100),  # or no retry in the first second would try to connect
)
_CONNECTION_FAILED = re.compile("failed to connect|DNS resolution failed", re.IGNORECASE)
_UNKNOWN_INPUTS = re.compile(
    r"Used request inputs: (?P<used>.*?), request input: (?P<sent>.*)|Sent extra: {(?P<extra>[^{}]+)}"
)
_NO_SUCH_VERSION = re.compile(r"^Servable not found for request: Specific\(|^Could not find version ")
Pem: TypeAlias = bytes | str | os.PathLike[str]


class ServerError(Exception):
    """There is no answer, or not the one that was asked for. In one line it says what to do about it."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


@dataclasses.dataclass(frozen=True)
class Tls:
    """For an encrypted connection: certificates in PEM format, as bytes, or as paths of files."""

    root_certificates: Pem | None = None  # of whom the server's certificate is; None: those that gRPC knows
    certificate: Pem | None = None  # the caller's, where the server wants to see one
    key: Pem | None = dataclasses.field(default=None, repr=False)  # to that certificate

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC makes of them.

        Raises:
            ValueError: the certificate has no key, or the key no certificate.
            OSError: a file cannot be read.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("the caller's certificate and its key are given together, or neither is")
        return grpc.ssl_channel_credentials(*map(_read, (self.root_certificates, self.key, self.certificate)))


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()


@dataclasses.dataclass(frozen=True)
class Connection:
    """A server, and how it is spoken to."""

    server: str  # HOST:PORT, or unix:/PATH
    timeout_s: float = 60.0  # for an answer, all tries together
    retries: int = 3  # after UNAVAILABLE, at most MAX_RETRIES
    bearer_token: str = dataclasses.field(default="", repr=False)
    tls: Tls | None = None

    def channel(self, module: Any, arguments: Iterable[tuple[str, int]] = ()) -> Any:
        """A channel of `grpc` or of `grpc.aio`, with further arguments of gRPC's.

        gRPC itself tries again: after 0.1, 0.2, 0.4 and 0.8 s, give or take a fifth, and never once a part of
        an answer has arrived.
        """
        if not 0 <= self.retries <= MAX_RETRIES:
            raise ValueError(f"{self.retries} retries: there can be 0 to {MAX_RETRIES}")
        options: list[tuple[str, int | str]] = [*_CHANNEL_OPTIONS, *arguments]
        options.append(("grpc.enable_retries", int(self.retries > 0)))
        if self.retries:
            options.append(("grpc.service_config", json.dumps(_service_config(self.retries + 1))))
        if self.tls is None:
            return module.insecure_channel(self.server, options=options)
        return module.secure_channel(self.server, self.tls.credentials(), options=options)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each request."""
        return (("authorization", f"Bearer {self.bearer_token}"),) if self.bearer_token else ()

    def error(self, model: str, error: Any) -> ServerError:
        """What a grpc.RpcError means for whoever asked about a model."""
        code, details = error.code(), " ".join((error.details() or "").split())
        return ServerError(code, self._explain(model, code, details))

    def misfit(self, model: str, reason: object) -> ServerError:
        """The error of a model that has answered something else than was asked."""
        return ServerError(grpc.StatusCode.FAILED_PRECONDITION, self._misfit(model, reason))

    def _misfit(self, model: str, reason: object) -> str:
        return f"{model!r} at {self.server} is not a model that can do this: {reason}"

    def _explain(self, model: str, code: grpc.StatusCode, details: str) -> str:
        if code is grpc.StatusCode.UNAVAILABLE and _CONNECTION_FAILED.search(details):
            return f"no server answers at {self.server}; is zoo-serve running there? ({details})"
        if code is grpc.StatusCode.UNAVAILABLE:
            return f"{self.server} cannot answer now: {details}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and details == "Deadline Exceeded":  # not the server's
            return f"{self.server} gave no answer within {self.timeout_s:g} s; --timeout_s=N waits longer"
        if code is grpc.StatusCode.NOT_FOUND and _NO_SUCH_VERSION.search(details):
            return (
                f"{self.server} does not serve that version of the model {model!r}; "
                f"are --model and --version right? ({details})"
            )
        if code is grpc.StatusCode.NOT_FOUND:
            return f"{self.server} does not serve the model {model!r}; is --model right? ({details})"
        if code is grpc.StatusCode.FAILED_PRECONDITION and "signature" in details:
            return self._misfit(model, details)
        if code is grpc.StatusCode.INVALID_ARGUMENT and (names := _unknown_inputs(details)):
            details = f"the model {model!r} has no input {names}; is it an earlier export? ({details})"
        return f"{self.server} refused: {code.name}: {details}"


def _unknown_inputs(details: str) -> str:
    """Those that a refused request has and the signature lacks, '' if that is not why it was refused."""
    if (found := _UNKNOWN_INPUTS.search(details)) is None:
        return ""
    used, sent = found["used"] or "", found["sent"] or found["extra"]
    return ", ".join(sorted(set(sent.split(",")) - set(used.split(","))))


def _service_config(attempts: int) -> dict[str, Any]:
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.1s",
        "backoffMultiplier": 2,
        "maxBackoff": "2s",
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": _RETRIED, "retryPolicy": policy}]}
