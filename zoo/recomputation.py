"""A time loop for long sequences: it keeps only every n-th carry, and runs the steps between twice.

Source: Chen et al. 2016, arXiv:1604.06174; for recurrent networks, Gruslys et al. 2016, arXiv:1606.03401.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from zoo.cells.base import GivenWeights
from zoo.time_loop import floating, new_array, none_for_others, unstacked, write

Run = Callable[[GivenWeights, Sequence[tf.Tensor], Sequence[tf.Tensor]], Sequence[tf.Tensor]]


def recomputed_loop(
    run_chunk: Run,
    given: GivenWeights,
    inputs: Sequence[tf.Tensor],
    initial_carry: Sequence[tf.Tensor],
    every: int,
) -> list[tf.Tensor]:
    """The loop in chunks of `every` steps, each by `run_chunk`; the number of steps is a multiple of it,
    and at least that.

    run_chunk: (weights, inputs [every, batch, ...], carry) -> [outputs [every, batch, n], *carry].
    """
    names = sorted(given.weights)
    masks = given.masks
    chunks = tf.shape(inputs[0])[0] // every

    @tf.custom_gradient
    def run(inputs, initial_carry, weight_values):
        given = GivenWeights(dict(zip(names, weight_values, strict=True)), masks)
        chunk_inputs = [unstacked(_in_chunks(tensor, every)) for tensor in inputs]

        def body(now, carry, carries, outputs):
            chunk, *new_carry = run_chunk(given, [steps.read(now) for steps in chunk_inputs], carry)
            return now + 1, new_carry, write(carries, now, carry), outputs.write(now, chunk)

        carries = [new_array(tensor.dtype, chunks) for tensor in initial_carry]
        _, final_carry, carries, outputs = tf.while_loop(
            lambda now, *_: now < chunks,
            body,
            (0, list(initial_carry), carries, new_array(initial_carry[0].dtype, chunks)),
            maximum_iterations=chunks,
        )

        def gradient(d_outputs, *d_final_carry, variables=()):
            d_inputs, d_carry, d_weights, d_variables = _backward_over_chunks(
                run_chunk,
                given,
                weight_values,
                variables,
                chunk_inputs,
                carries,
                d_outputs,
                d_final_carry,
                every,
            )
            gradients = none_for_others(inputs, d_inputs), d_carry, d_weights
            return (gradients, d_variables) if variables else gradients

        outputs = tf.reshape(outputs.stack(), tf.concat([[-1], tf.shape(initial_carry[0])], 0))
        return (outputs, *final_carry), gradient

    return run(list(inputs), list(initial_carry), [given.weights[name] for name in names])


def _backward_over_chunks(
    run_chunk, given, weight_values, variables, chunk_inputs, carries, d_outputs, d_final_carry, every
):
    chunks = tf.shape(d_outputs)[0] // every
    d_chunk_outputs = unstacked(_in_chunks(d_outputs, every))
    totals = [list(weight_values), list(variables)]

    def body(now, d_carry, d_inputs, d_totals):
        inputs = [steps.read(now) for steps in chunk_inputs]
        carry = [tf.identity(steps.read(now)) for steps in carries]
        sources = [floating(inputs), carry, *totals]
        with tf.GradientTape() as tape:
            tape.watch(sources[:3])
            result = run_chunk(given, inputs, carry)
        d_now_inputs, d_carry, *d_now_totals = tape.gradient(
            result,
            sources,
            output_gradients=[d_chunk_outputs.read(now), *d_carry],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        d_totals = tf.nest.map_structure(tf.add, d_totals, d_now_totals)
        return now - 1, d_carry, write(d_inputs, now, d_now_inputs), d_totals

    d_inputs = [new_array(steps.dtype, chunks) for steps in floating(chunk_inputs)]
    _, d_carry, d_inputs, d_totals = tf.while_loop(
        lambda now, *_: now >= 0,
        body,
        (chunks - 1, list(d_final_carry), d_inputs, tf.nest.map_structure(tf.zeros_like, totals)),
        maximum_iterations=chunks,
    )
    return [_joined(steps.stack()) for steps in d_inputs], d_carry, *d_totals


def _in_chunks(tensor, every):
    """[time, batch, ...] -> [time / every, every, batch, ...]."""
    chunks = tf.reshape(tensor, tf.concat([[-1, every], tf.shape(tensor)[1:]], 0))
    return tf.ensure_shape(chunks, [None, every, *tensor.shape[1:]])


def _joined(chunks):
    """[chunks, every, batch, ...] -> [time, batch, ...]."""
    steps = tf.reshape(chunks, tf.concat([[-1], tf.shape(chunks)[2:]], 0))
    return tf.ensure_shape(steps, [None, *chunks.shape[2:]])
