"""Chelba et al. 2013, "One Billion Word Benchmark for Measuring Progress in Statistical Language Modeling",
a recurrent network of 1024 units beside maximum-entropy features of 9-grams.

    zoo-train --preset=rnn_maxent_lm1b --dataset=tfds:lm1b --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1312.3005, table 1, with the model of Mikolov et al. 2011 (doi:10.1109/ASRU.2011.6163930): logistic
units, a softmax over classes and within the class, hashed weights of all n-grams up to nine words.

Published: perplexity 51.3 on the test split, with 20 billion weights.

Differs from the paper: 131,072 histories have weights of their own, 234 million, to fit into memory; the
paper's 20 billion are buckets=11200000, or 80 GB, as much again for Adagrad's sums. Adagrad and 128 sequences
of 20 steps are not the paper's, which updates at each word, and does not say the rest; the learning rate,
what the sums begin with and the features' scale are the best of a few tried on WikiText-2, there with n-grams
up to five and 700 words at a time (3e-6 first, which is 2e-7 for gradients that are the mean of 2,560).

Measured: on two cores three steps, of the corpus of lstm_2048_512_lm1b (1.85 billion weights): 23 to 33 s
for 2,560 words, 21.7 GB; without evaluation and checkpoints. No figure was reached: it has not been trained
to the end.
"""

from training.presets import lstm_2048_512_lm1b

CONFIG = {
    **lstm_2048_512_lm1b.CONFIG,
    "cell": "elman",
    "cell_options": "activation=sigmoid",
    "units": 1024,
    "embedding_size": 0,
    "output_layer": "maxent",
    "output_options": "order=9,buckets=131072,scale=3",
    "dropout": 0.0,
    "learning_rate": 0.1,
    "initial_accumulator": 2e-7,
    "loss_reduction": "token_mean",
}
