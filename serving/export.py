"""Export a trained model as a SavedModel.

    zoo-export --model_dir=DIR --export_base=BASE

Writes BASE/<version>/, a folder that zoo-serve and TensorFlow Serving pick up. What was written is
loaded again, as a server loads it, and compared with the model before it is moved into place in one
step. The last line of stdout is a JSON object with the folder and its signatures.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags
from tensorflow.core.protobuf import saved_model_pb2

from serving import program, signature_inputs, warmup
from serving.messages import predict_pb2
from serving.program import UserError
from zoo.model_directory import ModelDirectoryError, load_model
from zoo.models import TaskModel

MAX_WARMUP_BYTES = 1 << 20


def export(model: TaskModel, export_base: str | os.PathLike, version: int = 0) -> Path:
    """Write a model as EXPORT_BASE/<version>/ and give that folder.

    Raises:
        UserError: the version exists, or the exported model does not answer like the one in memory.
    """
    base = Path(export_base)
    base.mkdir(parents=True, exist_ok=True)
    version = version or 1 + max(
        (int(path.name) for path in base.iterdir() if path.name.isdigit()), default=0
    )
    folder, partial = base / str(version), base / f".{version}.{os.getpid()}.partial"
    if folder.exists():
        raise UserError(f"{folder} exists already; leave out --version for the next free one")
    try:
        write_saved_model(model, partial)
        verify(model, partial)
        os.rename(partial, folder)
    except tf.errors.OpError as error:
        raise UserError(f"{folder} could not be written: {error.message}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def write_saved_model(model: TaskModel, folder: Path) -> None:
    """Save the model's signatures, and requests for servers to warm up with.

    The module that is saved holds the plain variables: of a Keras layer the SavedModel would hold
    each variable twice, and fail to load in a graph session.
    """
    module = tf.Module()
    module.variables_ = [variable.value for variable in model.variables]
    module.tables = model.tables()
    signatures = model.signatures()
    for name, function in signatures.items():
        setattr(module, name, function)  # for tf.saved_model.load, where these keep their arguments' defaults
    signature_inputs.save(module, folder, signatures, model.narrow_signatures(signatures))
    _name_methods(folder / "saved_model.pb")
    _write_warmup_requests(model, folder)


def _name_methods(path: Path) -> None:
    """Say which signatures are of a request of their own; TensorFlow writes that all are for Predict."""
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved_model.meta_graphs:
        if "classify" in graph.signature_def:
            graph.signature_def["classify"].method_name = "tensorflow/serving/classify"
    path.write_bytes(saved_model.SerializeToString(deterministic=True))


def _write_warmup_requests(model: TaskModel, folder: Path) -> None:
    """The model's own requests, one for each signature, so that no caller's is the first.

    They are short; should they not be, those beyond MAX_WARMUP_BYTES are left out.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = saved_model.meta_graphs[0].signature_def
    requests, size = [], 0
    for name, inputs in model.requests().items():
        request = predict_pb2.PredictRequest(model_spec={"signature_name": name})
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value, signatures[name].inputs[key].dtype))
        size += request.ByteSize()
        if size <= MAX_WARMUP_BYTES:
            requests.append(request)
    warmup.write_requests(folder, requests)


def verify(model: TaskModel, folder: Path) -> None:
    """Compare the SavedModel, loaded in a graph session as servers do, with the model in memory."""
    functions, requests = model.signatures(), model.requests()
    expected = {name: _answer(functions[name], inputs) for name, inputs in requests.items()}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], os.fspath(folder))
        feeds, fetches = {}, {}
        for name, inputs in requests.items():
            signature = loaded.signature_def[name]
            for key, value in inputs.items():
                feeds[signature.inputs[key].name] = _array(value, signature.inputs[key])
            fetches[name] = {key: info.name for key, info in signature.outputs.items()}
        got = session.run(fetches, feeds)  # all in one run, since TensorFlow optimizes the graph for each
    for name, answer in expected.items():
        _compare(name, answer, got[name])


def _array(value: Any, info: Any) -> np.ndarray:
    """A value for an input; NumPy's own strings would lose the zeros that bytes end with."""
    return np.asarray(value, tf.dtypes.as_dtype(info.dtype).as_numpy_dtype)


def _answer(function: Any, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    specs = function.get_concrete_function().structured_input_signature[0]
    tensors = {spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in specs if spec.name in inputs}
    return {key: value.numpy() for key, value in function(**tensors).items()}


def _compare(name: str, expected: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> None:
    for key, value in expected.items():
        is_float = np.issubdtype(value.dtype, np.floating)
        same = (
            np.allclose(value, got[key], rtol=1e-3, atol=1e-4)
            if is_float
            else np.array_equal(value, got[key])
        )
        if not same:
            raise UserError(
                f"the exported model's {name} gives another {key} than the model: {got[key]}, not {value}"
            )


def main(arguments: Sequence[str]) -> None:
    values = flags.FLAGS
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}: settings are flags, --name=value")
    for flag in ("model_dir", "export_base"):
        if not values[flag].value:
            raise UserError(f"--{flag} is needed; see --help")
    try:
        model = load_model(values.model_dir)
    except ModelDirectoryError as error:
        raise UserError(str(error)) from error
    print("writing and verifying", file=sys.stderr)
    folder = export(model, values.export_base, values.version)
    print(
        json.dumps(
            {"path": str(folder), "version": int(folder.name), "signatures": sorted(model.signatures())}
        )
    )


def run() -> None:
    flags.DEFINE_string("model_dir", None, "Model directory that zoo-train wrote.")
    flags.DEFINE_string("export_base", None, "Folder of the model's versions.")
    flags.DEFINE_integer("version", 0, "Version number; 0: one above the highest there is.", lower_bound=0)
    program.run("zoo-export", main, __doc__, ["serving.export"])
