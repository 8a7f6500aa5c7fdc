"""Runs the requests of a warm-up on a version that nobody else can reach yet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.messages import classification_pb2, inference_pb2, model_pb2, predict_pb2, regression_pb2
from serving.metrics import Metrics
from serving.prediction import PredictionService
from serving.versions import Version

_METHODS = {
    predict_pb2.PredictRequest: "Predict",
    classification_pb2.ClassificationRequest: "Classify",
    regression_pb2.RegressionRequest: "Regress",
    inference_pb2.MultiInferenceRequest: "MultiInference",
}


def replay(servable: Any, request: Any) -> None:
    """Answers a request as the server will, whatever model and version it names. Raises StatusError."""
    service: Any = PredictionService(_Only(servable), _InThisThread(), Metrics())
    asyncio.run(getattr(service, _METHODS[type(request)])(request))


class _Only:
    """A repository of one version."""

    def __init__(self, servable: Any):
        self._servable = servable

    def lease(self, spec: model_pb2.ModelSpec) -> Version:
        version = Version(spec.name, spec.version.value, threading.Condition())
        version.servable = self._servable
        version.leases = 1
        return version


class _InThisThread:
    """A batcher that runs each request at once."""

    async def run(
        self, servable: Any, signature: Any, feeds: Sequence[np.ndarray], outputs: Sequence[str]
    ) -> Sequence[Any]:
        return servable.run(signature, feeds, outputs)
