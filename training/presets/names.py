"""Which language a name is of: a bidirectional LSTM over its characters.

zoo-train --preset=names --dataset=tsv:surnames.tsv --output_dir=DIR
"""

CONFIG = {
    "task": "classification",
    "tokenizer": "characters",
    "units": 96,
    "embedding_size": 48,
    "bidirectional": True,
    "pooling": "maximum",
    "dropout": 0.3,
    "batch_size": 64,
    "epochs": 8,
}
