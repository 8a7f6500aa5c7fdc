"""Loops over time.

A loop applies a step from the first time step to the last,

    step(inputs of one time step, carry) -> new carry,

and gives [every carry's first tensor, *final carry]. Two of them compute the same:

`plain_loop` keeps nothing. TensorFlow can differentiate it, only slowly.

`differentiable_loop` has its own gradient. The forward loop keeps the carry and the results of the
step's products; the backward loop replays each step from these, so that it repeats no product, and
differentiates it automatically. Each kernel's gradient is one product over all steps after the loop,

    dK = sum_t operand[t]^T dproduct[t],

instead of one small product a step. A cell needs no backward pass of its own, and memory holds
carries and products, not every intermediate value.

A third, which keeps less, is in zoo/recomputation.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from zoo.cells.base import GivenWeights, long_product, step_weights_from

Step = Callable[[Sequence[tf.Tensor], Sequence[tf.Tensor]], Sequence[tf.Tensor]]


def plain_loop(
    step: Step, given: GivenWeights, inputs: Sequence[tf.Tensor], initial_carry: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The loop, keeping nothing. inputs: [time, batch, ...] each."""
    time = tf.shape(inputs[0])[0]
    input_steps = [unstacked(tensor) for tensor in inputs]

    def body(now, carry, outputs):
        with step_weights_from(given):
            carry = step([steps.read(now) for steps in input_steps], carry)
        return now + 1, carry, outputs.write(now + 1, carry[0])

    # What is carried before the first step is written, too: an empty array cannot be stacked.
    outputs = new_array(initial_carry[0].dtype, time + 1).write(0, initial_carry[0])
    _, final_carry, outputs = tf.while_loop(
        lambda now, *_: now < time, body, (0, list(initial_carry), outputs), maximum_iterations=time
    )
    return [_without_first(outputs.stack(), inputs[0]), *final_carry]


def differentiable_loop(
    step: Step, given: GivenWeights, inputs: Sequence[tf.Tensor], initial_carry: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The loop, with a fast gradient in weights, floating-point inputs and initial carry."""
    trial = Trial(step, given, inputs, initial_carry)
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
                d_inputs = [tf.zeros_like(tensor) for tensor in floating(inputs)]
                return d_inputs, list(d_final_carry), [tf.zeros_like(weight) for weight in weight_values]

            any_steps = tf.shape(inputs[0])[0] > 0
            gradients = loop() if inputs[0].shape[0] else tf.cond(any_steps, loop, no_steps)
            return none_for_others(inputs, gradients[0]), gradients[1], gradients[2]

        return (outputs, *final_carry), gradient

    return run(list(inputs), list(initial_carry), [given.weights[name] for name in names])


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
    """A step tried once on a scratch graph: what its products are, and what need not be kept twice.

    Attributes:
        result: what the step gave.
        carried: for each product, the place in the carry of its operand; None for one that is computed.
        added: for each product, the place among the floating-point inputs of that to which it is only
            added, so that both have the same gradient; None where that is not so.
    """

    def __init__(self, step: Callable, given: GivenWeights, inputs, carry):
        with tf.Graph().as_default():
            weights = {name: tf.zeros(weight.shape, weight.dtype) for name, weight in given.weights.items()}
            masks = {name: tf.zeros([1, mask.shape[1]], mask.dtype) for name, mask in given.masks.items()}
            super().__init__(GivenWeights(weights, masks))
            self.inputs = [tf.zeros([1, *tensor.shape[2:]], tensor.dtype) for tensor in inputs]
            self.carry = [tf.zeros([1, *tensor.shape[1:]], tensor.dtype) for tensor in carry]
            self.step = step
            with step_weights_from(self):
                self.result = step(self.inputs, self.carry)

    @functools.cached_property
    def carried(self) -> list[int | None]:
        return _places(self.operands, self.carry)

    @functools.cached_property
    def added(self) -> list[int | None]:
        with self.inputs[0].graph.as_default():
            replay = _Replay(self, _transposed(self, self.names), self.products)
            d_inputs, _, _ = _step_gradient(self.step, replay, self.inputs, self.carry, {}, self.result)
        return _places(replay.d_products, d_inputs)


def _places(tensors, among) -> list[int | None]:
    """Where each of the tensors is among others: that very one, and not one of the same value."""
    places = {id(tensor): place for place, tensor in enumerate(among)}
    return [places.get(id(tensor)) for tensor in tensors]


def _forward_loop(step, given, trial, inputs, initial_carry):
    time = tf.shape(inputs[0])[0]
    # The carry before each step; of its first, also the last: an empty array cannot be stacked.
    sizes = [time + 1, *[time] * (len(initial_carry) - 1)]
    carries = [new_array(tensor.dtype, size) for tensor, size in zip(initial_carry, sizes, strict=True)]
    products = [new_array(tensor.dtype, time) for tensor in trial.products]

    def body(now, carry, carries, products):
        source = Products(given)
        with step_weights_from(source):
            # A slice shares the memory of the whole, where an array's element would be a copy.
            new_carry = step([tensor[now] for tensor in inputs], carry)
        return now + 1, new_carry, write(carries, now, carry), write(products, now, source.products)

    _, final_carry, carries, products = tf.while_loop(
        lambda now, *_: now < time,
        body,
        (0, list(initial_carry), carries, products),
        maximum_iterations=time,
    )
    history = carries[0].write(time, final_carry[0]).stack()
    return _without_first(history, inputs[0]), final_carry, (inputs, carries, products, history)


def _backward_loop(step, given, trial, kept, d_outputs, d_final_carry):
    """Gradients with respect to floating-point inputs, initial carry, and weights in the order of names."""
    inputs, carries, products, history = kept
    weights = given.weights
    time = tf.shape(d_outputs)[0]
    others = {name: weights[name] for name in sorted(trial.other_names)}
    transposed = _transposed(given, trial.names)

    def body(now, d_carry, d_inputs, operands, d_products, d_others):
        replay = _Replay(given, transposed, [steps.read(now) for steps in products])
        now_inputs = [tensor[now] for tensor in inputs]
        # Made distinct: an eager tape cannot tell apart two that are the same tensor.
        carry = [tf.identity(steps.read(now)) for steps in carries]
        d_carry = [d_carry[0] + d_outputs[now], *d_carry[1:]]
        d_now_inputs, d_carry, d_now_others = _step_gradient(step, replay, now_inputs, carry, others, d_carry)
        d_inputs = write(d_inputs, now, d_now_inputs)
        operands = write(operands, now, _without(trial.carried, replay.operands))
        d_products = write(d_products, now, _without(trial.added, replay.d_products))
        d_others = {name: d_others[name] + d_now_others[name] for name in others}
        return now - 1, d_carry, d_inputs, operands, d_products, d_others

    def arrays(tensors):
        return [new_array(tensor.dtype, time) for tensor in tensors]

    _, d_carry, d_inputs, operands, d_products, d_weights = tf.while_loop(
        lambda now, *_: now >= 0,
        body,
        (
            time - 1,
            list(d_final_carry),
            arrays(floating(inputs)),
            arrays(_without(trial.carried, trial.operands)),
            arrays(_without(trial.added, trial.products)),
            {name: tf.zeros_like(weight) for name, weight in others.items()},
        ),
        maximum_iterations=time,
    )
    d_inputs = [steps.stack() for steps in d_inputs]
    operands, d_products = iter(operands), iter(d_products)
    for name, carried, added in zip(trial.names, trial.carried, trial.added, strict=True):
        if carried is None:
            operand = next(operands).stack()
        else:
            operand = carries[carried].stack() if carried else history[:-1]
        d_product = next(d_products).stack() if added is None else d_inputs[added]
        d_kernel = _kernel_gradient(operand, d_product)
        d_weights[name] = d_weights[name] + d_kernel if name in d_weights else d_kernel
    d_weights = [
        d_weights[name] if name in d_weights else tf.zeros_like(weights[name]) for name in sorted(weights)
    ]
    return d_inputs, d_carry, d_weights


def _step_gradient(step, replay, inputs, carry, others, d_carry):
    """Gradients of one step with respect to floating-point inputs, carry and weights outside products."""
    sources = [floating(inputs), carry, others]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        with step_weights_from(replay):
            new_carry = step(inputs, carry)
    return tape.gradient(
        new_carry, sources, output_gradients=d_carry, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def _transposed(given: GivenWeights, names: Sequence[str]) -> dict[str, tf.Tensor]:
    """Kernels, once for all steps: a product that has to transpose its right side takes twice as long."""
    return {name: tf.transpose(given.weights[name]) for name in names}


def _without(places, tensors):
    """Those of the tensors that are not at a place elsewhere, too."""
    return [tensor for place, tensor in zip(places, tensors, strict=True) if place is None]


def _kernel_gradient(operand, d_product):
    rows = tf.reshape(operand, [-1, operand.shape[-1]])  # [time * batch, n]
    return long_product(rows, tf.reshape(d_product, [-1, d_product.shape[-1]]), transpose_a=True)


def floating(tensors):
    return [tensor for tensor in tensors if tensor.dtype.is_floating]


def none_for_others(tensors, gradients):
    """Gradients of the floating-point tensors, and None for the others, in the order of tensors."""
    gradients = iter(gradients)
    return [next(gradients) if tensor.dtype.is_floating else None for tensor in tensors]


def _without_first(stacked, like):
    outputs = stacked[1:]
    outputs.set_shape([like.shape[0], None, None])  # the loop forgets a known number of steps
    return outputs


def new_array(dtype, time):
    return tf.TensorArray(dtype, size=time, clear_after_read=False)


def unstacked(tensor):
    return new_array(tensor.dtype, tf.shape(tensor)[0]).unstack(tensor)


def write(arrays, now, tensors):
    return [array.write(now, tensor) for array, tensor in zip(arrays, tensors, strict=True)]
