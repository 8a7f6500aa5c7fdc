"""A SavedModel in memory: a graph session, as the stock server has it.

The only module of the server that imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 - registers the ops that our models' tokenizers are made of
from tensorflow.core.protobuf import config_pb2

from serving import tensors
from serving.rpc import StatusError, invalid

# Each combination of outputs that callers ask for has a callable (and, in TensorFlow, an executor)
# of its own. Beyond this many, all outputs are computed and some thrown away.
_MAX_CALLABLES = 64


def set_up_tensorflow() -> None:
    """Gets over with what TensorFlow does once and talks about: probing devices, deprecations."""
    tf.get_logger().setLevel("ERROR")
    tf.config.list_physical_devices()
    tf.compat.v1.Session(graph=tf.Graph()).close()


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature, taken out of its proto once, since protos are slow to read."""

    name: str
    input_tensors: Mapping[str, str]  # by alias, in the order in which they are fed
    output_tensors: Mapping[str, str]
    input_dtypes: Sequence[np.dtype | None]  # None: no array has that dtype; TensorFlow will object
    defaults: Mapping[str, np.ndarray]
    is_batched: bool  # whether the first dimension of all inputs and outputs is free: the batch

    @classmethod
    def from_proto(cls, name: str, proto: Any) -> Signature:
        inputs = sorted(proto.inputs.items())  # proto maps come in any order
        infos = [*proto.inputs.values(), *proto.outputs.values()]
        return cls(
            name=name,
            input_tensors={alias: info.name for alias, info in inputs},
            output_tensors={alias: info.name for alias, info in sorted(proto.outputs.items())},
            input_dtypes=[tensors.array_dtype(info.dtype) for _, info in inputs],
            defaults={alias: tensors.to_array(value) for alias, value in proto.defaults.items()},
            is_batched=all(_has_batch_dimension(info.tensor_shape) for info in infos),
        )


def _has_batch_dimension(shape: Any) -> bool:
    return not shape.unknown_rank and len(shape.dim) > 0 and shape.dim[0].size == -1


class SavedModel:
    """Runs the signatures of one SavedModel; safe to use from many threads."""

    def __init__(self, path: str, tags: Sequence[str] = ("serve",)):
        """Loads the SavedModel below `path`.

        Raises:
            StatusError: it cannot be loaded, and why.
        """
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        self._callables: dict[tuple[str, tuple[str, ...]], Callable] = {}
        try:
            meta_graph = tf.compat.v1.saved_model.load(self._session, list(tags), path)
            self.signature_protos = meta_graph.signature_def
            self.signatures = {
                name: Signature.from_proto(name, proto) for name, proto in meta_graph.signature_def.items()
            }
        except Exception as error:
            self._session.close()
            raise _load_error(error) from error

    def run(self, signature: Signature, feeds: Sequence[np.ndarray], outputs: Sequence[str]) -> list[Any]:
        """The values of the outputs named, for one array per input of the signature, in its order.

        Raises:
            StatusError: a dtype differs, or TensorFlow says so.
        """
        _check_dtypes(signature, feeds)
        try:
            return self._fetch(signature, feeds, outputs)
        except tf.errors.OpError as error:
            raise StatusError(error.error_code, error.message) from error
        except UnicodeDecodeError as error:  # TensorFlow's message quotes bytes of the input
            raise invalid(error.object.decode("utf-8", "replace")) from error

    def _fetch(self, signature: Signature, feeds: Sequence[np.ndarray], outputs: Sequence[str]) -> list[Any]:
        key = (signature.name, tuple(outputs))
        run = self._callables.get(key)
        if run is None:
            everything = tuple(signature.output_tensors)
            if len(self._callables) >= _MAX_CALLABLES and key[1] != everything:
                values = dict(zip(everything, self._fetch(signature, feeds, everything), strict=True))
                return [values[alias] for alias in outputs]
            run = self._callables[key] = self._make_callable(signature, outputs)
        return run(*feeds)

    def _make_callable(self, signature: Signature, outputs: Sequence[str]) -> Callable:
        options = config_pb2.CallableOptions(
            feed=signature.input_tensors.values(),
            fetch=[signature.output_tensors[alias] for alias in outputs],
        )
        # -1: the operations run in the thread that calls. Handing a small graph to a thread pool costs
        # several times what it takes to run, and a server has parallel work enough in its callers.
        options.run_options.inter_op_thread_pool = -1
        # Not public, and used by Keras for the same reason: the public make_callable and Session.run cast
        # and check the feeds in Python, which costs four times as much and hides what TensorFlow would say.
        return self._session._make_callable_from_options(options)

    def close(self) -> None:
        """Frees the memory. Nothing may be running."""
        self._callables.clear()
        self._session.close()
        del self._session
        gc.collect()  # graphs are full of reference cycles, and weights hang on them


def _check_dtypes(signature: Signature, feeds: Sequence[np.ndarray]) -> None:
    for index, (feed, expected) in enumerate(zip(feeds, signature.input_dtypes, strict=True)):
        if feed.dtype != expected and expected is not None:
            raise invalid(
                f"Expects arg[{index}] to be {tensors.dtype_name(expected)} "
                f"but {tensors.dtype_name(feed.dtype)} is provided"
            )


def _load_error(error: Exception) -> StatusError:
    if isinstance(error, tf.errors.OpError):
        return StatusError(error.error_code, error.message)
    if isinstance(error, OSError):  # no saved_model.pb, or one that does not parse
        return StatusError(grpc.StatusCode.NOT_FOUND, str(error))
    return StatusError(grpc.StatusCode.FAILED_PRECONDITION, f"{type(error).__name__}: {error}")
