"""How every unary RPC is answered: read the request, call the method, report what went wrong.

The stock stubs would report a request that does not parse as INTERNAL and an exception as UNKNOWN, with
its text. Here what is the caller's fault is said to be so, and the messages have the stock server's form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from absl import logging
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from serving.messages import model_pb2

_MAX_MESSAGE_BYTES = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """An error with a code of the protocol, meant for the caller."""

    def __init__(self, code: grpc.StatusCode | int, message: str):
        super().__init__(message)
        self.code = _CODES.get(code, grpc.StatusCode.UNKNOWN) if isinstance(code, int) else code
        self.message = message


def invalid(message: str) -> StatusError:
    """INVALID_ARGUMENT, by far the most frequent."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def truncated(message: str) -> str:
    """A message cut as the stock server cuts it (model_servers/grpc_status_util.cc)."""
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= _MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[:_MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"


def model_spec(request: Any) -> model_pb2.ModelSpec:
    """The request's model_spec; it may lack a name, but it has to be there."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def handler(service: Any, servicer: object) -> grpc.GenericRpcHandler:
    """Serves those methods of a service (its descriptor) that `servicer` has; the rest is UNIMPLEMENTED."""
    methods = {
        method.name: grpc.unary_unary_rpc_method_handler(_answer(method, getattr(servicer, method.name)))
        for method in service.methods
        if hasattr(servicer, method.name)
    }
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _answer(method: Any, call: Callable[[Any], Any]) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    request_class = GetMessageClass(method.input_type)

    def answer(body: bytes, context: grpc.ServicerContext) -> bytes:
        if not context.is_active():  # it waited for a thread longer than its caller for an answer
            context.abort(grpc.StatusCode.CANCELLED, "The caller has gone")
        try:
            return call(request_class.FromString(body)).SerializeToString()
        except StatusError as error:
            code, message = error.code, error.message
        except DecodeError:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, f"Not a {method.input_type.full_name}"
        except Exception:
            logging.exception("%s failed", method.full_name)
            code, message = grpc.StatusCode.INTERNAL, f"{method.name} failed; the server's log says why"
        context.abort(code, truncated(message))
        raise AssertionError("abort raises")

    return answer
