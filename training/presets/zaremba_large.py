"""Zaremba, Sutskever and Vinyals 2014, "Recurrent Neural Network Regularization", large regularized LSTM.

    zoo-train --preset=zaremba_large --dataset=ptb:DIR --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1409.2329, section 4.1: as the medium model, but two layers of 1500 units, weights uniform in [-0.04,
0.04], 65 % of the values dropped, the learning rate divided by 1.15 each epoch after the 14th, 55 epochs,
the gradient's norm clipped at 10.

Published: perplexity 82.2 on the validation and 78.4 on the test split of the Penn Treebank.

Measured: on two cores two steps, of WikiText-2 with its 10,000 most frequent words (66 million weights):
2.6 s a step, 1.8 GB. No figure was reached: it has not been trained to the end.
"""

from training.presets import zaremba_medium

CONFIG = {
    **zaremba_medium.CONFIG,
    "units": 1500,
    "dropout": 0.65,
    "initializer_scale": 0.04,
    "global_clipnorm": 10.0,
    "decay_factor": 1 / 1.15,
    "decay_after": 14,
    "epochs": 55,
}
