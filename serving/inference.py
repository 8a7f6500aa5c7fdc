"""Classification and regression of tf.train.Examples: from a request's `input` to results.

The checks, their order and their words are the stock server's (servables/tensorflow/classifier.cc,
regressor.cc, util.cc), but for what it prints of a signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import grpc
import numpy as np

from serving import tensors
from serving.messages import classification_pb2, example_pb2, input_pb2, regression_pb2
from serving.rpc import StatusError, invalid


class Task(Protocol):
    """What is asked about examples."""

    API: str  # the RPC for it alone
    METHOD: str  # its name in a MultiInferenceRequest
    FIELD: str  # of its result in the response

    def outputs(self, signature: Any) -> list[str]:
        """The outputs of a signature that answer it. Raises StatusError where they are missing."""

    def result(self, values: Mapping[str, np.ndarray], examples: int) -> Any:
        """These outputs as a message."""


class Classification:
    """The signature gives `classes`, string, or `scores`, float, or both, of [batch, classes]."""

    API = "Classify"
    METHOD = "tensorflow/serving/classify"
    FIELD = "classification_result"

    def outputs(self, signature: Any) -> list[str]:
        _check_inputs(signature, "classification")
        if len(signature.output_tensors) not in (1, 2):
            raise invalid(f"Expected one or two output Tensors, found {len(signature.output_tensors)}")
        found = [alias for alias in ("classes", "scores") if alias in signature.output_tensors]
        if not found:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                'Expected classification signature outputs to contain at least one of "classes" or "scores"',
            )
        return found

    def result(
        self, values: Mapping[str, np.ndarray], examples: int
    ) -> classification_pb2.ClassificationResult:
        for alias, dtype, name in (("classes", np.object_, "STRING"), ("scores", np.float32, "FLOAT")):
            if alias in values:
                _check_output(alias, values[alias], dtype, name, examples)
        sizes = [value.shape[1] for value in values.values()]
        if len(set(sizes)) > 1:
            raise invalid(
                f"Tensors class and score should match in dim_size(1). Got {sizes[0]} vs. {sizes[1]}"
            )
        result = classification_pb2.ClassificationResult()
        rows = {alias: value.tolist() for alias, value in values.items()}
        for row in range(examples):
            classes = result.classifications.add().classes
            for place in range(sizes[0]):
                given = {"label": rows.get("classes"), "score": rows.get("scores")}
                classes.add(**{name: value[row][place] for name, value in given.items() if value is not None})
        return result


class Regression:
    """The signature gives `outputs`, float [batch] or [batch, 1]."""

    API = "Regress"
    METHOD = "tensorflow/serving/regress"
    FIELD = "regression_result"

    def outputs(self, signature: Any) -> list[str]:
        _check_inputs(signature, "regression")
        if len(signature.output_tensors) != 1:
            raise invalid("Expected one output Tensor.")
        if "outputs" not in signature.output_tensors:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION, "No regression outputs found in SignatureDef"
            )
        return ["outputs"]

    def result(self, values: Mapping[str, np.ndarray], examples: int) -> regression_pb2.RegressionResult:
        value = values["outputs"]
        if not (value.ndim == 1 or (value.ndim == 2 and value.shape[1] == 1)):
            raise invalid(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
                f"{_shape(value)}"
            )
        if len(value) != examples:
            raise invalid(f"Input batch size did not match output batch size: {examples} vs. {len(value)}")
        if value.dtype != np.float32:
            name = tensors.dtype_name(value.dtype).upper()
            raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: DT_{name}")
        result = regression_pb2.RegressionResult()
        for number in value.reshape(-1).tolist():
            result.regressions.add(value=number)
        return result


TASKS: Mapping[str, Task] = {task.METHOD: task for task in (Classification(), Regression())}


def examples(sent: input_pb2.Input) -> np.ndarray:
    """The examples of a request, serialized; what they have in common is put into each."""
    kind = sent.WhichOneof("kind")
    given = getattr(sent, kind).examples if kind else []
    if not given:
        raise invalid("Input is empty.")
    if kind == "example_list":
        return np.array([each.SerializeToString() for each in given], np.object_)
    whole = []
    for each in given:
        example = example_pb2.Example()
        example.CopyFrom(sent.example_list_with_context.context)
        example.MergeFrom(each)  # its own features replace the context's of the same names
        whole.append(example.SerializeToString())
    return np.array(whole, np.object_)


def _check_inputs(signature: Any, kind: str) -> None:
    if len(signature.input_tensors) != 1:
        raise invalid("Expected one input Tensor.")
    if "inputs" not in signature.input_tensors:
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef")


def _check_output(alias: str, value: np.ndarray, dtype: Any, name: str, examples: int) -> None:
    if value.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(value)}")
    if value.dtype != dtype:
        got = tensors.dtype_name(value.dtype).upper()
        raise invalid(f"Expected {alias} Tensor of DT_{name}. Got: DT_{got}")
    if len(value) != examples:
        raise invalid(f"Expected {alias} output batch size of {examples}. Got: {len(value)}")


def _shape(value: np.ndarray) -> str:
    return f"[{','.join(map(str, value.shape))}]"
