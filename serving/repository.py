"""The models being served, kept in step with their folders while requests run.

A version is found (a folder named by its number), loaded, and takes over; only then the one before
it stops being handed out, and it is unloaded when the last request that holds it has ended. A version
that cannot be loaded is retried a few times, and leaves the one that runs alone.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable

import grpc
from absl import logging

from serving.messages import model_pb2
from serving.rpc import StatusError, invalid
from serving.versions import Model, Servable, State, Version, find_versions


@dataclasses.dataclass(frozen=True)
class LoadPolicy:
    """How often to look for versions, and how often to try one that fails."""

    poll_seconds: float = 1.0  # 0: look until there is one, then never again
    max_retries: int = 5
    retry_seconds: float = 60.0


class Repository:
    """All models, and the thread that keeps them in step with the folders."""

    def __init__(
        self,
        models: Iterable[tuple[str, str]],
        load: Callable[[str], Servable],
        policy: LoadPolicy | None = None,
        on_change: Callable[[], None] = lambda: None,
    ):
        """Serves `models`, pairs of name and base path; `load` makes a servable of a version's folder.

        `on_change` is called when a version has become available or ceased to be, before anybody who
        waits learns of it.
        """
        self._models = {name: Model(name, base_path) for name, base_path in models}
        self._load = load
        self._policy = policy or LoadPolicy()
        self._on_change = on_change
        self._changed = threading.Condition()  # guards all versions' fields
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, name="repository", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float = 10.0) -> bool:
        """Stop watching and free everything; False if a request or a load is still under way then."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        for model in self._models.values():
            with self._changed:
                model.retire(None)
            self._unload_drained(model)
        with self._changed:
            return all(
                version.state in (State.START, State.END)
                for model in self._models.values()
                for version in model.versions.values()
            )

    def lease(self, spec: model_pb2.ModelSpec) -> Version:
        """The version that a request asks for, to be used in a `with` statement.

        Raises:
            StatusError: with the stock server's words, when there is none.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        if spec.version_label:
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        number = spec.version.value if spec.HasField("version") else None
        with self._changed:
            model = self._models.get(spec.name)
            version = None if model is None else model.available(number)
            if version is not None:
                version.leases += 1
                return version
        which = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {which}")

    def versions(self, name: str) -> list[tuple[int, State, StatusError | None]]:
        """Number, state and error of every version seen of a model, newest first; empty if unknown."""
        with self._changed:
            model = self._models.get(name)
            seen = [] if model is None else sorted(model.versions.items(), reverse=True)
            return [(number, version.state, version.error) for number, version in seen]

    def all_available(self) -> bool:
        """Whether every model can answer."""
        with self._changed:
            return all(model.available() is not None for model in self._models.values())

    def wait_until_settled(self, timeout: float) -> bool:
        """Waits until every model can answer or has failed for good; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(self._settled, timeout)

    def failures(self) -> list[tuple[str, StatusError]]:
        """Models that cannot answer and will not be tried again, with the last error of each."""
        with self._changed:
            errors = ((model.name, model.failed(self._policy.max_retries)) for model in self._models.values())
            return [(name, error) for name, error in errors if error is not None]

    def _settled(self) -> bool:
        retries = self._policy.max_retries
        return all(model.available() or model.failed(retries) for model in self._models.values())

    def _watch(self) -> None:
        while not self._stopping:
            for model in self._models.values():
                try:
                    self._refresh(model)
                except Exception:  # one bad pass must not be the last
                    logging.exception("looking after %s failed", model.name)
            with self._changed:
                drained = any(model.drained() for model in self._models.values())
                if not self._stopping and not drained:
                    self._changed.wait(self._policy.poll_seconds or 1.0)

    def _refresh(self, model: Model) -> None:
        """One look at the folder: load what is new, retire what it replaces, unload what is free."""
        if self._policy.poll_seconds or model.available() is None:
            found = find_versions(model.base_path)
            if found:
                self._ensure_loaded(model, max(found), found[max(found)])
            elif not model.versions and not model.waiting_said:
                model.waiting_said = True
                logging.info(
                    "waiting for a first version of %s: a folder named by a number in %s",
                    model.name,
                    model.base_path,
                )
            if found is not None:
                self._forget_failures(model, found)
                with self._changed:
                    if model.retire(max(found, default=None)):
                        self._on_change()
        self._unload_drained(model)

    def _ensure_loaded(self, model: Model, number: int, path: str) -> None:
        with self._changed:
            version = model.versions.setdefault(number, Version(model.name, number, self._changed))
            due = version.error is None or (
                version.failures <= self._policy.max_retries and time.monotonic() >= version.retry_at
            )
            if version.state not in (State.START, State.END) or not due:
                return
            version.state = State.LOADING
        try:
            servable = self._load(path)
        except Exception as error:
            self._record_failure(version, path, error)
            return
        logging.info("serving version %d of %s from %s", number, model.name, path)
        with self._changed:
            version.servable, version.error, version.failures = servable, None, 0
            version.state = State.AVAILABLE
            self._on_change()
            self._changed.notify_all()

    def _record_failure(self, version: Version, path: str, error: Exception) -> None:
        if not isinstance(error, StatusError):
            error = StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
        again = version.failures < self._policy.max_retries
        logging.error(
            "cannot load version %d of %s from %s: %s (%s)",
            version.number,
            version.model_name,
            path,
            " ".join(error.message.split()),
            f"trying again in {self._policy.retry_seconds:g} s" if again else "giving up on it",
        )
        with self._changed:
            version.failures += 1
            version.retry_at = time.monotonic() + self._policy.retry_seconds
            version.error, version.state = error, State.END
            self._changed.notify_all()

    def _forget_failures(self, model: Model, found: dict[int, str]) -> None:
        """A folder that went away and comes back was repaired, and deserves all its tries again."""
        for number, version in model.versions.items():
            if number not in found:
                version.failures, version.retry_at = 0, 0.0

    def _unload_drained(self, model: Model) -> None:
        with self._changed:
            drained = model.drained()
        for version in drained:
            servable, version.servable = version.servable, None
            if servable is not None:
                servable.close()
            with self._changed:
                version.state = State.END
            logging.info("unloaded version %d of %s", version.number, version.model_name)
