"""The image of zoo-serve: what its Dockerfile says. It is not built here."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from deploy.manifests import DEPENDENCIES, DEPLOY, PYPROJECT, ROOT, instruction, instructions, load, words


def test_base_image():
    bases = [rest.split(" AS ")[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2
    (base,) = set(bases)
    python = re.fullmatch(r"python:(\d\.\d+)-slim-[a-z]+", base)
    supported = re.search(r'^requires-python = "(.+)"', PYPROJECT, re.MULTILINE)
    assert SpecifierSet(supported[1]).contains(f"{python[1]}.0")


def test_build_sees_what_it_copies():
    ignored, *kept = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored == "*"
    copied = [shlex.split(rest)[:-1] for name, rest in instructions() if name == "COPY"]
    sources = {path for paths in copied if not paths[0].startswith("--from") for path in paths}
    assert {line[1:] for line in kept if line.startswith("!")} == sources
    assert all((ROOT / path).exists() for path in sources)


def test_image_runs_as_no_root():
    user, _, group = instruction("USER").partition(":")
    pod = load(DEPLOY / "kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]["securityContext"]
    assert (int(user), int(group)) == (pod["runAsUser"], pod["runAsGroup"])
    assert "0" not in (user, group)


def wanted() -> list[str]:
    lines = (DEPLOY / "requirements.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def installed_with(names: list[str]) -> set[str]:
    """Distributions that pip installs for these."""
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name not in found:
            found.add(name)
            requirements = [Requirement(text) for text in importlib.metadata.requires(name) or []]
            names += [r.name for r in requirements if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


def imported_by(module: str) -> set[str]:
    """Modules that a module of ours imports, and those that the ones of `serving` among them import."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name.partition(".")[0] == "serving" and path.is_file():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    todo += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module:
                    todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return seen


@pytest.mark.parametrize("program", ["zoo-serve", "zoo-query"])
def test_image_has_what_the_programs_import(program):
    launched = (ROOT / "serving/program.py").read_text()
    module = re.search(rf'_launch\("{program}", "(serving\.\w+)"', launched)[1]
    imported = {name.partition(".")[0] for name in imported_by(module)} - set(sys.stdlib_module_names)
    assert {"absl", "grpc", "google", "serving", "tensorflow_serving"} <= imported
    packages = importlib.metadata.packages_distributions()
    there = installed_with(wanted())
    missing = {
        name
        for name in imported - {"serving"}
        if not there & {re.sub(r"[-_.]+", "-", found).lower() for found in packages.get(name, [name])}
    }
    assert missing == set()


def test_image_has_what_the_package_asks_for():
    assert set(wanted()) <= set(DEPENDENCIES)
    assert wanted() == sorted(wanted())


def test_image_has_nothing_of_training():
    assert not installed_with(wanted()) & {
        "matplotlib",
        "sacrebleu",
        "sentencepiece",
        "tensorflow-datasets",
        "torch",
    }


@contextlib.contextmanager
def grpc_health(status: int) -> Iterator[int]:
    """A port where the standard health check answers so."""
    servicer = health.HealthServicer()
    servicer.set("", status)
    grpc_server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    try:
        yield port
    finally:
        grpc_server.stop(None).wait()


@pytest.mark.parametrize(("status", "code"), [("SERVING", 0), ("NOT_SERVING", 1)])
def test_health_check_of_our_image(status, code):
    python, *arguments = words(instruction("HEALTHCHECK"))
    assert python == "python"
    with grpc_health(health_pb2.HealthCheckResponse.ServingStatus.Value(status)) as port:
        arguments = [argument.replace("127.0.0.1:8500", f"127.0.0.1:{port}") for argument in arguments]
        assert f"127.0.0.1:{port}" in arguments[-1]
        assert subprocess.run([sys.executable, *arguments]).returncode == code
