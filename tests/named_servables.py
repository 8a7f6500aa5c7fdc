"""Servables that are only names, and a loader of them that fails and waits as it is told."""

from __future__ import annotations

import collections
import threading
from pathlib import Path

import grpc

from serving.rpc import StatusError

DEADLINE = 60.0  # seconds until a test gives up; nothing is expected to take that long


class Named:
    """A servable that knows where it came from and whether it was closed."""

    def __init__(self, path: str):
        self.path = path
        self.closed = threading.Event()

    def close(self) -> None:
        assert not self.closed.is_set()
        self.closed.set()


class Hold:
    """A place where a thread waits: `reached` when it is there, until `release`."""

    def __init__(self) -> None:
        self.reached, self.release = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.release.wait(DEADLINE)


class Loader:
    """Loads BASE/<model>/<version>. What it is told, it is told of "model/version"."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.loaded: dict[str, Named] = {}
        self.failures: collections.Counter[str] = collections.Counter()  # how often it will fail yet
        self._holds: dict[str, Hold] = {}

    def hold(self, version: str) -> Hold:
        """The next attempt to load a version waits there."""
        return self._holds.setdefault(version, Hold())

    def __call__(self, path: str) -> Named:
        version = f"{Path(path).parent.name}/{Path(path).name}"
        self.attempts.append(version)
        if hold := self._holds.pop(version, None):
            hold.wait()
        if self.failures[version]:
            self.failures[version] -= 1
            raise StatusError(grpc.StatusCode.DATA_LOSS, "torn")
        self.loaded[version] = Named(path)
        return self.loaded[version]
