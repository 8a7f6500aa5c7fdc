"""Jozefowicz et al. 2016, "Exploring the Limits of Language Modeling", LSTM-2048-512, for the One Billion
Word benchmark (LM1B).

    zoo-train --preset=lstm_2048_512_lm1b --dataset=tfds:lm1b --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1602.02410, section 4: 793,471 words, among them both marks of sentences, of which only the end is
predicted; sentences in the order of the files, one after the other; an LSTM of 2048 units projected to 512,
embeddings of 512, a tenth of the values dropped before and after it, a softmax trained with 8,192 noise
words of a log-uniform distribution, shared by 128 sequences of 20 steps, states that are never reset,
Adagrad with learning rate 0.2 and sums that start at 1, the forget bias 1.

Published: perplexity 43.7.

Differs from the paper: the norm of the whole gradient is clipped at 1, not that of the LSTM's alone; one
process, not 32 at once; validation is of the last 6,060 sentences of the training files, and the test split
of TensorFlow Datasets is all 50 held-out files, where the published figure is of the first.

Measured: on two cores four steps, of a made-up corpus, laid out as lm1b, of 787,732 words, each of them once
and as many more by Zipf's law (818 million weights): 6 to 10 s for 2,560 words, 9.5 GB; without evaluation
and checkpoints, which hold all weights and sums twice more while they are written. No figure was reached: it
has not been trained to the end.
"""

CONFIG = {
    "task": "language_model",
    "leading_space": True,
    "validation_fraction": 0.0002,
    "tokenizer": "whitespace",
    "vocabulary_size": 793_470,
    "cell": "projected_lstm",
    "cell_options": "projection=512",
    "units": 2048,
    "embedding_size": 512,
    "output_layer": "sampled",
    "output_options": "samples=8192,proposal=log_uniform",
    "dropout": 0.1,
    "batch_size": 128,
    "sequence_length": 20,
    "state_reset": 0.0,
    "optimizer": "adagrad",
    "learning_rate": 0.2,
    "initial_accumulator": 1.0,
    "global_clipnorm": 1.0,
    "loss_reduction": "sequence_sum",
    "schedule": "constant",
    "epochs": 10,
    "evaluate_every": 50_000,
    "checkpoint_every": 5_000,
}
