"""The time loop: runs any cell over a sequence.

Work that does not depend on the state is taken out of the loop. The inputs are projected for all
steps in one product, and each kernel's gradient is one product over all steps after the loop,

    dK = sum_t operand[t]^T dproduct[t],

instead of one small product a step. The forward loop keeps the states and the results of the cell's
products; the backward loop replays each step from these, so that it repeats no product, and
differentiates it automatically. A cell therefore needs no backward pass of its own, and memory
holds states and products, not every intermediate value.

That is for training. Otherwise the loop keeps nothing; TensorFlow can still differentiate it, only
more slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from zoo.cells.base import Cell, GivenWeights, step_weights_from

Step = Callable[[Sequence[tf.Tensor], Sequence[tf.Tensor]], tuple[tf.Tensor, Sequence[tf.Tensor]]]


@keras.saving.register_keras_serializable("zoo")
class Recurrent(keras.layers.RNN):
    """Runs a cell of the zoo over the time dimension: a faster `keras.layers.RNN`.

    Takes what `keras.layers.RNN` takes (`return_sequences`, `return_state`, `go_backwards`,
    `stateful`, `zero_output_for_mask`; `mask` and `initial_state` when called), gives the same
    numbers, and works inside `keras.layers.Bidirectional`. The fast backward pass is that of
    `training=True`, which `model.fit` passes; a loop of one's own has to say it.

    Shapes: inputs [batch, time, features] -> [batch, time, units] with `return_sequences`,
    else [batch, units]. At a masked step states and output stay as they were; a row that is masked
    throughout passes its initial state on and outputs zero.
    """

    def __init__(self, cell: Cell, **kwargs):
        if not isinstance(cell, Cell):
            raise ValueError(f"Recurrent runs the cells of zoo.cells; got {type(cell).__name__}")
        super().__init__(cell, **kwargs)
        self.autocast = False  # states keep their precision

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
        outputs, last_output, states = scan(
            lambda step_inputs, states: self.cell.advance(step_inputs[0], states, step_inputs[1:] or None),
            self.cell.given_weights(training, batch_size),
            [self.cell.project(inputs), *(self.cell.zoned(tf.shape(inputs)[:2]) if training else [])],
            self._starting_states(initial_state, batch_size),
            self.cell.output_size,
            mask,
            training,
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


def scan(
    step: Step,
    given: GivenWeights,
    inputs: Sequence[tf.Tensor],
    initial_states: Sequence[tf.Tensor],
    output_size: int,
    mask: tf.Tensor | None = None,
    training: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Apply `step` from the first time step to the last.

    Args:
        step: (inputs of one step, states) -> (output [batch, output_size], new states); it takes
            its weights through `Cell.product` and `Cell.weight`.
        given: the weights of the step, to which gradients flow.
        inputs: tensors [time, batch, ...]; gradients flow to the floating-point ones.
        mask: bool [time, batch], False where nothing is to happen.
        training: keep what a fast backward pass needs.

    Returns:
        outputs [time, batch, output_size], the last output, and the final states.
    """
    # The output is carried like a state: masked steps repeat it, and a sequence may have no steps.
    no_output = tf.zeros([tf.shape(inputs[0])[1], output_size], initial_states[0].dtype)
    carry = [no_output, *initial_states]
    step = _carrying_output(step) if mask is None else _masked(step)
    inputs = inputs if mask is None else [*inputs, mask]
    loop = _differentiable_loop if training else _plain_loop
    outputs, last_output, *states = loop(step, given, inputs, carry)
    return outputs, last_output, states


def _carrying_output(step: Step) -> Step:
    def step_and_output(inputs, carry):
        output, states = step(inputs, carry[1:])
        return [output, *states]

    return step_and_output


def _masked(step: Step) -> Step:
    def masked_step(inputs, carry):
        output, states = step(inputs[:-1], carry[1:])
        kept = inputs[-1][:, tf.newaxis]
        return [tf.where(kept, new, old) for new, old in zip([output, *states], carry, strict=True)]

    return masked_step


class _Products(GivenWeights):
    """Step weights of the forward loop: multiplies, and keeps the products."""

    def __init__(self, given: GivenWeights):
        super().__init__(given.weights, given.masks)
        self.names: list[str] = []
        self.products: list[tf.Tensor] = []
        self.other_names: set[str] = set()

    def product(self, operand, name):
        self.names.append(name)
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


def _plain_loop(step, given, inputs, initial_carry):
    """[outputs, *final carry] of the loop, keeping nothing else."""
    time = tf.shape(inputs[0])[0]
    input_steps = [_unstacked(tensor) for tensor in inputs]

    def body(now, carry, outputs):
        with step_weights_from(given):
            carry = step([steps.read(now) for steps in input_steps], carry)
        return now + 1, carry, outputs.write(now + 1, carry[0])

    # The output before the first step is written, too: an empty array cannot be stacked.
    outputs = _array(initial_carry[0].dtype, time + 1).write(0, initial_carry[0])
    _, final_carry, outputs = tf.while_loop(
        lambda now, *_: now < time, body, (0, list(initial_carry), outputs), maximum_iterations=time
    )
    return _without_first(outputs.stack(), inputs[0]), *final_carry


def _differentiable_loop(step, given, inputs, initial_carry):
    """[outputs, *final carry] of the loop, differentiable in weights, inputs and initial carry.

    `step` takes the inputs of one step and the carry, and gives the new carry; its first is the output.
    """
    trial = _trial_step(step, given, inputs, initial_carry)
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
                d_inputs = [tf.zeros_like(tensor) for tensor in inputs if tensor.dtype.is_floating]
                return d_inputs, list(d_final_carry), [tf.zeros_like(weight) for weight in weight_values]

            any_steps = tf.shape(inputs[0])[0] > 0
            gradients = loop() if inputs[0].shape[0] else tf.cond(any_steps, loop, no_steps)
            d_inputs = iter(gradients[0])
            d_inputs = [next(d_inputs) if tensor.dtype.is_floating else None for tensor in inputs]
            return d_inputs, gradients[1], gradients[2]

        return (outputs, *final_carry), gradient

    return run(list(inputs), list(initial_carry), [given.weights[name] for name in names])


def _trial_step(step, given, inputs, carry) -> _Products:
    """What products one step makes and which other weights it uses, found on a scratch graph."""
    with tf.Graph().as_default():
        weights = {name: tf.zeros(weight.shape, weight.dtype) for name, weight in given.weights.items()}
        masks = {name: tf.zeros([1, mask.shape[1]], mask.dtype) for name, mask in given.masks.items()}
        trial = _Products(GivenWeights(weights, masks))
        with step_weights_from(trial):
            step(
                [tf.zeros([1, *tensor.shape[2:]], tensor.dtype) for tensor in inputs],
                [tf.zeros([1, *tensor.shape[1:]], tensor.dtype) for tensor in carry],
            )
    return trial


def _forward_loop(step, given, trial, inputs, initial_carry):
    time = tf.shape(inputs[0])[0]
    input_steps = [_unstacked(tensor) for tensor in inputs]
    # The carry before each step, and the last: never empty, since an empty array cannot be stacked.
    carries = [_array(tensor.dtype, time + 1) for tensor in initial_carry]
    products = [_array(tensor.dtype, time) for tensor in trial.products]

    def body(now, carry, carries, products):
        source = _Products(given)
        with step_weights_from(source):
            new_carry = step([steps.read(now) for steps in input_steps], carry)
        return now + 1, new_carry, _write(carries, now, carry), _write(products, now, source.products)

    _, final_carry, carries, products = tf.while_loop(
        lambda now, *_: now < time,
        body,
        (0, list(initial_carry), carries, products),
        maximum_iterations=time,
    )
    carries = _write(carries, time, final_carry)
    return _without_first(carries[0].stack(), inputs[0]), final_carry, (input_steps, carries, products)


def _backward_loop(step, given, trial, kept, d_outputs, d_final_carry):
    """Gradients with respect to floating-point inputs, initial carry, and weights in the order of names."""
    input_steps, carries, products = kept
    weights = given.weights
    time = tf.shape(d_outputs)[0]
    d_output_steps = _unstacked(d_outputs)
    differentiable = [steps.dtype.is_floating for steps in input_steps]
    others = {name: weights[name] for name in sorted(trial.other_names)}
    # Transposed once: a product that has to transpose its right side takes two to three times as long.
    transposed = {name: tf.transpose(weights[name]) for name in trial.names}

    def body(now, d_carry, d_inputs, operands, d_products, d_others):
        source = _Replay(given, transposed, [steps.read(now) for steps in products])
        now_inputs = [steps.read(now) for steps in input_steps]
        # Made distinct: an eager tape cannot tell an output from a state that is the same tensor.
        carry = [tf.identity(steps.read(now)) for steps in carries]
        sources = [[x for x, wanted in zip(now_inputs, differentiable, strict=True) if wanted], carry, others]
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
        operands = _write(operands, now, source.operands)
        d_products = _write(d_products, now, source.d_products)
        d_others = {name: d_others[name] + d_now_others[name] for name in others}
        return now - 1, d_carry, d_inputs, operands, d_products, d_others

    _, d_carry, d_inputs, operands, d_products, d_weights = tf.while_loop(
        lambda now, *_: now >= 0,
        body,
        (
            time - 1,
            list(d_final_carry),
            [
                _array(steps.dtype, time)
                for steps, wanted in zip(input_steps, differentiable, strict=True)
                if wanted
            ],
            [_array(tensor.dtype, time) for tensor in trial.products],
            [_array(tensor.dtype, time) for tensor in trial.products],
            {name: tf.zeros_like(weight) for name, weight in others.items()},
        ),
        maximum_iterations=time,
    )
    for name, operand, d_product in zip(trial.names, operands, d_products, strict=True):
        d_kernel = _kernel_gradient(operand.stack(), d_product.stack())
        d_weights[name] = d_weights[name] + d_kernel if name in d_weights else d_kernel
    d_weights = [
        d_weights[name] if name in d_weights else tf.zeros_like(weights[name]) for name in sorted(weights)
    ]
    return [steps.stack() for steps in d_inputs], d_carry, d_weights


def _without_first(stacked, like):
    outputs = stacked[1:]
    outputs.set_shape([like.shape[0], None, None])  # the loop forgets a known number of steps
    return outputs


def _kernel_gradient(operand, d_product):
    rows = tf.reshape(operand, [-1, operand.shape[-1]])  # [time * batch, n]
    return tf.matmul(rows, tf.reshape(d_product, [-1, d_product.shape[-1]]), transpose_a=True)


def _array(dtype, time):
    return tf.TensorArray(dtype, size=time, clear_after_read=False)


def _unstacked(tensor):
    return _array(tensor.dtype, tf.shape(tensor)[0]).unstack(tensor)


def _write(arrays, now, tensors):
    return [array.write(now, tensor) for array, tensor in zip(arrays, tensors, strict=True)]
