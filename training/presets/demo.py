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
    "optimizer": "adamw",
    "learning_rate": 1.6e-2,
    "beta_1": 0.8,
    "beta_2": 0.99,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup_steps": 20,
    "max_steps": 1200,
    "evaluate_every": 400,
}
