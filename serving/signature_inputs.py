"""Optional inputs of a SavedModel's signatures, for every way to load it.

Servers fill in what a caller leaves out from the signature's defaults. Of the other two ways to call a
signature, a graph session does not know them, and in Python `tf.saved_model.load(...).signatures` wants all
inputs. So inputs that a signature has beyond its contract would stop those who have called it without.
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
        _fill_in_defaults(graph)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))


def _widen(graph: Any, names: Mapping[str, Any]) -> None:
    """Give servers and graph sessions the signatures with all inputs, under their own names."""
    for name in names:
        graph.signature_def[name].CopyFrom(graph.signature_def.pop(_WIDE + name))
    for node in graph.object_graph_def.nodes:
        if node.user_object.identifier == "signature_map":
            kept = [child for child in node.children if not child.local_name.startswith(_WIDE)]
            del node.children[:]
            node.children.extend(kept)


def _fill_in_defaults(graph: Any) -> None:
    """Let a graph session run a signature without its optional inputs."""
    nodes = {node.name: node for node in graph.graph_def.node}
    for signature in graph.signature_def.values():
        for name, value in signature.defaults.items():
            placeholder = nodes[signature.inputs[name].name.partition(":")[0]]
            default = graph.graph_def.node.add(name=f"{placeholder.name}/default", op="Const")
            default.attr["dtype"].type = value.dtype
            default.attr["value"].tensor.CopyFrom(value)
            placeholder.op = "PlaceholderWithDefault"
            placeholder.input.append(default.name)
