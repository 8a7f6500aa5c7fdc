"""Follows the file of --model_config_file while the server runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from absl import logging

from serving import config_files, model_config
from serving.model_config import ModelConfig
from serving.rpc import StatusError


class ModelConfigPoller:
    """Applies the file's configuration whenever it has changed; one that cannot be used is reported, once.

    What could not be applied is tried again with every look: a label that was refused since its version is
    not available yet is given as soon as it is.
    """

    def __init__(
        self,
        path: str,
        poll_seconds: float,
        configure: Callable[[list[ModelConfig]], object],
        served: Callable[[], list[str]],
    ):
        """`configure` takes the models of a new configuration; `served` gives the names of those that run."""
        self._path, self._poll_seconds = path, poll_seconds
        self._configure, self._served = configure, served
        self._applied: str | None = None
        self._reported = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model config file", daemon=True)

    def start(self) -> None:
        """Look at once, since the file may have changed since the server read it, and from then on."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.poll()
            except Exception:  # one bad look must not be the last
                logging.exception("following %s failed", self._path)

    def poll(self) -> None:
        """One look at the file."""
        try:
            text = config_files.read_text(self._path)
            if text == self._applied:
                return
            config = config_files.parse_models(text)
            if not config.HasField("model_config_list"):
                if not self._served():
                    return
                raise ValueError(
                    "Cannot transition to requested config. It is only legal to transition from one "
                    "ModelConfigList to another."
                )
            self._configure(model_config.from_proto(config, self._served()))
        except (ValueError, StatusError) as error:
            self._report(str(error))
        else:
            if self._applied is not None:
                logging.info("configured anew from %s", self._path)
            self._applied, self._reported = text, ""

    def _report(self, problem: str) -> None:
        if problem != self._reported:
            self._reported = problem
            logging.error("the configuration stays as it was: %s (%s)", problem, self._path)
