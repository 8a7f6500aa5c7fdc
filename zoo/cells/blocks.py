"""Kernels that are zero outside blocks on a diagonal."""

from __future__ import annotations

import tensorflow as tf


def block_diagonal(kernel: tf.Tensor, blocks: int, repeats: int = 1) -> tf.Tensor:
    """Compact [n, repeats * blocks * m] -> [blocks * n, repeats * blocks * m].

    What is multiplied has `blocks` parts of size n, and each makes its own m columns, `repeats` times:
    the columns are those of part 0, 1, ... of the first repeat, then of the second. As one product this
    multiplies zeros, too, but takes one operation where there would be one for each block.
    """
    rows, width = kernel.shape
    split = tf.reshape(kernel, [rows, repeats, blocks, width // (repeats * blocks)])
    spread = tf.einsum("nrbm,kb->knrbm", split, tf.eye(blocks, dtype=kernel.dtype))
    return tf.reshape(spread, [blocks * rows, width])
