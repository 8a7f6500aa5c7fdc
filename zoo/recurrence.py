"""The recurrent layer: runs any cell over a sequence.

Work that does not depend on the state is taken out of the loop over time: the inputs are projected for
all steps in one product, and each kernel's gradient is one product over all steps (zoo/time_loop.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from zoo.cells.base import Cell, GivenWeights, step_weights_from
from zoo.cells.linear import LinearCell
from zoo.recomputation import recomputed_loop
from zoo.time_loop import Trial, differentiable_loop, plain_loop


@keras.saving.register_keras_serializable("zoo")
class Recurrent(keras.layers.RNN):
    """Runs a cell of the zoo over the time dimension: a faster `keras.layers.RNN`.

    Takes what `keras.layers.RNN` takes (`return_sequences`, `return_state`, `go_backwards`,
    `stateful`, `zero_output_for_mask`; `mask` and `initial_state` when called), gives the same
    numbers, and works inside `keras.layers.Bidirectional`. The fast backward pass is that of
    `training=True`, which `model.fit` passes; a loop of one's own has to say it. Then memory holds states
    and products of all steps; with `recompute_every=n`, the inputs, the outputs and every n-th state, and
    each step is computed twice. A cell that is linear in its state is evaluated for all steps at once,
    unless zoneout or `recompute_every` asks for the loop.

    Shapes: inputs [batch, time, features] -> [batch, time, units] with `return_sequences`,
    else [batch, units]. At a masked step states and output stay as they were; a row that is masked
    throughout passes its initial state on and outputs zero.
    """

    def __init__(self, cell: Cell, recompute_every: int = 0, **kwargs):
        if not isinstance(cell, Cell):
            raise ValueError(f"Recurrent runs the cells of zoo.cells; got {type(cell).__name__}")
        super().__init__(cell, **kwargs)
        self.autocast = False  # states keep their precision
        if recompute_every < 0:
            raise ValueError(f"recompute_every must be at least 0, got {recompute_every}")
        self.recompute_every = recompute_every

    def build(self, sequences_shape, initial_state_shape=None):
        self._check_rank(sequences_shape)
        super().build(sequences_shape, initial_state_shape)

    def call(self, sequences, initial_state=None, mask=None, training=False):
        self._check_rank(sequences.shape)
        batch_size = tf.shape(sequences)[0]
        inputs = tf.transpose(tf.convert_to_tensor(sequences), [1, 0, 2])  # [time, batch, features]
        mask = None if mask is None else tf.transpose(tf.cast(mask, tf.bool))
        if self.go_backwards:
            inputs = tf.reverse(inputs, [0])
            mask = None if mask is None else tf.reverse(mask, [0])
        given = self.cell.given_weights(training, batch_size)
        states = self._starting_states(initial_state, batch_size)
        if isinstance(self.cell, LinearCell) and not (self.cell.zoneout or self.recompute_every):
            with step_weights_from(given):
                outputs, last_output, states = self.cell.parallel(inputs, states, mask)
        else:
            zoned = self.cell.zoned(tf.shape(inputs)[:2]) if training else []
            outputs, last_output, states = scan(
                self.cell, given, [inputs, *zoned], states, mask, training, self.recompute_every
            )
        if self.zero_output_for_mask and mask is not None:
            outputs = tf.where(mask[:, :, tf.newaxis], outputs, tf.zeros_like(outputs))
            is_last = tf.reduce_all(mask[-1:], axis=0)[:, tf.newaxis]
            last_output = tf.where(is_last, last_output, tf.zeros_like(last_output))
        if self.stateful:
            for variable, state in zip(self.states, states, strict=True):
                variable.assign(state)
        output = tf.transpose(outputs, [1, 0, 2]) if self.return_sequences else last_output
        output = tf.cast(output, self.compute_dtype)
        return (output, *states) if self.return_state else output

    def _check_rank(self, shape):
        if len(shape) != 3:
            raise ValueError(
                f"{self.name}: expected inputs [batch, time, features], got shape {tuple(shape)}"
            )

    def _starting_states(self, initial_state, batch_size):
        if initial_state is None:
            initial_state = self.states if self.stateful else self.cell.get_initial_state(batch_size)
        states = [tf.convert_to_tensor(state) for state in keras.tree.flatten(initial_state)]
        sizes = [state.shape[-1] for state in states]
        if sizes != self.cell.state_size:
            raise ValueError(
                f"{self.name}: expected initial states of sizes {self.cell.state_size}, got {sizes}"
            )
        return [tf.cast(state, self.cell.state_dtype) for state in states]

    def get_config(self):
        return {**super().get_config(), "recompute_every": self.recompute_every}


def scan(
    cell: Cell,
    given: GivenWeights,
    inputs: Sequence[tf.Tensor],
    initial_states: Sequence[tf.Tensor],
    mask: tf.Tensor | None = None,
    training: bool = False,
    recompute_every: int = 0,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Apply a cell from the first time step to the last.

    Args:
        given: the weights of the cell's step, to which gradients flow.
        inputs: [time, batch, ...]: the cell's inputs, and what zoneout keeps of each state.
        mask: bool [time, batch], False where nothing is to happen.
        training: keep what a fast backward pass needs; with `recompute_every`, only every n-th state.

    Returns:
        outputs [time, batch, cell.output_size], the last output, and the final states.
    """
    loop = differentiable_loop if training else plain_loop
    if recompute_every and training:
        return _recomputed(cell, given, inputs, initial_states, mask, recompute_every)
    inputs = [cell.project(inputs[0]), *inputs[1:]]
    if mask is None and _output_is_state(cell, given, inputs, initial_states):
        outputs, *states = loop(_states_only(cell.advance), given, inputs, initial_states)
        last_output = states[0] if inputs[0].shape[0] else tf.where(tf.shape(inputs[0])[0] > 0, states[0], 0)
        return outputs, last_output, states
    step, inputs, carry = _carrying_output(cell, inputs, initial_states, mask)
    outputs, last_output, *states = loop(step, given, inputs, carry)
    return outputs, last_output, states


def _recomputed(cell, given, inputs, initial_states, mask, every):
    time, batch_size = tf.unstack(tf.shape(inputs[0])[:2])
    if mask is not None or not inputs[0].shape[0] or inputs[0].shape[0] % every:
        mask = tf.ones([time, batch_size], tf.bool) if mask is None else mask
        *inputs, mask = _padded([*inputs, mask], every)
    step, inputs, carry = _carrying_output(cell, inputs, initial_states, mask)

    def run_chunk(given, inputs, carry):
        return differentiable_loop(step, given, [cell.project(inputs[0]), *inputs[1:]], carry)

    outputs, last_output, *states = recomputed_loop(run_chunk, given, inputs, carry, every)
    return outputs[:time], last_output, states


def _output_is_state(cell, given, inputs, states) -> bool:
    """Whether the first state is the output, so that it need not be carried by itself."""
    output, new_states = Trial(_states_and_output(cell.advance), given, inputs, states).result
    return output is new_states[0]


def _states_and_output(advance):
    return lambda inputs, states: advance(inputs[0], states, inputs[1:] or None)


def _states_only(advance):
    return lambda inputs, states: advance(inputs[0], states, inputs[1:] or None)[1]


def _carrying_output(cell, inputs, initial_states, mask):
    """(step, inputs, carry) with the output carried like a state.

    So masked steps repeat it, and there is one if a sequence has no steps.
    """
    no_output = tf.zeros([tf.shape(inputs[0])[1], cell.output_size], cell.state_dtype)

    def step(inputs, carry):
        output, states = cell.advance(inputs[0], carry[1:], inputs[1:] or None)
        return [output, *states]

    def masked_step(inputs, carry):
        kept = inputs[-1][:, tf.newaxis]
        return [tf.where(kept, new, old) for new, old in zip(step(inputs[:-1], carry), carry, strict=True)]

    carry = [no_output, *initial_states]
    return (step, inputs, carry) if mask is None else (masked_step, [*inputs, mask], carry)


def _padded(tensors: Sequence[tf.Tensor], every: int) -> list[tf.Tensor]:
    """[time, batch, ...], followed by zeros (False) up to a multiple of `every` steps, at least one."""
    time = tf.shape(tensors[0])[0]
    missing = -tf.maximum(time, 1) % every + tf.maximum(1 - time, 0)
    return [tf.pad(tensor, [[0, missing], *[[0, 0]] * (tensor.shape.rank - 1)]) for tensor in tensors]
