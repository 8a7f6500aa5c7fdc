"""One call of a model server: the request, and how its response is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from serving import tensors
from serving.messages import model_pb2, predict_pb2

T = TypeVar("T")


class Rpc(NamedTuple):
    """A method of a gRPC service."""

    path: str
    response: Any  # the class of its messages
    streams: bool = False  # whether it responds with any number of them


PREDICT = Rpc("/tensorflow.serving.PredictionService/Predict", predict_pb2.PredictResponse)


@dataclasses.dataclass(frozen=True)
class Call(Generic[T]):
    """What is asked, and how a message of the response is understood."""

    rpc: Rpc
    request: Any
    read: Callable[[Any], T]  # raises ValueError where a model has answered something else


def model_spec(model: str, version: int | None = None, label: str = "") -> model_pb2.ModelSpec:
    """Which model is asked: its newest version, or the one of that number, or the one with that label."""
    if version is not None and label:
        raise ValueError("a version is asked for by its number or by its label, not by both")
    spec = model_pb2.ModelSpec(name=model)
    if version is not None:
        spec.version.value = version
    if label:
        spec.version_label = label
    return spec


def predict_request(
    spec: Any, signature: str, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str] = ()
) -> predict_pb2.PredictRequest:
    """A request for the outputs of a signature.

    Raises:
        TypeError: an input's dtype cannot be sent.
    """
    request = predict_pb2.PredictRequest(model_spec=spec, output_filter=output_filter)
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        try:
            tensors.to_proto(_with_bytes(value), request.inputs[alias])
        except KeyError as error:
            raise TypeError(f"input {alias!r} is of dtype {value.dtype}, which cannot be sent") from error
    return request


def _with_bytes(array: np.ndarray) -> np.ndarray:
    """Strings as what is sent for them; the bytes of a shell's arguments as they came."""
    if array.dtype.kind not in "OSU":
        return array
    strings = [
        value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        for value in array.reshape(-1).tolist()
    ]
    encoded = np.empty(len(strings), np.object_)
    encoded[:] = strings
    return encoded.reshape(array.shape)


def row(value: Any, dtype: Any = np.object_) -> np.ndarray:
    """An input of one row."""
    return np.array([value], dtype)


def version_of(response: Any) -> int:
    """The version that gave a response."""
    return response.model_spec.version.value


def texts_of(response: Any, alias: str) -> list[str]:
    """The elements of an output of strings."""
    return [value.decode("utf-8", "replace") for value in bytes_of(response, alias)]


def bytes_of(response: Any, alias: str) -> list[bytes]:
    """The elements of an output of strings, which need not be whole characters."""
    array = _elements(response, alias)
    if array.dtype != np.object_:
        raise ValueError(f"its output {alias!r} is not of strings")
    return array.tolist()


def numbers_of(response: Any, alias: str) -> np.ndarray:
    """The elements of an output of numbers."""
    array = _elements(response, alias)
    if array.dtype == np.object_:
        raise ValueError(f"its output {alias!r} is not of numbers")
    return array


def text_of(response: Any, alias: str) -> str:
    """An output of strings of one row."""
    return _first(texts_of(response, alias), alias)


def number_of(response: Any, alias: str) -> Any:
    """An output of numbers of one row."""
    return _first(numbers_of(response, alias), alias)


def _first(elements: Any, alias: str) -> Any:
    if not len(elements):
        raise ValueError(f"its output {alias!r} is empty")
    return elements[0]


def _elements(response: Any, alias: str) -> np.ndarray:
    if alias not in response.outputs:
        raise ValueError(f"it gives no output {alias!r}: {', '.join(sorted(response.outputs))}")
    return tensors.to_array(response.outputs[alias]).reshape(-1)
