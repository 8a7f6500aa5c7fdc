"""A TensorFlow Lite model in memory, served like a SavedModel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from serving import tensors
from serving.messages import meta_graph_pb2
from serving.rpc import StatusError, invalid
from serving.saved_model import Signature

FILE = "model.tflite"
_METHOD = "tensorflow/serving/predict"
_READ = """
import sys, tensorflow
interpreter = tensorflow.lite.Interpreter(model_path=sys.argv[1])
for name in interpreter.get_signature_list():
    interpreter.get_signature_runner(name)
interpreter.allocate_tensors()
"""


class TfLiteModel:
    """Runs the signatures of the model.tflite in a version's folder, one request at a time."""

    def __init__(self, path: str):
        """Loads the model.

        Raises:
            StatusError: it cannot be loaded, or has no signatures.
        """
        file = os.path.join(path, FILE)
        _check_file(file)
        try:
            with warnings.catch_warnings():
                # TensorFlow has announced for some releases that this will move to a package of its own.
                warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated")
                interpreter = tf.lite.Interpreter(model_path=file)
            names = interpreter.get_signature_list()
            self._runners = {name: interpreter.get_signature_runner(name) for name in names}
        except (ValueError, RuntimeError) as error:
            raise invalid(f"{FILE}: {str(error).strip()}") from error
        if not self._runners:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, f"{FILE} has no signatures")
        self.signature_protos = {name: _signature_def(runner) for name, runner in self._runners.items()}
        self.signatures = {
            name: Signature.from_proto(name, proto) for name, proto in self.signature_protos.items()
        }
        self._lock = threading.Lock()  # an interpreter holds the tensors of one run

    def run(self, signature: Signature, feeds: Sequence[np.ndarray], outputs: Sequence[str]) -> list[Any]:
        """The values of the outputs named, for one array per input of the signature, in its order.

        Raises:
            StatusError: an input has another dtype or shape than the signature says.
        """
        inputs = dict(zip(signature.input_tensors, feeds, strict=True))
        for index, (alias, feed) in enumerate(inputs.items()):
            _check_input(index, feed, self.signature_protos[signature.name].inputs[alias])
        with self._lock:
            try:
                values = self._runners[signature.name](**inputs)
            except (ValueError, RuntimeError) as error:
                raise invalid(str(error).strip()) from error
            return [np.array(values[alias]) for alias in outputs]

    def close(self) -> None:
        """Frees the memory. Nothing may be running."""
        self._runners.clear()


def _check_file(file: str) -> None:
    """Has another process read the file first: a damaged one takes down whoever reads it, with a signal."""
    if not os.path.isfile(file):
        raise StatusError(grpc.StatusCode.NOT_FOUND, f"{FILE}: there is none")
    done = subprocess.run([sys.executable, "-c", _READ, file], capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise invalid(f"{FILE} is damaged: reading it ends in {signal.Signals(-done.returncode).name}")
    if done.returncode > 0:
        raise invalid(f"{FILE} is damaged: {done.stderr.strip().rpartition(chr(10))[2]}")


def _check_input(index: int, feed: np.ndarray, info: Any) -> None:
    """The interpreter would take any shape, and not all its operations look at what they get."""
    dtype = tensors.array_dtype(info.dtype)
    if feed.dtype != dtype:
        expected = "of another kind" if dtype is None else tensors.dtype_name(dtype)
        raise invalid(
            f"Expects arg[{index}] to be {expected} but {tensors.dtype_name(feed.dtype)} is provided"
        )
    sizes = [dim.size for dim in info.tensor_shape.dim]
    if len(sizes) != feed.ndim or any(
        size not in (-1, given) for size, given in zip(sizes, feed.shape, strict=True)
    ):
        raise invalid(f"Expects arg[{index}] to have shape {sizes} but {list(feed.shape)} is provided")


def _signature_def(runner: Any) -> Any:
    proto = meta_graph_pb2.SignatureDef(method_name=_METHOD)
    for infos, details in (
        (proto.inputs, runner.get_input_details()),
        (proto.outputs, runner.get_output_details()),
    ):
        for alias, detail in details.items():
            info = infos[alias]
            info.name = detail["name"]
            info.dtype = tf.dtypes.as_dtype(detail["dtype"]).as_datatype_enum
            info.tensor_shape.SetInParent()
            shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
            for size in shape.tolist():
                info.tensor_shape.dim.add(size=size)
    return proto
