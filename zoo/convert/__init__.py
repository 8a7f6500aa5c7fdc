"""Weights of Elman, LSTM and GRU layers, from and to Keras and PyTorch.

    layers = from_keras(model.layers[1:3])                  [Recurrent, keras.layers.Bidirectional, ...]
    layers = from_torch(module.state_dict())                one for each layer of torch.nn.RNN, LSTM, GRU
    layers = load_torch("model.safetensors", "encoder.")    the same, from a file

and back with `to_keras`, `to_torch` and `save_torch`. A layer of the zoo is here a `Recurrent`, or a
`keras.layers.Bidirectional` of two; several are a list, in the order of their use. A `Stack` or
`Bidirectional` of zoo.wrappers goes out in the place of such a list, and takes one in by
`assign_weights(stack, layers)`. Which goes with which:

    zoo                Keras                      PyTorch
    elman              SimpleRNN                  RNN
    lstm               LSTM                       LSTM
    projected_lstm                                LSTM with proj_size
    gru                GRU, reset_after=False
    gru_reset_after    GRU, reset_after=True      GRU

Numbers are moved, reordered and negated (an update gate u of the zoo is 1 - z there), never
computed with, so that the way there and back gives the same bytes. The exception is the second bias
of PyTorch's modules and of Keras's `reset_after`: where only the sum of both counts, what comes in is
b_ih + b_hh, and what goes out is that sum as b_ih, with zeros as b_hh. The candidate's b_hn of a GRU
stands inside the product with the reset gate, and is kept as it is.

What matters in training only (initializers, regularizers, dropout) is not converted.
"""

from zoo.convert.keras_layers import from_keras as from_keras
from zoo.convert.keras_layers import to_keras as to_keras
from zoo.convert.layers import assign_weights as assign_weights
from zoo.convert.torch_modules import from_torch as from_torch
from zoo.convert.torch_modules import load_torch as load_torch
from zoo.convert.torch_modules import save_torch as save_torch
from zoo.convert.torch_modules import to_torch as to_torch
