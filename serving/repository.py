"""The models being served, kept in step with their configuration and folders while requests run.

A version is found (a folder named by its number), loaded and warmed up, and takes over; only then those
that are no longer wanted stop being handed out, and each is unloaded when the last request that holds it
has ended. A version that cannot be loaded is retried a few times, and leaves those that run alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet

import grpc

from serving.lifecycle import Lifecycle, Loading, LoadPolicy
from serving.messages import model_pb2
from serving.model_config import ModelConfig
from serving.rpc import StatusError, invalid
from serving.versions import Model, Servable, State, Version

# Models that are served no more stay in the status, the last so many.
MAX_REMOVED = 100


class Repository:
    """All models, and a thread for each that keeps it in step with its folder."""

    def __init__(
        self,
        models: Iterable[ModelConfig | tuple[str, str]],
        load: Callable[[str], Servable],
        policy: LoadPolicy | None = None,
        on_change: Callable[[], None] = lambda: None,
        warm_up: Callable[[Servable, str], None] = lambda servable, path: None,
    ):
        """Serves `models`; `load` makes a servable of a version's folder.

        `warm_up` is called with every fresh servable and its folder before anybody else gets it; what it
        raises fails the load. `on_change` is called when a version has become available or ceased to be,
        before anybody who waits learns of it.

        Raises:
            StatusError: as `configure`.
        """
        self._loading = Loading(load, warm_up, policy or LoadPolicy(), on_change)
        self._changed = self._loading.changed
        self._started = False
        self._models: dict[str, Model] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._lifecycles: dict[str, Lifecycle] = {}  # of removed models, too, in the order of their removal
        self.configure(ModelConfig(*model) for model in models)

    def start(self) -> None:
        with self._changed:
            self._started = True
            for lifecycle in self._lifecycles.values():
                lifecycle.start()

    def close(self, timeout: float = 10.0) -> bool:
        """Load no more, free everything; False if a request or a load is still under way then."""
        with self._changed:
            self._loading.stopping = True
            lifecycles = list(self._lifecycles.values())
            for lifecycle in lifecycles:
                lifecycle.model.retire()
            self._loading.announce()
            self._changed.wait_for(lambda: not any(each.running for each in lifecycles), timeout)
            ended = [lifecycle for lifecycle in lifecycles if not lifecycle.running]
        for lifecycle in ended:
            lifecycle.unload_drained()
        with self._changed:
            return len(ended) == len(lifecycles) and all(each.model.idle() for each in lifecycles)

    def configure(self, models: Iterable[ModelConfig]) -> set[str]:
        """Serve these models from now on, and no others; gives the names of those that are new.

        What is already loaded stays, also where a model's base path changes, if the version is wanted.

        Raises:
            StatusError: a label is given to a version that cannot answer. Nothing has changed then.
        """
        wanted = {model.name: model for model in models}
        with self._changed:
            before = {name: model.config for name, model in self._models.items()}
            if wanted == before:
                return set()
            self._check_labels(wanted.values())
            for name in before.keys() - wanted.keys():
                self._remove(name)
            for name, config in wanted.items():
                if config != before.get(name):
                    self._serve(config)
            self._labels = {name: dict(config.labels) for name, config in wanted.items()}
            started = self._started
            self._loading.unreported += started
            self._loading.announce()
        if started:
            self._loading.report()
        return wanted.keys() - before.keys()

    def _check_labels(self, models: Iterable[ModelConfig]) -> None:
        for model in models:
            for label, number in sorted(model.labels.items()):
                given = self._labels.get(model.name, {}).get(label, number)
                if self._loading.policy.allow_unavailable_labels and given == number:
                    continue
                running = self._models.get(model.name)
                if running is None or running.available(number) is None:
                    raise StatusError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {model.name}, "
                        "which is not currently available for inference",
                    )

    def _serve(self, config: ModelConfig) -> None:
        lifecycle = self._lifecycles.get(config.name)
        if lifecycle is None:
            lifecycle = Lifecycle(Model(config, self._changed), self._loading)
            self._lifecycles[config.name] = lifecycle
        model, before = lifecycle.model, self._models.get(config.name)
        if before is None:
            model.joins = self._started
        if before is None or before.config is None or before.config.base_path != config.base_path:
            model.forgive(model.versions)
        model.config = config
        self._models[config.name] = model
        if self._started:
            lifecycle.start()

    def _remove(self, name: str) -> None:
        model = self._models.pop(name)
        model.config = None
        model.retire()
        self._lifecycles[name] = self._lifecycles.pop(name)
        idle = [
            name
            for name, each in self._lifecycles.items()
            if name not in self._models and not each.running and each.model.idle()
        ]
        for forgotten in idle[:-MAX_REMOVED]:
            del self._lifecycles[forgotten]

    def lease(self, spec: model_pb2.ModelSpec) -> Version:
        """The version that a request asks for, to be used in a `with` statement. Never waits for loading.

        Raises:
            StatusError: with the stock server's words, when there is none.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        number = spec.version.value if choice == "version" else None
        with self._changed:
            if choice == "version_label":
                number = self._labels.get(spec.name, {}).get(spec.version_label)
                if number is None:
                    raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            model = self._models.get(spec.name)
            version = None if model is None else model.available(number)
            if version is not None:
                version.leases += 1
                return version
        which = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {which}")

    def model_names(self) -> list[str]:
        """The models that are configured, in order of their names."""
        with self._changed:
            return sorted(self._models)

    def base_path(self, name: str) -> str | None:
        """Where a model is configured to be."""
        with self._changed:
            model = self._models.get(name)
            return None if model is None or model.config is None else model.config.base_path

    def versions(self, name: str) -> list[tuple[int, State, StatusError | None]]:
        """Number, state and error of the versions seen of a model, newest first; empty if unknown.

        Of those that have ended, and of models served no more, only the last are kept.
        """
        with self._changed:
            lifecycle = self._lifecycles.get(name)
            seen = [] if lifecycle is None else sorted(lifecycle.model.versions.items(), reverse=True)
            return [(number, version.state, version.error) for number, version in seen]

    def all_available(self) -> bool:
        """Whether every model can answer, but for those added while others run that could not yet."""
        with self._changed:
            return all(model.available() is not None or model.joins for model in self._models.values())

    def wait_until_settled(self, timeout: float) -> bool:
        """Waits until every model can answer or has failed for good; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(self._settled, timeout)

    def failures(self) -> list[tuple[str, StatusError]]:
        """Models that cannot answer and will not be tried again, with the last error of each."""
        with self._changed:
            failed = map(self._failed, self._models.values())
            return [(version.model_name, version.error) for version in failed if version and version.error]

    def check_available(self, names: AbstractSet[str]) -> bool:
        """True if all of these models can answer, False as long as some may still come to; never waits.

        Raises:
            StatusError: some will not, in the stock server's words; or nobody waits for them any more.
        """
        with self._changed:
            if self._loading.stopping:
                raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server is stopping")
            if gone := sorted(names - self._models.keys()):
                message = f"Model {gone[0]} was taken out of the configuration again"
                raise StatusError(grpc.StatusCode.ABORTED, message)
            models = [self._models[name] for name in sorted(names)]
            failed = list(filter(None, map(self._failed, models)))
            if len(failed) + sum(model.available() is not None for model in models) < len(models):
                return False
        if failed:
            raise StatusError(
                grpc.StatusCode.UNKNOWN,
                f"{len(failed)} model(s) did not become available: {{{''.join(map(_describe, failed))}}}",
            )
        return True

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` whenever a version or the configuration has changed; it must not wait."""
        with self._changed:
            self._loading.listeners.append(listener)
        try:
            yield
        finally:
            with self._changed:
                self._loading.listeners.remove(listener)

    def _settled(self) -> bool:
        models = self._models.values()
        return not self._loading.unreported and all(
            model.available() is not None or self._failed(model) is not None for model in models
        )

    def _failed(self, model: Model) -> Version | None:
        return model.failed(self._loading.policy.max_retries)


def _describe(version: Version) -> str:
    error = version.error
    reason = f" due to error: {error.code.name}: {error.message}" if error else ""
    return f"{{{{name: {version.model_name} version: {version.number}}}{reason}}}, "
