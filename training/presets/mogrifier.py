"""Melis et al. 2020, "Mogrifier LSTM" of 24 million weights, for the Penn Treebank.

    zoo-train --preset=mogrifier --dataset=ptb:DIR --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1 --dropout_samples=100

arXiv:1909.01792, with the tuned settings that the authors published: two layers, as many units as make 24
million weights (912), tied embeddings of the same size, 5 rounds of rank 84; dropout of 0.729 on
embeddings, 0.291 between layers, 0.716 on the output and 0.387 on the states; 64 sequences of 70 steps,
states reset in one sequence of a hundred; Adam without a mean of the gradients (beta_1 = 0), learning rate
0.0023, the gradient's norm clipped at 10, 200,000 steps; averaged weights after 50 evaluations without a
best.

Published: perplexity 50.1 on the test split; with dynamic evaluation 44.9.

Differs from the paper: no input gate capped by the forget gate, no sum of both layers' outputs, no L2
penalty (2.5e-4 there), averaging is not restarted (two-tailed averaging there), and the state's dropout is
the same at all steps. Figures near the published ones are therefore not to be expected without tuning.

Measured: on two cores two steps, of WikiText-2 with its 10,000 most frequent words (24 million weights): 10
s a step, 2.4 GB. No figure was reached: it has not been trained to the end.
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "whitespace",
    "cell": "mogrifier_lstm",
    "cell_options": "rounds=5,rank=84",
    "units": 912,
    "layers": 2,
    "tie_embeddings": True,
    "dropout": 0.291,
    "input_dropout": 0.729,
    "output_dropout": 0.716,
    "recurrent_dropout": 0.387,
    "batch_size": 64,
    "sequence_length": 70,
    "state_reset": 0.01,
    "evaluation_batch_size": 10,
    "optimizer": "adam",
    "learning_rate": 2.3e-3,
    "beta_1": 0.0,
    "beta_2": 0.999,
    "global_clipnorm": 10.0,
    "schedule": "constant",
    "average_weights_after": 50,
    "max_steps": 200_000,
    "evaluate_every": 200,
}
