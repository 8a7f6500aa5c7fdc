"""TensorFlow Serving's messages and stubs, without the seconds that importing TensorFlow takes.

The generated modules of `tensorflow_serving.apis` import the messages in `tensorflow.core`, and
Python executes a package before its parts: `tensorflow/__init__.py` brings in all of TensorFlow.
The messages themselves need none of it. So while they are imported, an empty module stands in
for the `tensorflow` package and tells Python only where its parts lie. Afterwards it is gone, and
`import tensorflow` works as ever and meets the very same message classes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def _unexecuted(package: str) -> Iterator[None]:
    """Lets parts of `package` be imported without running the package's own `__init__`."""
    if package in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    stand_in = types.ModuleType(package)
    stand_in.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = stand_in
    try:
        yield
    finally:
        del sys.modules[package]


with _unexecuted("tensorflow"):
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        input_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "classification_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "tensor_pb2",
    "types_pb2",
]
