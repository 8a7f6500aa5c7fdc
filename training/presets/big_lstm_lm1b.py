"""Jozefowicz et al. 2016, "Exploring the Limits of Language Modeling", BIG LSTM with CNN inputs, for LM1B.

    zoo-train --preset=big_lstm_lm1b --dataset=tfds:lm1b --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1602.02410, sections 3.2 and 4: as lstm_2048_512_lm1b, but two layers of 8192 units, projected to 1024
each, a quarter of the values dropped, and words read by a convolutional network: byte embeddings of 16,
4,096 filters, two highway layers, a projection to 1024, and 48 bytes of a word between the marks of its
beginning and end. How many filters there are of each width is that of the model that the authors released.

Published: perplexity 30.0 on the test split, with 1.04 billion weights.

Measured: on two cores two steps, of the corpus of lstm_2048_512_lm1b, but with its 300,000 most frequent
words (--vocabulary_size=300000; 531 million weights), as all of them take more memory: 42 and 54 s for 2,560
words, 9.6 GB; without evaluation and checkpoints. With 787,732 words it has 1.03 billion weights, which have
not been run. No figure was reached: it has not been trained to the end.
"""

from training.presets import lstm_2048_512_lm1b

CONFIG = {
    **lstm_2048_512_lm1b.CONFIG,
    "input_layer": "character_cnn",
    "input_options": "character_size=16,filters=32/32/64/128/256/512/1024/2048,highways=2,activation=relu",
    "embedding_size": 1024,
    "cell_options": "projection=1024",
    "units": 8192,
    "layers": 2,
    "dropout": 0.25,
}
