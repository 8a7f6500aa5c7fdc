"""The versions of a model: which exist, which are wanted, which can answer, which may go."""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Iterable
from typing import Protocol

from serving.model_config import ModelConfig
from serving.rpc import StatusError

_LARGEST_VERSION = 2**63 - 1
# Versions that have ended stay in the status. A server that swaps for years must not grow by them.
MAX_ENDED = 100


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
    """One name, and its versions since the start: all that live, and the last MAX_ENDED that have ended.

    Every method is called with the lock of `changed` held.
    """

    def __init__(self, config: ModelConfig, changed: threading.Condition):
        self.name = config.name
        self.config: ModelConfig | None = config  # None: to be served no more
        self.versions: dict[int, Version] = {}  # those that have ended in the order in which they did
        self.wanted: frozenset[int] = frozenset()
        self.joins = False  # was added while other models run, and could not answer yet
        self._newest: Version | None = None
        self._changed = changed

    def available(self, number: int | None = None) -> Version | None:
        """The version of that number, or the newest, if it can answer."""
        if number is None:
            return self._newest
        version = self.versions.get(number)
        return version if version is not None and version.state is State.AVAILABLE else None

    def want(self, numbers: frozenset[int]) -> None:
        """These are to be loaded; those that were to be, and have not begun, are forgotten."""
        self.wanted = numbers
        for number in numbers:
            self.versions.setdefault(number, Version(self.name, number, self._changed))
        for version in self._in(State.START):
            if version.number not in numbers:
                del self.versions[version.number]

    def publish(self, version: Version, servable: Servable) -> None:
        """Hand out a version from now on."""
        version.servable, version.error, version.failures = servable, None, 0
        version.state = State.AVAILABLE
        self.joins = False
        self._find_newest()

    def discard(self, version: Version, servable: Servable) -> None:
        """Free a version that was loaded in vain."""
        version.servable, version.state = servable, State.UNLOADING

    def retire(self, kept: Iterable[int] = ()) -> bool:
        """Hand out none but these from now on; True if there were others."""
        kept = frozenset(kept)
        others = [version for version in self._in(State.AVAILABLE) if version.number not in kept]
        for version in others:
            version.state = State.UNLOADING
        self._find_newest()
        return bool(others)

    def fail(self, version: Version, error: StatusError, retry_at: float) -> None:
        version.failures += 1
        version.retry_at = retry_at
        version.error = error
        self.end(version)

    def forgive(self, numbers: Iterable[int]) -> None:
        """These get all their tries again."""
        for number in numbers:
            self.versions[number].failures, self.versions[number].retry_at = 0, 0.0

    def end(self, version: Version) -> None:
        version.servable = None
        version.state = State.END
        self.versions[version.number] = self.versions.pop(version.number)
        ended = [number for number, each in self.versions.items() if each.state is State.END]
        for number in [number for number in ended if number not in self.wanted][:-MAX_ENDED]:
            del self.versions[number]

    def drained(self) -> list[Version]:
        """Versions that are to go and that nobody uses."""
        return [version for version in self._in(State.UNLOADING) if version.leases == 0]

    def idle(self) -> bool:
        """Whether nothing is loaded, nor being loaded."""
        return all(version.state in (State.START, State.END) for version in self.versions.values())

    def to_retry(self, max_retries: int) -> list[Version]:
        """Wanted versions that have failed and will be tried again."""
        wanted = (self.versions[number] for number in self.wanted)
        return [version for version in wanted if version.error and version.failures <= max_retries]

    def failed(self, max_retries: int) -> Version | None:
        """The newest wanted version, if all have failed for good and nothing answers."""
        wanted = [self.versions[number] for number in self.wanted]
        if self._newest is not None or not all(each.failures > max_retries for each in wanted):
            return None
        return max(wanted, key=lambda version: version.number, default=None)

    def _in(self, state: State) -> list[Version]:
        return [version for version in self.versions.values() if version.state is state]

    def _find_newest(self) -> None:
        self._newest = max(self._in(State.AVAILABLE), key=lambda version: version.number, default=None)


def find_versions(base_path: str) -> dict[int, str] | None:
    """Number and path of every version below a base path; None when it is missing or unreadable.

    A version is a folder whose name is all digits; leading zeros do not count. Of two folders for one
    number, the one whose name comes last is taken.
    """
    try:
        with os.scandir(base_path) as entries:
            return {
                int(entry.name): entry.path
                for entry in sorted(entries, key=lambda entry: entry.name)
                if entry.name.isascii()
                and entry.name.isdigit()
                and int(entry.name) <= _LARGEST_VERSION
                and entry.is_dir()
            }
    except OSError:
        return None
