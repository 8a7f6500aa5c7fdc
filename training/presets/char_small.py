"""A small character language model that trains in minutes on two CPU cores.

    zoo-train --preset=char_small --dataset=text:shakespeare.txt --output_dir=DIR

One layer of 256 LSTM units. Windows of 32 characters, 64 at a time, make larger and so faster products
than 64 of 32, with as many characters an update. Embeddings of 64 are enough for some hundred
characters, and dropping their values out does harm; dropping hidden values out does good from the
fourth epoch on.

Tiny Shakespeare, the last tenth for validation, two cores with an sgemm rate of 207 GFLOP/s: 37,000
characters/s, 1.496 nats per character after 4,200 steps (5 minutes), 1.488 after 5,600 (6.6 minutes).
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "characters",
    "cell": "lstm",
    "units": 256,
    "layers": 1,
    "embedding_size": 64,
    "dropout": 0.35,
    "input_dropout": 0.0,
    "batch_size": 64,
    "sequence_length": 32,
    "evaluation_batch_size": 4,
    "optimizer": "adam",
    "learning_rate": 8e-3,
    "schedule": "cosine",
    "warmup_steps": 50,
    "max_steps": 5600,
    "evaluate_every": 1400,
}
