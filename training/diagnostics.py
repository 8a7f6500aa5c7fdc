"""Gradient flow through time: how much of a loss each earlier state still feels."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from zoo.cells import Cell


def gradient_flow(
    cell: Cell, inputs: tf.Tensor, loss: Callable[[tf.Tensor], tf.Tensor]
) -> dict[str, tf.Tensor]:
    """The norms of the gradients of a loss with respect to the states at each step.

        norm_t = || dLoss / ds_t ||          over all rows and units

    They fall exponentially in the distance to the loss where gradients vanish, and grow where they
    explode: each step back multiplies by one more Jacobian ds_(t+1) / ds_t. The cell is run step by
    step in Python, so this is for sequences of some hundred steps.

    Args:
        inputs: [batch, time, features].
        loss: of the outputs [batch, time, units], a scalar.

    Returns:
        norms [time] by the name of the state, as in cell.STATES.

    Source: Bengio et al. 1994; Pascanu et al. 2013, arXiv:1211.5063, equations 3 to 5; CS224N lecture 6.
    """
    states, outputs, history = cell.get_initial_state(inputs.shape[0]), [], []
    with tf.GradientTape() as tape:
        tape.watch(states)
        for step_inputs in tf.unstack(tf.convert_to_tensor(inputs), axis=1):
            output, states = cell(step_inputs, states)
            outputs.append(output)
            history.append(states)
        value = loss(tf.stack(outputs, axis=1))
    gradients = tape.gradient(value, history, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return {
        name: tf.stack([tf.norm(of_state) for of_state in of_steps])
        for name, of_steps in zip(cell.STATES, zip(*gradients, strict=True), strict=True)
    }
