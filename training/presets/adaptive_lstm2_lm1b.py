"""Grave et al. 2017, "Efficient softmax approximation for GPUs", two layers of LSTM-2048, for LM1B.

    zoo-train --preset=adaptive_lstm2_lm1b --dataset=tfds:lm1b --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1609.04309, section 5: as adaptive_lstm_lm1b, with two layers.

Published: perplexity 39.8 on the test split.

Measured: on two cores three steps, of the corpus of lstm_2048_512_lm1b (537 million weights): 20 to 25 s for
2,560 words, 7.9 GB; without evaluation and checkpoints. No figure was reached: it has not been trained to
the end.
"""

from training.presets import adaptive_lstm_lm1b

CONFIG = {**adaptive_lstm_lm1b.CONFIG, "layers": 2}
