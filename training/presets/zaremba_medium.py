"""Zaremba, Sutskever and Vinyals 2014, "Recurrent Neural Network Regularization", medium regularized LSTM.

    zoo-train --preset=zaremba_medium --dataset=ptb:DIR --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1409.2329, section 4.1: two layers of 650 units, weights uniform in [-0.05, 0.05], half of the values
dropped between layers, 20 sequences of 35 steps, SGD with learning rate 1, divided by 1.2 each epoch after
the 6th, 39 epochs, the gradient's norm clipped at 5, the loss summed over time. The forget bias is 0.

Published: perplexity 86.2 on the validation and 82.7 on the test split of the Penn Treebank.

Measured: on two cores three steps, of WikiText-2 with its 10,000 most frequent words (19.8 million
weights): 0.9 to 1.2 s a step, 1.1 GB. No figure was reached: it has not been trained to the end.
"""

from training.presets import zaremba_small

CONFIG = {
    **zaremba_small.CONFIG,
    "units": 650,
    "dropout": 0.5,
    "initializer_scale": 0.05,
    "sequence_length": 35,
    "decay_factor": 1 / 1.2,
    "decay_after": 6,
    "epochs": 39,
}
