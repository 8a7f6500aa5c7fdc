"""Krause et al. 2016, "Multiplicative LSTM for sequence modelling", for text8.

    zoo-train --preset=text8_mlstm --dataset=text:text8 --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test
    zoo-evaluate --model_dir=OUT --split=test --dynamic_learning_rate=5e-5 --dynamic_segment=20

arXiv:1609.07959, its large regularized model: one multiplicative LSTM of 2800 units that reads embeddings
of 400, 46 million weights; the first 90 million characters for training, and 5 million each for validation
and test.

Published: 1.27 bits per character on the test split (1.19 with dynamic evaluation, Krause et al. 2018).

Differs from the paper: dropout of the states in the place of weight normalization with variational dropout;
Adam with a falling rate, whose settings, like batch and window, are this preset's own and not tuned.

Measured: on two cores two steps, of the characters of WikiText-2 (45.7 million weights with these): 52 s a
step, 5.1 GB. No figure was reached: it has not been trained to the end.
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "characters",
    "cell": "multiplicative_lstm",
    "units": 2800,
    "layers": 1,
    "embedding_size": 400,
    "input_dropout": 0.0,
    "output_dropout": 0.2,
    "recurrent_dropout": 0.2,
    "locked_dropout": True,
    "batch_size": 64,
    "sequence_length": 200,
    "recompute_every": 20,
    "evaluation_batch_size": 4,
    "validation_fraction": 0.05,
    "test_fraction": 0.05,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "global_clipnorm": 1.0,
    "schedule": "cosine",
    "warmup_steps": 500,
    "epochs": 10,
    "evaluate_every": 2000,
}
