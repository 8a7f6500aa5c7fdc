"""A classifier that starts from a language model of its own texts.

    zoo-train --preset=sentiment_from_lm --initialize_from=LM_DIR --dataset=tsv:reviews.tsv --output_dir=DIR

After ULMFiT (Howard and Ruder 2018, arXiv:1801.06146): in the first epoch only the output is trained, then a
layer more each epoch. See `sentiment_lm`.
"""

CONFIG = {
    "task": "classification",
    "tokenizer": "words",
    "units": 200,
    "embedding_size": 200,
    "bidirectional": False,
    "pooling": "maximum",
    "dropout": 0.5,
    "gradual_unfreezing": True,
    "batch_size": 32,
    "epochs": 6,
}
