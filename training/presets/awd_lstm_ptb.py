"""Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models" (AWD-LSTM), for the Penn Treebank.

    zoo-train --preset=awd_lstm_ptb --dataset=ptb:DIR --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1 \\
        --cache_size=500 --cache_weight=0.1 --cache_flatness=1
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1 --batch_size=100 \\
        --dynamic_learning_rate=5e-5 --dynamic_decay=0.002 --dynamic_statistics=100000

arXiv:1708.02182, section 5, with batch size and dropout between layers of the authors' code: embeddings of
400 tied to the output layer, layers of 1150, 1150 and 400 units, half of the recurrent weights dropped,
locked dropout of 0.4 on embeddings, 0.25 between layers and 0.4 on the output, 10 % of the words dropped,
activation regularization 2 and 1, about 70 steps, SGD with learning rate 30, the gradient's norm clipped at
0.25, weight decay 1.2e-6, averaged weights (NT-ASGD) after 5 evaluations without a best, 500 epochs.

Published: perplexity 60.0 on the validation and 57.3 on the test split; by the authors' later code 61.2 and
58.8, after finetuning, which is not part of this, 58.8 and 56.5, and then with the cache 53.2 and 52.5.
With dynamic evaluation (Krause et al. 2018) 51.6 and 51.1.

Differs from the paper: weights start as layers do here (Glorot's uniform distribution, that of the
embeddings normal with variance 1/400), and lengths are stretched by a few in a thousand.

Measured: on two cores three steps, of WikiText-2 with its 10,000 most frequent words (24.2 million
weights): 2.7 s for 1,500 tokens, 1.6 GB. No figure was reached: it has not been trained to the end.
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "whitespace",
    "cell": "lstm",
    "cell_options": "forget_bias=0",
    "units": 1150,
    "last_units": 400,
    "layers": 3,
    "embedding_size": 400,
    "tie_embeddings": True,
    "dropout": 0.25,
    "input_dropout": 0.4,
    "output_dropout": 0.4,
    "locked_dropout": True,
    "embedding_dropout": 0.1,
    "weight_drop": 0.5,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
    "recurrent_initializer": "glorot_uniform",
    "batch_size": 20,
    "sequence_length": 70,
    "random_sequence_length": True,
    "state_reset": 0.0,
    "evaluation_batch_size": 10,  # at the end of each epoch; the published figures are of one lane
    "optimizer": "sgdw",
    "learning_rate": 30.0,
    "weight_decay": 1.2e-6,
    "global_clipnorm": 0.25,
    "schedule": "constant",
    "average_weights_after": 5,
    "epochs": 500,
}
