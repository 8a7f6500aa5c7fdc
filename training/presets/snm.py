"""Shazeer, Pelemans and Chelba 2015, sparse non-negative matrix estimation: the lecture's SNM.

CONFIG
"""

CONFIG = {
    "task": "language_model",
    "model": "snm",
    "tokenizer": "whitespace",
    "order": 5,
    "skip_words": 3,
    "skips": 1,
    "tied_skips": 10,
    "epochs": 1,
    "learning_rate": 0.1,
}
