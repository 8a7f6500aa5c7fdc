"""TensorFlow's recording of what it runs."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import grpc
import tensorflow as tf

# Not public: the public start, refused once because something else records, refuses ever after.
from tensorflow.python.profiler.internal import _pywrap_profiler

from serving.rpc import StatusError


class _Level:
    """A number that has no truth value: TensorFlow 2.21 takes an int for one, and ignores it."""

    def __init__(self, value: int):
        self._value = value

    def __index__(self) -> int:
        return self._value


def record(levels: Mapping[str, int], seconds: float, ended: threading.Event) -> bytes:
    """What runs in this process until `ended`, or for so many seconds: a serialized XSpace.

    `levels` are those of tf.profiler.experimental.ProfilerOptions; those not given are TensorFlow's own.

    Raises:
        StatusError: something else in this process records.
    """
    # TensorFlow gives it to files only.
    with tempfile.TemporaryDirectory(prefix="zoo-serve-profile-") as folder:
        session = _pywrap_profiler.ProfilerSession()
        try:
            session.start(folder, {name: _Level(value) for name, value in levels.items()})
        except tf.errors.AlreadyExistsError as error:
            raise StatusError(grpc.StatusCode.INTERNAL, error.message) from error
        ended.wait(seconds)
        session.export_to_tb()
        (file,) = Path(folder).rglob("*.xplane.pb")
        return file.read_bytes()
