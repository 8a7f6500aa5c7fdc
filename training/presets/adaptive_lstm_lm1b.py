"""Grave et al. 2017, "Efficient softmax approximation for GPUs", LSTM-2048, for LM1B.

    zoo-train --preset=adaptive_lstm_lm1b --dataset=tfds:lm1b --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1609.04309, section 5: an LSTM of 2048 units with the adaptive softmax, Adagrad with learning rate 0.1,
five epochs of 128 sequences at a time, the gradient's norm clipped at 1.

Published: perplexity 43.9 on the test split.

Adagrad's sums start at 0, as in Torch, which the authors used: gradients that are means over the tokens are
so small that a start of 0.1 is most of the sum for long. (Of WikiText-2, 200 units and 400 steps, sums that
start at 0, 1e-5, 1e-3 and 0.1 reach perplexity 408, 426, 537 and 764 on validation.)

Data, embeddings of 512, 20 steps and dropout are those of lstm_2048_512_lm1b, clusters begin where they do
by default, at the words 8,908, 44,540 and 222,700: the paper does not say.

Measured: on two cores four steps, of the corpus of lstm_2048_512_lm1b (504 million weights), where rare
words are more frequent than in any text: 26 to 33 s for 2,560 words, 7.3 GB; without evaluation and
checkpoints. No figure was reached: it has not been trained to the end.
"""

from training.presets import lstm_2048_512_lm1b

CONFIG = {
    **lstm_2048_512_lm1b.CONFIG,
    "cell": "lstm",
    "cell_options": "",
    "output_layer": "adaptive",
    "output_options": "",
    "learning_rate": 0.1,
    "initial_accumulator": 0.0,
    "loss_reduction": "token_mean",
    "epochs": 5,
}
