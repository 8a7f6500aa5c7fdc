"""Written dates to ISO 8601, character by character, with attention.

zoo-train --preset=dates --dataset=dates --output_dir=DIR
"""

CONFIG = {
    "task": "translation",
    "tokenizer": "characters",
    "units": 64,
    "embedding_size": 32,
    "bidirectional": True,
    "attention": "additive",
    "dropout": 0.0,
    "batch_size": 64,
    "learning_rate": 5e-3,
    "epochs": 5,
}
