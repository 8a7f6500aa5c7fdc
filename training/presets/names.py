"""Which language a name is of: a bidirectional LSTM over its characters.

zoo-train --preset=names --dataset=tsv:surnames.tsv --output_dir=DIR
"""

CONFIG = {
    "task": "classification",
    "tokenizer": "characters",
    "units": 128,
    "embedding_size": 64,
    "bidirectional": True,
    "pooling": "maximum",
    "dropout": 0.4,
    "input_dropout": 0.0,
    "batch_size": 32,
    "learning_rate": 3e-3,
    "epochs": 8,
}
