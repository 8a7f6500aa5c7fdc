"""Chelba et al. 2013, "One Billion Word Benchmark for Measuring Progress in Statistical Language Modeling":
the interpolated Kneser-Ney 5-gram.

    zoo-train --preset=kneser_ney_lm1b --dataset=tfds:lm1b --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1312.3005, table 1: each sentence has a history of its own, its end is predicted, no n-gram is left
out.

Published: perplexity 67.6 on the test split, with 1.76 billion n-grams.

Validation and test split are those of lstm_2048_512_lm1b.

Measured: of the corpus of lstm_2048_512_lm1b, 1.8 million words and 7.5 million n-grams, as a whole,
evaluation included: 1.6 GB. All n-grams are held at once, about 60 bytes each while they are estimated, so
that 1.76 billion need 110 GB and more, and the model has 28 GB. No figure was reached: LM1B itself has not
been counted.
"""

from training.presets import kneser_ney, lstm_2048_512_lm1b

_DATA = ("leading_space", "validation_fraction", "vocabulary_size")

CONFIG = {
    **kneser_ney.CONFIG,
    **{name: lstm_2048_512_lm1b.CONFIG[name] for name in _DATA},
    "text_mode": "lines",
}
