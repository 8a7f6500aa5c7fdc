"""What zoo-serve is compared with: a servicer as gRPC's tutorial has it, without zoo-serve's core.

    python benchmarks/plain_servicer.py SAVED_MODEL    # each Predict is one run of a graph session
    python benchmarks/plain_servicer.py                # each Predict has the same answer, at once

Prints its port, and serves until it is killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))  # before this folder, which has a serving.py
os.environ["GRPC_VERBOSITY"] = "NONE"

import grpc
import numpy as np

from serving import tensors
from serving.messages import predict_pb2, prediction_service_pb2_grpc

THREADS = 32

Predict = Callable[[predict_pb2.PredictRequest], predict_pb2.PredictResponse]


def of_session(path: str) -> Predict:
    """Runs serving_default, each request by itself."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 - registers operations

    session = tf.compat.v1.Session(graph=tf.Graph())
    signature = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def["serving_default"]
    fetches = {alias: info.name for alias, info in signature.outputs.items()}

    def predict(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        feeds = {signature.inputs[key].name: tf.make_ndarray(value) for key, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for alias, value in session.run(fetches, feeds).items():
            response.outputs[alias].CopyFrom(tf.make_tensor_proto(value))
        return response

    return predict


def of_nothing() -> Predict:
    """Gives the answer of a classifier that knows nothing."""
    response = predict_pb2.PredictResponse()
    tensors.to_proto(np.array([b"yes"], np.object_), response.outputs["label"])
    tensors.to_proto(np.array([[b"yes", b"no"]], np.object_), response.outputs["labels"])
    tensors.to_proto(np.array([[0.5, 0.5]], np.float32), response.outputs["probabilities"])
    return lambda _: response


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict alone."""

    def __init__(self, predict: Predict):
        self._predict = predict

    def Predict(self, request, context):  # noqa: N802 - the RPC's name
        return self._predict(request)


def main() -> None:
    predict = of_session(sys.argv[1]) if len(sys.argv) > 1 else of_nothing()
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(predict), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
