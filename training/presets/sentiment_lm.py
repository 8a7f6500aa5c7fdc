"""The language model that a classifier of few texts starts from, with `--preset=sentiment_from_lm`.

    zoo-train --preset=sentiment_lm --dataset=tsv:reviews.tsv --output_dir=LM_DIR

After ULMFiT (Howard and Ruder 2018, arXiv:1801.06146), with the texts themselves for all of its corpora.
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "words",
    "vocabulary_size": 10000,
    "units": 200,
    "dropout": 0.5,
    "tie_embeddings": True,
    "batch_size": 32,
    "epochs": 8,
}
