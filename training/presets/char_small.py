"""A small character language model that trains in minutes on two CPU cores."""

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
