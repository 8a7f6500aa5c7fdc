"""The demo's language model: characters of the Python documentation, two minutes on two CPU cores."""

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
    "optimizer": "adam",
    "learning_rate": 6e-3,
    "schedule": "cosine",
    "warmup_steps": 20,
    "max_steps": 1500,
    "evaluate_every": 500,
}
