"""Two opinions of a sentence: a bidirectional LSTM over words, the largest output of each unit over time.

    zoo-train --preset=sentiment --dataset=tsv:reviews.tsv --output_dir=DIR

After Conneau et al. 2017, arXiv:1705.02364, section 3.2, for ten thousand sentences: with so few, half of all
values are dropped out.
"""

CONFIG = {
    "task": "classification",
    "tokenizer": "words",
    "units": 100,
    "embedding_size": 100,
    "bidirectional": True,
    "pooling": "maximum",
    "dropout": 0.5,
    "batch_size": 32,
    "epochs": 5,
}
