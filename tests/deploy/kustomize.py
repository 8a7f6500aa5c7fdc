"""What `kustomize build` gives, for as much of kustomize as the manifests use; names get no hashes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deploy.manifests import load, load_all

FIELDS = {"apiVersion", "kind", "resources", "components", "patches", "images", "configMapGenerator"}

# What tells the items of a list apart, so that a patch changes one and leaves the others; other lists are
# replaced as a whole.
MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumes": "name",
}


def build(folder: Path) -> list[dict[str, Any]]:
    """The objects that the kustomization in a folder stands for.

    Raises:
        ValueError: it uses something not known here, or a patch fits no object.
    """
    kustomization = load(folder / "kustomization.yaml")
    if unknown := set(kustomization) - FIELDS:
        raise ValueError(f"{folder}: {', '.join(sorted(unknown))}?")
    objects = []
    for name in kustomization.get("resources", []) + kustomization.get("components", []):
        path = folder / name
        objects += build(path) if path.is_dir() else load_all(path)
    for generator in kustomization.get("configMapGenerator", []):
        objects.append(_config_map(folder, **generator))
    for patch in kustomization.get("patches", []):
        _apply(objects, load(folder / patch["path"]))
    for image in kustomization.get("images", []):
        _rename(objects, **image)
    return objects


def _config_map(folder: Path, name: str, files: list[str]) -> dict[str, Any]:
    data = {Path(file).name: (folder / file).read_text() for file in files}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _apply(objects: list[dict[str, Any]], patch: dict[str, Any]) -> None:
    targets = [
        index
        for index, candidate in enumerate(objects)
        if candidate["kind"] == patch["kind"] and candidate["metadata"]["name"] == patch["metadata"]["name"]
    ]
    if len(targets) != 1:
        raise ValueError(f"{len(targets)} objects {patch['kind']} {patch['metadata']['name']} to be patched")
    objects[targets[0]] = _merge(objects[targets[0]], patch)


def _merge(old: Any, new: Any, field: str = "") -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {name: _merge(old.get(name), value, name) for name, value in new.items()}
    if isinstance(old, list) and isinstance(new, list) and field in MERGE_KEYS:
        key = MERGE_KEYS[field]
        merged = {item[key]: item for item in old}
        for item in new:
            merged[item[key]] = _merge(merged.get(item[key]), item)
        return list(merged.values())
    return new


def _rename(objects: list[dict[str, Any]], name: str, newName: str, newTag: str) -> None:  # noqa: N803
    for workload in objects:
        pod = workload.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            if re.fullmatch(f"{re.escape(name)}(:.*)?", container["image"]):
                container["image"] = f"{newName}:{newTag}"
