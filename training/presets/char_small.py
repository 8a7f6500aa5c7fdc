"""A small character language model that trains in minutes on two CPU cores.

    zoo-train --preset=char_small --dataset=text:shakespeare.txt --output_dir=DIR

One layer of 256 LSTM units. Windows of 32 characters, 64 at a time, make larger and so faster products
than 64 of 32, with as many characters an update. Embeddings of 64 are enough for some hundred
characters, and dropping their values out does harm. Decoupled weight decay regularizes far better than
dropout here, and allows twice the learning rate; a shorter memory of the gradient (beta_1) helps a
little more: with dropout 0.35, no decay and a rate of 8e-3, the same took twice as many steps.

Tiny Shakespeare, the last tenth for validation, two cores with an sgemm rate of 200 GFLOP/s: 1.568 nats
per character after 1,300 steps, 1.493 after 1,950, 1.472 after 2,600 (1.468 by --seed=2); 32,000 to 44,000
characters/s, 2:37 minutes from start to end.
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "characters",
    "cell": "lstm",
    "units": 256,
    "layers": 1,
    "embedding_size": 64,
    "dropout": 0.1,
    "input_dropout": 0.0,
    "batch_size": 64,
    "sequence_length": 32,
    "evaluation_batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 1.6e-2,
    "beta_1": 0.8,
    "beta_2": 0.99,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup_steps": 50,
    "max_steps": 2600,
    "evaluate_every": 650,
}
