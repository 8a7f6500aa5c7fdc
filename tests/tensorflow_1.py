"""A SavedModel as TensorFlow 1 wrote them, with signatures for Classify and Regress, good and bad."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

METHODS = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}


def save_tensorflow_1(path: Path) -> None:
    """y = 2 x + offset of examples' features x and offset, as numbers and as two classes."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], "serialized")
        feature = tf.io.FixedLenFeature([], tf.float32, 0.0)
        parsed = v1.io.parse_example(serialized, {"x": feature, "offset": feature})
        slope = v1.get_variable("slope", initializer=2.0)
        y = slope * parsed["x"] + parsed["offset"]
        rows = tf.shape(y)[0]
        scores = tf.stack([y, -y], axis=1)
        outputs = {
            "both": {"classes": tf.tile([["up", "down"]], [rows, 1]), "scores": scores},
            "scores": {"scores": scores},
            "classes": {"classes": tf.tile([["up", "down"]], [rows, 1])},
            "flat_scores": {"scores": y},
            "half_scores": {"scores": tf.cast(scores, tf.float64)},
            "unequal": {"classes": tf.tile([["up", "down", "?"]], [rows, 1]), "scores": scores},
            "too_few": {"scores": scores[:1]},
            "nothing": {"neither": y},
            "three": {"classes": scores, "scores": scores, "more": y},
            "numbers": {"outputs": y},
            "column": {"outputs": y[:, tf.newaxis]},
            "wide": {"outputs": scores},
            "double": {"outputs": tf.cast(y, tf.float64)},
            "sum": {"outputs": tf.reduce_sum(y, keepdims=True)},
        }
        signatures = {
            name: v1.saved_model.signature_def_utils.build_signature_def(
                {"inputs": v1.saved_model.build_tensor_info(serialized)},
                {alias: v1.saved_model.build_tensor_info(tensor) for alias, tensor in tensors.items()},
                METHODS["regress" if "outputs" in tensors else "classify"],
            )
            for name, tensors in outputs.items()
        }
        other = v1.placeholder(tf.string, [None], "other")
        for name, inputs in (("other", {"inputs": other}), ("two", {"inputs": other, "more": serialized})):
            signatures[name] = v1.saved_model.signature_def_utils.build_signature_def(
                {alias: v1.saved_model.build_tensor_info(tensor) for alias, tensor in inputs.items()},
                {"outputs": v1.saved_model.build_tensor_info(tf.strings.to_number(other))},
                METHODS["regress"],
            )
        signatures["text"] = v1.saved_model.signature_def_utils.build_signature_def(
            {"text": v1.saved_model.build_tensor_info(other)},
            {"scores": v1.saved_model.build_tensor_info(scores)},
            METHODS["classify"],
        )
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
