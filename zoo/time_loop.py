"""Loops over time.

A loop applies a step from the first time step to the last,

    step(inputs of one time step, carry) -> new carry,

and gives [every carry's first tensor, *final carry]. Three of them compute the same:

`plain_loop` keeps nothing. TensorFlow can differentiate it, only slowly.

`differentiable_loop` has its own gradient. The forward loop keeps the carry and the results of the
step's products; the backward loop replays each step from these, so that it repeats no product, and
differentiates it automatically. Each kernel's gradient is one product over all steps after the loop,

    dK = sum_t operand[t]^T dproduct[t],

instead of one small product a step. A cell needs no backward pass of its own, and memory holds
carries and products, not every intermediate value.

`recomputed_loop` keeps only every n-th carry, and runs the steps between them once more on the way back
(Chen et al. 2016, arXiv:1604.06174; Gruslys et al. 2016, arXiv:1606.03401).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from zoo.cells.base import GivenWeights, step_weights_from

Step = Callable[[Sequence[tf.Tensor], Sequence[tf.Tensor]], Sequence[tf.Tensor]]
Run = Callable[[GivenWeights, Sequence[tf.Tensor], Sequence[tf.Tensor]], Sequence[tf.Tensor]]


def plain_loop(
    step: Step, given: GivenWeights, inputs: Sequence[tf.Tensor], initial_carry: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The loop, keeping nothing. inputs: [time, batch, ...] each."""
    time = tf.shape(inputs[0])[0]
    input_steps = [_unstacked(tensor) for tensor in inputs]

    def body(now, carry, outputs):
        with step_weights_from(given):
            carry = step([steps.read(now) for steps in input_steps], carry)
        return now + 1, carry, outputs.write(now + 1, carry[0])

    # What is carried before the first step is written, too: an empty array cannot be stacked.
    outputs = _array(initial_carry[0].dtype, time + 1).write(0, initial_carry[0])
    _, final_carry, outputs = tf.while_loop(
        lambda now, *_: now < time, body, (0, list(initial_carry), outputs), maximum_iterations=time
    )
    return [_without_first(outputs.stack(), inputs[0]), *final_carry]


def differentiable_loop(
    step: Step, given: GivenWeights, inputs: Sequence[tf.Tensor], initial_carry: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The loop, with a fast gradient in weights, floating-point inputs and initial carry."""
    trial = trial_step(step, given, inputs, initial_carry)
    names = sorted(given.weights)
    masks = given.masks

    @tf.custom_gradient
    def run(inputs, initial_carry, weight_values):
        given = GivenWeights(dict(zip(names, weight_values, strict=True)), masks)
        outputs, final_carry, kept = _forward_loop(step, given, trial, inputs, initial_carry)

        def gradient(d_outputs, *d_final_carry):
            def loop():
                return _backward_loop(step, given, trial, kept, d_outputs, d_final_carry)

            def no_steps():
                d_inputs = [tf.zeros_like(tensor) for tensor in _floating(inputs)]
                return d_inputs, list(d_final_carry), [tf.zeros_like(weight) for weight in weight_values]

            any_steps = tf.shape(inputs[0])[0] > 0
            gradients = loop() if inputs[0].shape[0] else tf.cond(any_steps, loop, no_steps)
            return _none_for_others(inputs, gradients[0]), gradients[1], gradients[2]

        return (outputs, *final_carry), gradient

    return run(list(inputs), list(initial_carry), [given.weights[name] for name in names])


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
        chunk_inputs = [_unstacked(_in_chunks(tensor, every)) for tensor in inputs]

        def body(now, carry, carries, outputs):
            chunk, *new_carry = run_chunk(given, [steps.read(now) for steps in chunk_inputs], carry)
            return now + 1, new_carry, _write(carries, now, carry), outputs.write(now, chunk)

        carries = [_array(tensor.dtype, chunks) for tensor in initial_carry]
        _, final_carry, carries, outputs = tf.while_loop(
            lambda now, *_: now < chunks,
            body,
            (0, list(initial_carry), carries, _array(initial_carry[0].dtype, chunks)),
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
            gradients = _none_for_others(inputs, d_inputs), d_carry, d_weights
            return (gradients, d_variables) if variables else gradients

        outputs = tf.reshape(outputs.stack(), tf.concat([[-1], tf.shape(initial_carry[0])], 0))
        return (outputs, *final_carry), gradient

    return run(list(inputs), list(initial_carry), [given.weights[name] for name in names])


def _backward_over_chunks(
    run_chunk, given, weight_values, variables, chunk_inputs, carries, d_outputs, d_final_carry, every
):
    chunks = tf.shape(d_outputs)[0] // every
    d_chunk_outputs = _unstacked(_in_chunks(d_outputs, every))
    totals = [list(weight_values), list(variables)]

    def body(now, d_carry, d_inputs, d_totals):
        inputs = [steps.read(now) for steps in chunk_inputs]
        carry = [tf.identity(steps.read(now)) for steps in carries]
        sources = [_floating(inputs), carry, *totals]
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
        return now - 1, d_carry, _write(d_inputs, now, d_now_inputs), d_totals

    d_inputs = [_array(steps.dtype, chunks) for steps in _floating(chunk_inputs)]
    _, d_carry, d_inputs, d_totals = tf.while_loop(
        lambda now, *_: now >= 0,
        body,
        (chunks - 1, list(d_final_carry), d_inputs, tf.nest.map_structure(tf.zeros_like, totals)),
        maximum_iterations=chunks,
    )
    return [_joined(steps.stack()) for steps in d_inputs], d_carry, *d_totals


class Products(GivenWeights):
    """Step weights of the forward loop: multiplies, and keeps the products."""

    def __init__(self, given: GivenWeights):
        super().__init__(given.weights, given.masks)
        self.names: list[str] = []
        self.operands: list[tf.Tensor] = []
        self.products: list[tf.Tensor] = []
        self.other_names: set[str] = set()

    def product(self, operand, name):
        self.names.append(name)
        self.operands.append(operand)
        self.products.append(super().product(operand, name))
        return self.products[-1]

    def weight(self, name):
        self.other_names.add(name)
        return super().weight(name)


class _Replay(GivenWeights):
    """Step weights of the backward loop: gives the kept products, notes operands and gradients."""

    def __init__(self, given: GivenWeights, transposed: dict[str, tf.Tensor], products: Sequence[tf.Tensor]):
        super().__init__(given.weights, given.masks)
        self.transposed = transposed
        self.products = products
        self.operands: list[tf.Tensor] = []
        self.d_products = [tf.zeros_like(product) for product in products]

    def product(self, operand, name):
        position = len(self.operands)
        self.operands.append(operand)

        @tf.custom_gradient
        def kept_product(operand):
            def gradient(d_product):
                self.d_products[position] = d_product
                return tf.matmul(d_product, self.transposed[name])

            return tf.identity(self.products[position]), gradient

        return kept_product(operand)


class Trial(Products):
    """A step tried once: its products, its other weights, and which operands are carried tensors as they are.

    `carried[n]` is the place in the carry of the n-th product's operand, None for one that is computed.
    `result` is what the step gave.
    """

    result: Any = None

    def __init__(self, given: GivenWeights, carry: Sequence[tf.Tensor]):
        super().__init__(given)
        self.carry = carry

    @property
    def carried(self) -> list[int | None]:
        places = {id(tensor): place for place, tensor in enumerate(self.carry)}
        return [places.get(id(operand)) for operand in self.operands]


def trial_step(step, given, inputs, carry) -> Trial:
    """One step on a scratch graph."""
    with tf.Graph().as_default():
        weights = {name: tf.zeros(weight.shape, weight.dtype) for name, weight in given.weights.items()}
        masks = {name: tf.zeros([1, mask.shape[1]], mask.dtype) for name, mask in given.masks.items()}
        carry = [tf.zeros([1, *tensor.shape[1:]], tensor.dtype) for tensor in carry]
        trial = Trial(GivenWeights(weights, masks), carry)
        with step_weights_from(trial):
            trial.result = step([tf.zeros([1, *tensor.shape[2:]], tensor.dtype) for tensor in inputs], carry)
    return trial


def _forward_loop(step, given, trial, inputs, initial_carry):
    time = tf.shape(inputs[0])[0]
    input_steps = [_unstacked(tensor) for tensor in inputs]
    # The carry before each step; of its first, also the last: an empty array cannot be stacked.
    sizes = [time + 1, *[time] * (len(initial_carry) - 1)]
    carries = [_array(tensor.dtype, size) for tensor, size in zip(initial_carry, sizes, strict=True)]
    products = [_array(tensor.dtype, time) for tensor in trial.products]

    def body(now, carry, carries, products):
        source = Products(given)
        with step_weights_from(source):
            new_carry = step([steps.read(now) for steps in input_steps], carry)
        return now + 1, new_carry, _write(carries, now, carry), _write(products, now, source.products)

    _, final_carry, carries, products = tf.while_loop(
        lambda now, *_: now < time,
        body,
        (0, list(initial_carry), carries, products),
        maximum_iterations=time,
    )
    history = carries[0].write(time, final_carry[0]).stack()
    return _without_first(history, inputs[0]), final_carry, (input_steps, carries, products, history)


def _backward_loop(step, given, trial, kept, d_outputs, d_final_carry):
    """Gradients with respect to floating-point inputs, initial carry, and weights in the order of names."""
    input_steps, carries, products, history = kept
    weights = given.weights
    time = tf.shape(d_outputs)[0]
    d_output_steps = _unstacked(d_outputs)
    others = {name: weights[name] for name in sorted(trial.other_names)}
    # Transposed once: a product that has to transpose its right side takes two to three times as long.
    transposed = {name: tf.transpose(weights[name]) for name in trial.names}

    def computed(operands):  # those that are not kept already, as carries
        return [x for x, place in zip(operands, trial.carried, strict=True) if place is None]

    def body(now, d_carry, d_inputs, operands, d_products, d_others):
        source = _Replay(given, transposed, [steps.read(now) for steps in products])
        now_inputs = [steps.read(now) for steps in input_steps]
        # Made distinct: an eager tape cannot tell apart two that are the same tensor.
        carry = [tf.identity(steps.read(now)) for steps in carries]
        sources = [_floating(now_inputs), carry, others]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            with step_weights_from(source):
                new_carry = step(now_inputs, carry)
        d_output, *d_states = d_carry
        d_now_inputs, d_carry, d_now_others = tape.gradient(
            new_carry,
            sources,
            output_gradients=[d_output + d_output_steps.read(now), *d_states],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        d_inputs = _write(d_inputs, now, d_now_inputs)
        operands = _write(operands, now, computed(source.operands))
        d_products = _write(d_products, now, source.d_products)
        d_others = {name: d_others[name] + d_now_others[name] for name in others}
        return now - 1, d_carry, d_inputs, operands, d_products, d_others

    _, d_carry, d_inputs, operands, d_products, d_weights = tf.while_loop(
        lambda now, *_: now >= 0,
        body,
        (
            time - 1,
            list(d_final_carry),
            [_array(steps.dtype, time) for steps in _floating(input_steps)],
            [_array(tensor.dtype, time) for tensor in computed(trial.operands)],
            [_array(tensor.dtype, time) for tensor in trial.products],
            {name: tf.zeros_like(weight) for name, weight in others.items()},
        ),
        maximum_iterations=time,
    )
    operands = iter(operands)
    for name, place, steps in zip(trial.names, trial.carried, d_products, strict=True):
        if place is None:
            operand = next(operands).stack()
        else:
            operand = carries[place].stack() if place else history[:-1]
        d_kernel = _kernel_gradient(operand, steps.stack())
        d_weights[name] = d_weights[name] + d_kernel if name in d_weights else d_kernel
    d_weights = [
        d_weights[name] if name in d_weights else tf.zeros_like(weights[name]) for name in sorted(weights)
    ]
    return [steps.stack() for steps in d_inputs], d_carry, d_weights


def _kernel_gradient(operand, d_product):
    rows = tf.reshape(operand, [-1, operand.shape[-1]])  # [time * batch, n]
    return tf.matmul(rows, tf.reshape(d_product, [-1, d_product.shape[-1]]), transpose_a=True)


def _floating(tensors):
    return [tensor for tensor in tensors if tensor.dtype.is_floating]


def _none_for_others(tensors, gradients):
    """Gradients of the floating-point tensors, and None for the others, in the order of tensors."""
    gradients = iter(gradients)
    return [next(gradients) if tensor.dtype.is_floating else None for tensor in tensors]


def _without_first(stacked, like):
    outputs = stacked[1:]
    outputs.set_shape([like.shape[0], None, None])  # the loop forgets a known number of steps
    return outputs


def _in_chunks(tensor, every):
    """[time, batch, ...] -> [time / every, every, batch, ...]."""
    chunks = tf.reshape(tensor, tf.concat([[-1, every], tf.shape(tensor)[1:]], 0))
    return tf.ensure_shape(chunks, [None, every, *tensor.shape[1:]])


def _joined(chunks):
    """[chunks, every, batch, ...] -> [time, batch, ...]."""
    steps = tf.reshape(chunks, tf.concat([[-1], tf.shape(chunks)[2:]], 0))
    return tf.ensure_shape(steps, [None, *chunks.shape[2:]])


def _array(dtype, time):
    return tf.TensorArray(dtype, size=time, clear_after_read=False)


def _unstacked(tensor):
    return _array(tensor.dtype, tf.shape(tensor)[0]).unstack(tensor)


def _write(arrays, now, tensors):
    return [array.write(now, tensor) for array, tensor in zip(arrays, tensors, strict=True)]
