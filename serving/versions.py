"""The versions of a model: which exist, which can answer, which may go."""

from __future__ import annotations

import enum
import os
import threading
from typing import Protocol

from serving.rpc import StatusError

_LARGEST_VERSION = 2**63 - 1


class State(enum.IntEnum):
    """A version's life, numbered as in `ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Servable(Protocol):
    """What a loader returns, as far as the repository cares."""

    def close(self) -> None: ...


class Version:
    """One version of a model. As a context (see `Repository.lease`) it cannot be unloaded."""

    def __init__(self, model_name: str, number: int, changed: threading.Condition):
        self.model_name = model_name
        self.number = number
        self.state = State.START
        self.error: StatusError | None = None  # of the last attempt to load it
        self.servable: Servable | None = None
        self.leases = 0
        self.failures = 0
        self.retry_at = 0.0
        self._changed = changed

    def __enter__(self) -> Version:
        return self  # the repository has counted the lease, together with finding the version

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self.leases -= 1
            if self.leases == 0 and self.state is State.UNLOADING:
                self._changed.notify_all()


class Model:
    """One name, its base path, and all versions seen since the start."""

    def __init__(self, name: str, base_path: str):
        self.name = name
        self.base_path = base_path
        self.versions: dict[int, Version] = {}
        self.waiting_said = False

    def available(self, number: int | None = None) -> Version | None:
        """The version of that number, or the newest, if it can answer."""
        if number is None:
            return max(self._in(State.AVAILABLE), key=lambda version: version.number, default=None)
        version = self.versions.get(number)
        return version if version is not None and version.state is State.AVAILABLE else None

    def retire(self, wanted: int | None) -> bool:
        """Hand out only the wanted version from now on, provided that it can answer; True if others could."""
        if wanted is not None and self.available(wanted) is None:
            return False
        others = [version for version in self._in(State.AVAILABLE) if version.number != wanted]
        for version in others:
            version.state = State.UNLOADING
        return bool(others)

    def drained(self) -> list[Version]:
        return [version for version in self._in(State.UNLOADING) if version.leases == 0]

    def failed(self, max_retries: int) -> StatusError | None:
        """The error of the newest version, if it was tried for the last time and nothing else answers."""
        newest = self.versions[max(self.versions)] if self.versions else None
        if newest is None or newest.error is None or self.available() is not None:
            return None
        return newest.error if newest.failures > max_retries else None

    def _in(self, state: State) -> list[Version]:
        return [version for version in self.versions.values() if version.state is state]


def find_versions(base_path: str) -> dict[int, str] | None:
    """Number and path of every version below a base path; None when it is missing or unreadable.

    A version is a folder whose name is all digits; leading zeros do not count.
    """
    try:
        with os.scandir(base_path) as entries:
            return {
                int(entry.name): entry.path
                for entry in entries
                if entry.name.isascii()
                and entry.name.isdigit()
                and int(entry.name) <= _LARGEST_VERSION
                and entry.is_dir()
            }
    except OSError:
        return None
