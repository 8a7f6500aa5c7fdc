"""What a caller may ask for, a value a row: types, defaults and ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf


class Setting(NamedTuple):
    """An optional input of a signature."""

    dtype: tf.DType
    default: Any  # one row's
    is_valid: Callable[[tf.Tensor], tf.Tensor] | None = None
    range: str = ""  # as in "must be <range>"

    @property
    def row(self) -> tf.Tensor:
        """The default, [1, ...]."""
        return tf.constant([self.default], self.dtype)

    def spec(self, name: str) -> tf.TensorSpec:
        """Of a batch; the number of strings of a row is open."""
        shape = [None] * self.row.shape.rank if self.dtype == tf.string else [None, *self.row.shape[1:]]
        return tf.TensorSpec(shape, self.dtype, name)


def checked(
    settings: Mapping[str, Setting], values: Mapping[str, Any], batch_size: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Each setting's value, broadcast from one row to the batch; those out of range are refused."""
    broadcast = {name: rows(values[name], batch_size) for name in settings}
    checks = [
        require(setting.is_valid(broadcast[name]), f"{name} must be {setting.range}")
        for name, setting in settings.items()
        if setting.is_valid is not None
    ]
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in broadcast.items()}


def rows(setting: Any, batch_size: tf.Tensor) -> tf.Tensor:
    """Broadcast a setting of one row [1, ...] to the batch; one of the batch's size stays as it is."""
    return tf.broadcast_to(setting, tf.concat([[batch_size], tf.shape(setting)[1:]], 0))


def require(condition: tf.Tensor, message: str) -> tf.Operation:
    """An operation that fails with the message unless all of the condition holds."""
    return tf.debugging.Assert(tf.reduce_all(condition), [message])
