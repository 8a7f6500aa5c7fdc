"""A small character language model that trains in minutes on two CPU cores."""

CONFIG = {
    "task": "language_model",
    "tokenizer": "characters",
    "cell": "lstm",
    "units": 256,
    "embedding_size": 64,
    "dropout": 0.2,
    "input_dropout": 0.0,
    "layers": 1,
    "batch_size": 32,
    "sequence_length": 64,
    "evaluation_batch_size": 4,
    "optimizer": "adam",
    "learning_rate": 6e-3,
    "schedule": "cosine",
    "warmup_steps": 50,
    "max_steps": 4500,
    "evaluate_every": 1500,
}
