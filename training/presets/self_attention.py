"""Stacked bidirectional LSTM with residual connections and self-attention.

    zoo-train --preset=self_attention --dataset=tsv:reviews.tsv --output_dir=DIR

CS224N lecture 6, "stacked bi-directional LSTM with residual connections and self-attention"; the attention
is that of Lin et al. 2017, arXiv:1703.03130. The first layer's inputs are as large as its outputs, so that
it, too, has a residual connection.
"""

CONFIG = {
    "task": "classification",
    "tokenizer": "words",
    "units": 64,
    "layers": 3,
    "embedding_size": 128,
    "skip": "residual",
    "bidirectional": True,
    "pooling": "attention",
    "dropout": 0.5,
    "batch_size": 32,
    "epochs": 5,
}
