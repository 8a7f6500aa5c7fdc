"""Recurrences that are linear in their state, for all time steps at once.

    state_t = decay_t * state_(t-1) + increment_t

Time is cut into chunks of about sqrt(time) steps. A loop over the positions in a chunk runs all chunks
side by side: first from zero, which gives what each chunk makes of the state that comes in; a short
loop over the chunks passes the states on; then again from these. So there are about 3 sqrt(time) turns
on large tensors in place of `time` on small ones, and the same sums as in the plain loop: nothing is
divided by products of decays, which vanish, and no logarithm is taken, which would need positive terms.
"""

from __future__ import annotations

import math

import tensorflow as tf


def linear_scan(decay: tf.Tensor, increment: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
    """The states after each step [time, batch, units].

    Decay and increment are [time, batch, units], the initial state is [batch, units]; it is
    differentiable in all three. The gradient is a scan of the same kind, backwards in time: of the loss
    with respect to state_t, all of its effects included,

        g_t = d_t + decay_(t+1) * g_(t+1)
        d loss / d decay_t = g_t * state_(t-1),   d loss / d increment_t = g_t
    """

    @tf.custom_gradient
    def run(decay, increment, initial):
        states = _scan(_forwards, decay, increment, initial)

        def gradient(d_states):
            d_increment = _scan(_backwards, decay, d_states, tf.zeros_like(initial))
            d_decay = d_increment * before(states, initial)
            return d_decay, d_increment, tf.reduce_sum(decay[:1] * d_increment[:1], 0)

        return states, gradient

    return run(decay, increment, initial)


def before(states: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
    """The states before each step, given those after it."""
    return tf.concat([initial[tf.newaxis], states], 0)[:-1]


def last(states: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
    """The state after all steps, of which there may be none."""
    return tf.concat([initial[tf.newaxis], states[-1:]], 0)[-1]


def held(values: tf.Tensor, mask: tf.Tensor | None, initial: tf.Tensor) -> tf.Tensor:
    """Values [time, batch, units], and at masked steps (bool [time, batch], False) the value before.

    That, too, is linear: what stays decays by 1, what is new by 0.
    """
    if mask is None:
        return values
    is_new = mask[:, :, tf.newaxis]
    zeros = tf.zeros_like(values)
    return linear_scan(
        tf.where(is_new, zeros, tf.ones_like(values)), tf.where(is_new, values, zeros), initial
    )


def _forwards(decay, increment, carried):
    """(state, what goes on to the next step)."""
    state = decay * carried + increment
    return state, state


def _backwards(decay, d_state, carried):
    """(gradient with all of the state's effects, what goes on to the step before)."""
    gradient = d_state + carried
    return gradient, decay * gradient


def _scan(step, decay, increment, initial):
    """What `step` gives at each step, [time, batch, units]."""
    time, length = tf.shape(decay)[0], _chunk_length(decay.shape[0])
    if length is None:
        length = tf.maximum(tf.cast(tf.sqrt(tf.cast(time, tf.float32)), tf.int32), 1)
    chunks = tf.maximum((time + length - 1) // length, 1)
    decays = _in_chunks(decay, chunks, length, filler=1)
    increments = _in_chunks(increment, chunks, length, filler=0)

    def at(turn, count):
        return count - 1 - turn if step is _backwards else turn

    def within(turn, kept, carried):
        position = at(turn, length)
        chunk_decays = decays[:, position]
        return turn + 1, chunk_decays * kept, step(chunk_decays, increments[:, position], carried)[1]

    # Of each chunk by itself: how much of what comes in goes out, and what is added.
    nothing = tf.zeros_like(decays[:, 0])
    kept, added = _loop(length, within, tf.ones_like(nothing), nothing)

    def across(turn, carried, starts):
        chunk = at(turn, chunks)
        return turn + 1, kept[chunk] * carried + added[chunk], starts.write(chunk, carried)

    _, starts = _loop(chunks, across, initial, tf.TensorArray(initial.dtype, chunks))

    def again(turn, carried, results):
        position = at(turn, length)
        result, carried = step(decays[:, position], increments[:, position], carried)
        return turn + 1, carried, results.write(position, result)

    _, results = _loop(length, again, starts.stack(), tf.TensorArray(initial.dtype, length))
    results = tf.transpose(results.stack(), [1, 0, 2, 3])  # [chunks, length, batch, units]
    results = tf.reshape(results, tf.concat([[chunks * length], tf.shape(initial)], 0))
    return tf.ensure_shape(results[:time], decay.shape)


def _loop(turns, body, *values):
    return tf.while_loop(lambda turn, *_: turn < turns, body, (0, *values), maximum_iterations=turns)[1:]


def _chunk_length(time: int | None) -> int | None:
    """About the root of a known time, and a divisor of it if there is one near."""
    if time is None:
        return None
    root = max(math.isqrt(time), 1)
    return next((length for length in range(root, 2 * root) if time % length == 0), root)


def _in_chunks(tensor, chunks, length, filler):
    """[time, batch, units] -> [chunks, length, batch, units], filled up at the end."""
    time = tensor.shape[0]
    if not time or time % length:
        missing = chunks * length - tf.shape(tensor)[0]
        tensor = tf.pad(tensor, [[0, missing], [0, 0], [0, 0]], constant_values=filler)
    return tf.reshape(tensor, tf.concat([[chunks, length], tf.shape(tensor)[1:]], 0))
