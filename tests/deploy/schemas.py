"""JSON schemas of the custom resources, as far as the manifests use them.

No package that goes with TensorFlow holds the published ones. Fields and types are those of
prometheus-operator's monitoring.coreos.com/v1 and KServe's serving.kserve.io/v1alpha1 and v1beta1; any other
is an error. What is Kubernetes' own inside them (`containers`, `volumes`) is for the caller to check.
"""

from __future__ import annotations

from typing import Any

STRING = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
DURATION = {"type": "string", "pattern": r"^(0|([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
PROTOCOL = {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


def _resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object({"name": STRING}, namespace=STRING, labels=STRINGS, annotations=STRINGS)
    return _object(
        {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    )


POD_MONITOR = _resource(
    "monitoring.coreos.com/v1",
    "PodMonitor",
    _object(
        {
            "selector": _object({"matchLabels": STRINGS}),
            "podMetricsEndpoints": _list(
                _object({"port": STRING}, path=STRING, interval=DURATION, scrapeTimeout=DURATION)
            ),
        },
    ),
)

SERVING_RUNTIME = _resource(
    "serving.kserve.io/v1alpha1",
    "ServingRuntime",
    _object(
        {
            "supportedModelFormats": _list(
                _object(
                    {"name": STRING},
                    version=STRING,
                    autoSelect={"type": "boolean"},
                    priority={"type": "integer", "minimum": 1},
                )
            ),
            "containers": {"type": "array", "minItems": 1},
        },
        protocolVersions=_list(PROTOCOL),
        multiModel={"type": "boolean"},
        nodeSelector=STRINGS,
        volumes={"type": "array"},
        labels=STRINGS,
        annotations=STRINGS,
    ),
)

INFERENCE_SERVICE = _resource(
    "serving.kserve.io/v1beta1",
    "InferenceService",
    _object(
        {
            "predictor": _object(
                {
                    "model": _object(
                        {"modelFormat": _object({"name": STRING}, version=STRING)},
                        runtime=STRING,
                        protocolVersion=PROTOCOL,
                        storageUri={"type": "string", "pattern": "^(pvc|s3|gs|https?)://."},
                    )
                },
                minReplicas=COUNT,
                maxReplicas=COUNT,
            )
        }
    ),
)

BY_KIND = {
    "PodMonitor": POD_MONITOR,
    "ServingRuntime": SERVING_RUNTIME,
    "InferenceService": INFERENCE_SERVICE,
}
