"""Zaremba, Sutskever and Vinyals 2014, "Recurrent Neural Network Regularization", small model.

    zoo-train --preset=zaremba_small --dataset=ptb:DIR --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1409.2329, section 4.1: two layers of 200 units, weights uniform in [-0.1, 0.1], no dropout,
20 sequences of 20 steps, SGD with learning rate 1, halved each epoch after the 4th, 13 epochs, the
gradient's norm clipped at 5, the loss summed over time. The forget bias is 0.

Published: perplexity 120.7 on the validation and 115.9 on the test split of the Penn Treebank, which count
the ends of lines as words, and read the test split as one text from the zero state.

Differs from the paper: the output layer's biases start at zero; training's first word is predicted, too.

Measured: on text of the Penn Treebank's layout and size, WikiText-2's first 929,831, 73,765 and 82,430 words
with the 10,000 most frequent ones known, perplexity 91.4 on validation and 94.3 on test. The same recipe
written for PyTorch, three seeds: 91.0 to 92.6 and 93.5 to 95.9; kneser_ney: 137.3 and 139.5. On two cores
with AVX512 whose sgemm reaches 200 GFLOP/s, 7,900 to 8,700 words/s, medians; the output layer's three
products take 27 of a step's 47 ms, at the rate of sgemm, the loops over time 15, of which their products take
half, on one core. On two cores without AVX512: 2,710 words/s. On the Penn Treebank it has not been run.
"""

CONFIG = {
    "task": "language_model",
    "leading_space": True,
    "tokenizer": "whitespace",
    "cell": "lstm",
    "cell_options": "forget_bias=0",
    "units": 200,
    "layers": 2,
    "initializer_scale": 0.1,
    "batch_size": 20,
    "sequence_length": 20,
    "state_reset": 0.0,  # the paper carries states throughout
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "global_clipnorm": 5.0,
    "loss_reduction": "sequence_sum",
    "schedule": "decay",
    "decay_factor": 0.5,
    "decay_after": 4,
    "epochs": 13,
}
