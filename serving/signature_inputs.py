"""Optional inputs of a SavedModel's signatures, for every way to load it.

Servers and graph sessions fill in what a caller leaves out from the signature's defaults. In Python
`tf.saved_model.load(...).signatures` knows none and wants all inputs, so that one which a signature has
beyond its contract would stop those who have called it without.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

_WIDE = "all_inputs_of_"


def save(module: tf.Module, folder: Path, signatures: Mapping[str, Any], narrow: Mapping[str, Any]) -> None:
    """Save a module with signatures; `tf.saved_model.load(...).signatures` gives the narrow ones."""
    wide = {_WIDE + name: signatures[name] for name in narrow}
    tf.saved_model.save(module, os.fspath(folder), signatures={**signatures, **narrow, **wide})
    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved_model.meta_graphs:
        _widen(graph, narrow)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))


def _widen(graph: Any, names: Mapping[str, Any]) -> None:
    """Give servers and graph sessions the signatures with all inputs, under their own names."""
    for name in names:
        graph.signature_def[name].CopyFrom(graph.signature_def[_WIDE + name])
        del graph.signature_def[_WIDE + name]
    for node in graph.object_graph_def.nodes:
        if node.user_object.identifier == "signature_map":
            kept = [child for child in node.children if not child.local_name.startswith(_WIDE)]
            del node.children[:]
            node.children.extend(kept)
