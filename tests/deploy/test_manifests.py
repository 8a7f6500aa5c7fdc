"""The Kubernetes and KServe manifests: against published schemas, and whether their parts fit together."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy import schemas
from deploy.kustomize import build
from deploy.manifests import DEPLOY, load, load_all, values

KUBERNETES, KSERVE = DEPLOY / "kubernetes", DEPLOY / "kserve"
SERVERS = ("zoo-serve", "stock-serving")
VERSIONS = (
    "1.30",
    kubernetes_validate.latest_version(),
)  # of Kubernetes; 1.30 is the first with preStop.sleep
KUBECTL = shutil.which("kubectl")

Object = dict[str, Any]


@pytest.fixture(scope="module", params=SERVERS)
def server(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(server, tmp_path_factory) -> Path:
    """A kustomization of the overlay with the optional component."""
    folder = tmp_path_factory.mktemp(server)
    overlay = os.path.relpath(KUBERNETES / "overlays" / server, folder.resolve())
    component = os.path.relpath(KUBERNETES / "components/pod-monitor", folder.resolve())
    kustomization = {"resources": [overlay], "components": [component]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


@pytest.fixture(scope="module")
def objects(folder) -> list[Object]:
    return build(folder)


@pytest.fixture(scope="module")
def pod(objects) -> Object:
    """The pod template."""
    return one(objects, "Deployment")["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod) -> Object:
    (container,) = pod["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def ports(container) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def one(objects: list[Object], kind: str) -> Object:
    (found,) = [candidate for candidate in objects if candidate["kind"] == kind]
    return found


def settings(value: Any, name: str) -> Iterator[Any]:
    """All that stands under a name, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == name:
                yield item
            yield from settings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from settings(item, name)


def check(candidate: Object) -> None:
    """Raises a ValidationError if it is not what its kind should be; fields of an unknown name are none."""
    if candidate["kind"] in schemas.BY_KIND:
        jsonschema.validate(candidate, schemas.BY_KIND[candidate["kind"]])
        return
    for version in VERSIONS:
        kubernetes_validate.validate(candidate, version, strict=True)


def as_pod(spec: Mapping[str, Any]) -> Object:
    parts = {name: spec[name] for name in ("containers", "volumes", "nodeSelector") if name in spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": parts}


def test_every_file_is_used():
    """Every YAML file is reached from an overlay, a component or a test below."""
    folders = {
        DEPLOY / "config",
        KUBERNETES / "base",
        KUBERNETES / "components/pod-monitor",
        *(KUBERNETES / "overlays" / server for server in SERVERS),
    }
    files = {KSERVE / f"{name}.yaml" for name in (*SERVERS, "inference-service")}
    files |= {DEPLOY / "compose" / f"{server}.yaml" for server in SERVERS}
    for folder in folders:
        kustomization = load(folder / "kustomization.yaml")
        assert re.fullmatch(r"kustomize\.config\.k8s\.io/v1(alpha|beta)1", kustomization["apiVersion"])
        named = kustomization.get("resources", []) + [p["path"] for p in kustomization.get("patches", [])]
        paths = [(folder / name).resolve() for name in named]
        assert [path for path in paths if path.is_dir() and path not in folders] == []
        files |= {folder / "kustomization.yaml", *(path for path in paths if not path.is_dir())}
    assert set(DEPLOY.rglob("*.yaml")) | set(DEPLOY.rglob("*.yml")) == files


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")
def test_kustomize_builds_the_same(folder, objects):
    built = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=True)
    hashed = re.search(r"model-server-config(-[a-z0-9]{10})\n", built.stdout)[1]
    expected = list(yaml.safe_load_all(built.stdout.replace(hashed, "")))

    def key(candidate: Object) -> tuple[str, str]:
        return candidate["kind"], candidate["metadata"]["name"]

    assert sorted(objects, key=key) == sorted(expected, key=key)


def test_kubernetes_objects_fit_their_schemas(objects):
    kinds = [candidate["kind"] for candidate in objects]
    assert sorted(kinds) == [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitor",
        "Service",
        "Service",
        "ServiceAccount",
    ]
    for candidate in objects:
        check(candidate)


@pytest.mark.parametrize(
    "kind", ["Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodMonitor", "Service"]
)
def test_schemas_know_no_other_fields(objects, kind):
    candidate = next(candidate for candidate in objects if candidate["kind"] == kind)
    spec = candidate["spec"] | {"invented": 1}
    with pytest.raises(jsonschema.ValidationError, match="invented"):
        check(candidate | {"spec": spec})


def test_selectors_select_the_pods(objects, pod):
    labels = pod["metadata"]["labels"].items()
    selectors = list(settings(objects, "matchLabels"))
    selectors += [service["spec"]["selector"] for service in objects if service["kind"] == "Service"]
    ours = [selector for selector in selectors if "kubernetes.io/metadata.name" not in selector]
    assert len(ours) == 7  # Deployment, spread, disruption budget, network policy, monitor, two services
    assert all(selector and selector.items() <= labels for selector in ours)
    owned = [candidate["metadata"] for candidate in objects if candidate["kind"] != "ConfigMap"]
    assert all(metadata["labels"].items() == labels for metadata in owned)


def test_ports_are_the_containers(objects, pod, container, ports):
    flags = values(container["args"])
    assert ports == {"grpc": int(flags["port"]), "http": int(flags["rest_api_port"])}
    services = [service for service in objects if service["kind"] == "Service"]
    for service in services:
        for port in service["spec"]["ports"]:
            assert port["targetPort"] == port["name"]
            assert port["port"] == ports[port["name"]]
    for rule in one(objects, "NetworkPolicy")["spec"]["ingress"]:
        assert all(port["port"] in ports for port in rule["ports"])
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    assert [probe["port"] for probe in settings(probes, "grpc")] == [ports["grpc"]] * len(
        list(settings(probes, "grpc"))
    )
    assert all(probe["port"] in ports for probe in settings(probes, "httpGet"))
    assert len(list(settings(probes, "port"))) == 3
    assert flags["enable_grpc_healthcheck_service"] == "true"
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["http"])
    (endpoint,) = one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "http"


def test_metrics_are_where_prometheus_looks(objects, pod):
    (path,) = re.findall(r'path: "(.*)"', one(objects, "ConfigMap")["data"]["monitoring.config"])
    (endpoint,) = one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    annotations = pod["metadata"]["annotations"]
    assert path == endpoint["path"] == annotations["prometheus.io/path"]
    assert annotations["prometheus.io/scrape"] == "true"


def test_what_the_pod_refers_to_exists(objects, pod, container):
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert sorted(volumes) == sorted(mount["name"] for mount in mounts.values())
    assert mounts["/models"]["readOnly"]
    assert mounts["/config"]["readOnly"]
    assert volumes[mounts["/models"]["name"]]["persistentVolumeClaim"]["readOnly"]
    config = one(objects, "ConfigMap")
    assert volumes[mounts["/config"]["name"]]["configMap"]["name"] == config["metadata"]["name"]
    files = [value for name, value in values(container["args"]).items() if name.endswith("_file")]
    assert sorted(files) == sorted(f"/config/{name}" for name in config["data"])
    assert pod["spec"]["serviceAccountName"] == one(objects, "ServiceAccount")["metadata"]["name"]
    target = one(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = one(objects, "Deployment")
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }


def test_autoscaler_has_something_to_measure(objects, container):
    spec = one(objects, "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in one(objects, "Deployment")["spec"]
    assert 1 < spec["minReplicas"] < spec["maxReplicas"]
    (metric,) = spec["metrics"]
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    share = int(limits[metric["resource"]["name"]]) / int(requests[metric["resource"]["name"]])
    assert metric["resource"]["target"]["averageUtilization"] < 100 * share


def test_pods_are_restricted(objects, pod, container):
    """What Kubernetes' standard "restricted" asks for, and a root file system that is only read."""
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    check_restricted(container)
    assert one(objects, "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert one(objects, "NetworkPolicy")["spec"]["egress"] == []


def check_restricted(container: Object) -> None:
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_pods_have_time_to_finish(server, pod, container):
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    flags = values(container["args"])
    draining = float(flags["shutdown_grace_seconds"]) if server == "zoo-serve" else 0
    assert (draining or before) >= 30
    assert pod["spec"]["terminationGracePeriodSeconds"] > before + draining


@pytest.mark.parametrize("name", SERVERS)
def test_serving_runtimes(name):
    runtime = load(KSERVE / f"{name}.yaml")
    check(runtime)
    assert runtime["kind"] == "ServingRuntime"
    assert runtime["metadata"]["name"] == name
    assert runtime["spec"]["multiModel"] is False
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"  # the name by which KServe finds it
    check(as_pod(runtime["spec"]))
    check_restricted(container)
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["runAsUser"] > 0
    flags = values(container["args"])
    assert flags["model_name"] == "{{.Name}}"
    assert flags["model_base_path"] == "/mnt/models"  # where KServe puts them
    assert flags["rest_api_port"] == "8080"  # where KServe asks, unless a port is named


def test_serving_runtimes_are_told_apart():
    """KServe takes no two runtimes of one priority for one format."""
    formats = [
        (supported["name"], supported["version"], supported["priority"])
        for name in SERVERS
        for supported in load(KSERVE / f"{name}.yaml")["spec"]["supportedModelFormats"]
        if supported["autoSelect"]
    ]
    assert len(formats) == len(set(formats)) == len(SERVERS)


def test_inference_service_names_a_runtime():
    (service,) = load_all(KSERVE / "inference-service.yaml")
    check(service)
    predictor = service["spec"]["predictor"]
    assert predictor["minReplicas"] <= predictor["maxReplicas"]
    model = predictor["model"]
    runtime = load(KSERVE / f"{model['runtime']}.yaml")["spec"]
    assert model["protocolVersion"] in runtime["protocolVersions"]
    formats = [(supported["name"], supported["version"]) for supported in runtime["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats


@pytest.mark.parametrize("kind", ["ServingRuntime", "InferenceService"])
@pytest.mark.parametrize("change", [{"invented": 1}, {"containers": None}, {"predictor": {"model": {}}}])
def test_schemas_of_kserve_refuse(kind, change):
    paths = {"ServingRuntime": "zoo-serve.yaml", "InferenceService": "inference-service.yaml"}
    candidate = load(KSERVE / paths[kind])
    with pytest.raises(jsonschema.ValidationError):
        check(candidate | {"spec": candidate["spec"] | change})
