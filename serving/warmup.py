"""Warm-up: requests that come with a version are run before anybody else's, which need not wait then.

They are in the file assets.extra/tf_serving_warmup_requests of the version's folder, as
`tensorflow.serving.PredictionLog` records (servables/tensorflow/saved_model_warmup_util.cc).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
from absl import logging
from google.protobuf.message import DecodeError

from serving import tfrecord
from serving.messages import prediction_log_pb2
from serving.rpc import StatusError, invalid

REQUESTS_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000

_REPLAYED = ("predict_log", "classify_log", "regress_log", "multi_inference_log")
_NUMBER_OF_LOG = {
    field.name: field.number for field in prediction_log_pb2.PredictionLog.DESCRIPTOR.oneofs[0].fields
}


def _unobserved(path: str, status: str, seconds: float, records: int) -> None:
    """The observer that does not care."""


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """Runs the requests that a version brings along; a Repository's `warm_up`.

    `replay` runs one request, a PredictRequest, ClassificationRequest, RegressionRequest or
    MultiInferenceRequest, on a servable, whatever model and version it names; it raises StatusError.
    `observe` learns how each warm-up ended: the version's folder, "OK" or the error's code, seconds, and the
    number of records read.
    """

    replay: Callable[[Any, Any], None]
    iterations: int = 1
    observe: Callable[[str, str, float, int], None] = _unobserved

    def __call__(self, servable: Any, folder: str) -> None:
        """Run all requests, if there are any.

        Raises:
            StatusError: a request fails, or the file is no file of requests. Says which and why.
        """
        path = os.path.join(folder, REQUESTS_FILE)
        if not os.path.exists(path):
            return
        started, status, records = time.perf_counter(), grpc.StatusCode.UNKNOWN.name, 0
        try:
            for index, record in enumerate(tfrecord.read_records(path)):
                if index == MAX_RECORDS:
                    raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
                self._run(servable, _log(record, index, path), index)
                records += 1
            status = grpc.StatusCode.OK.name
        except StatusError as error:
            status = error.code.name
            raise
        except tfrecord.CorruptedError as error:
            status = grpc.StatusCode.DATA_LOSS.name
            message = f"{error}. Please verify your warmup data is in TFRecord format. ({path})"
            raise StatusError(grpc.StatusCode.DATA_LOSS, message) from error
        finally:
            seconds = time.perf_counter() - started
            self.observe(folder, status, seconds, records)
        logging.info("warmed up with %d requests from %s in %.3g s", records, path, seconds)

    def _run(self, servable: Any, log: prediction_log_pb2.PredictionLog, index: int) -> None:
        kind = log.WhichOneof("log_type")
        if kind is None:
            return
        if kind not in _REPLAYED:
            message = f"Unsupported log_type for warmup: {_NUMBER_OF_LOG[kind]} (record {index})"
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, message)
        for _ in range(self.iterations):
            try:
                self.replay(servable, getattr(log, kind).request)
            except Exception as error:
                code = error.code if isinstance(error, StatusError) else grpc.StatusCode.UNKNOWN
                raise StatusError(code, f"warmup record {index} failed: {error}") from error


def _log(record: bytes, index: int, path: str) -> prediction_log_pb2.PredictionLog:
    try:
        return prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid(f"Failed to parse warmup record: {index} from {path}") from error


def write_requests(folder: str | os.PathLike, requests: Iterable[Any]) -> None:
    """Give the version in a folder these PredictRequests to warm up with."""
    path = Path(folder) / REQUESTS_FILE
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file:
        tfrecord.write_records(
            file,
            (
                prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                ).SerializeToString()
                for request in requests
            ),
        )
