"""Keeps one model in step with its folder: load what is wanted, then retire what is not, then free it."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable

import grpc
from absl import logging

from serving.model_config import ModelConfig
from serving.rpc import StatusError
from serving.versions import Model, Servable, State, Version, find_versions

_LOOK_AGAIN_SECONDS = 1.0  # where nothing else says when


@dataclasses.dataclass(frozen=True)
class LoadPolicy:
    """How often to look for versions, and how often to try one that fails."""

    poll_seconds: float = 1.0  # 0: look until there is one, then never again
    max_retries: int = 5
    retry_seconds: float = 60.0
    allow_unavailable_labels: bool = False  # a label may be given before its version is there


class Loading:
    """What the lifecycles of all models share: how a version is loaded, and the lock.

    `load` makes a servable of a version's folder; `warm_up` is called with both before anybody else gets
    it. One version is loaded at a time. `on_change` is called, without the lock, when a version has become
    available or ceased to be.
    """

    def __init__(
        self,
        load: Callable[[str], Servable],
        warm_up: Callable[[Servable, str], None],
        policy: LoadPolicy,
        on_change: Callable[[], None],
    ):
        self.policy = policy
        self.changed = threading.Condition()  # guards the fields of all models and versions
        self.stopping = False
        self.unreported = 0  # changes that `on_change` has not been told of
        self.listeners: list[Callable[[], None]] = []  # called with the lock, whatever has changed
        self._on_change = on_change
        self._reporting = threading.Lock()  # so that who is told last is told the latest
        self._load, self._warm_up = load, warm_up
        self._busy = False

    def announce(self) -> None:
        """Something has changed; the lock is held."""
        self.changed.notify_all()
        for listener in self.listeners:
            listener()

    def report(self) -> None:
        """Tell of a change that was counted as `unreported` together with making it."""
        try:
            with self._reporting:
                self._on_change()
        finally:
            with self.changed:
                self.unreported -= 1
                self.announce()

    def load(self, version: Version, path: str) -> Servable | None:
        """A servable that is warm, or None where it is not wanted any more.

        Waits for its turn first: a version that waits is still at its start.

        Raises:
            Exception: anything that loading raises.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.stopping or not self._busy)
            if self.stopping:
                return None
            self._busy = True
            version.state = State.LOADING
        try:
            servable = self._load(path)
            try:
                self._warm_up(servable, path)
            except Exception:
                servable.close()
                raise
            return servable
        finally:
            with self.changed:
                self._busy = False
                self.changed.notify_all()


class Lifecycle:
    """One model's, in a thread of its own while the model is configured or anything of it is loaded."""

    def __init__(self, model: Model, loading: Loading):
        self.model = model
        self.running = False
        self._loading = loading
        self._changed = loading.changed
        self._policy = loading.policy
        self._looked: ModelConfig | None = None  # the configuration that needs no further look
        self._said = ""  # last, about versions that are not there

    def start(self) -> None:
        """Begin, or go on with a model that is configured again; the lock is held."""
        if not self.running:
            self.running = True
            threading.Thread(target=self._run, name=f"model {self.model.name}", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._changed:
                config = self.model.config
                if self._loading.stopping or (config is None and self.model.idle()):
                    self.running = False
                    self._loading.announce()
                    return
            try:
                if config is not None and config is not self._looked:
                    self._look(config)
            except Exception:  # one bad pass must not be the last
                logging.exception("looking after %s failed", self.model.name)
            self.unload_drained()
            with self._changed:
                self._changed.wait_for(functools.partial(self._is_due, config), self._seconds_to_wait())

    def _is_due(self, before: ModelConfig | None) -> bool:
        return self._loading.stopping or self.model.config is not before or bool(self.model.drained())

    def _seconds_to_wait(self) -> float | None:
        if self.model.config is None or self.model.config is self._looked:
            return None
        poll = self._policy.poll_seconds or _LOOK_AGAIN_SECONDS
        now = time.monotonic()
        retries = self.model.to_retry(self._policy.max_retries)
        return min([poll, *(max(version.retry_at - now, 0.0) for version in retries)])

    def _look(self, config: ModelConfig) -> None:
        """One look at the folder, and what follows from it."""
        found = find_versions(config.base_path)
        self._say_what_is_missing(config, found or {})
        if found is None:
            return
        wanted = config.policy.choose(found)
        with self._changed:
            if self.model.config is not config:
                return
            self.model.want(wanted)
            # A folder that went away and comes back was repaired.
            self.model.forgive(self.model.versions.keys() - found.keys())
        for number in sorted(wanted, reverse=True):
            if self.model.config is not config or self._loading.stopping:
                return
            self._ensure_loaded(self.model.versions[number], found[number], config)
        with self._changed:
            if self.model.config is not config:
                return
            retired = self._retire(wanted, none_to_come=not found or not config.policy.missing(found))
            self._loading.unreported += retired
            self._stop_looking(config)
        if retired:
            self._loading.report()

    def _say_what_is_missing(self, config: ModelConfig, found: dict[int, str]) -> None:
        """Once, until something else is."""
        message, missing = "", config.policy.missing(found)
        if found and missing:
            numbers = ", ".join(map(str, sorted(missing)))
            message = (
                f"{config.base_path} has no version {numbers}, which {config.name} is configured to serve"
            )
        elif not found and not self.model.versions:
            message = (
                f"waiting for a first version of {config.name}: a folder named by a number in "
                f"{config.base_path}"
            )
        if message and message != self._said:
            logging.info("%s", message)
        self._said = message

    def _retire(self, wanted: frozenset[int], none_to_come: bool) -> bool:
        """Retire what is not wanted, provided that something wanted can answer, or nothing is to come."""
        can_answer = any(self.model.available(number) for number in wanted)
        return (can_answer or (not wanted and none_to_come)) and self.model.retire(wanted)

    def _stop_looking(self, config: ModelConfig) -> None:
        """Where there is no polling, a look is the last when it has left nothing to do."""
        undone = self.model.to_retry(self._policy.max_retries)
        if not self._policy.poll_seconds and self.model.available() is not None and not undone:
            self._looked = config

    def _ensure_loaded(self, version: Version, path: str, config: ModelConfig) -> None:
        with self._changed:
            due = version.error is None or (
                version.failures <= self._policy.max_retries and time.monotonic() >= version.retry_at
            )
            returning = version.servable if version.state is State.UNLOADING else None
            if returning is None and not (version.state in (State.START, State.END) and due):
                return
        try:
            servable = returning or self._loading.load(version, path)
        except Exception as error:
            self._record_failure(version, path, error)
            return
        if servable is not None:
            logging.info("serving version %d of %s from %s", version.number, version.model_name, path)
            self._publish(version, servable, config)

    def _publish(self, version: Version, servable: Servable, config: ModelConfig) -> None:
        with self._changed:
            now = self.model.config
            if self._loading.stopping or now is None or now.base_path != config.base_path:
                self.model.discard(version, servable)  # the configuration has changed while it was loaded
                return
            self.model.publish(version, servable)
            self._loading.unreported += 1
        self._loading.report()

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
            self.model.fail(version, error, time.monotonic() + self._policy.retry_seconds)
            self._loading.announce()

    def unload_drained(self) -> None:
        """Free the versions that nobody uses any more."""
        with self._changed:
            drained = self.model.drained()
        for version in drained:
            servable, version.servable = version.servable, None
            try:
                if servable is not None:
                    servable.close()
            except Exception:
                logging.exception("unloading version %d of %s failed", version.number, version.model_name)
            with self._changed:
                self.model.end(version)
                self._loading.announce()
            logging.info("unloaded version %d of %s", version.number, version.model_name)
