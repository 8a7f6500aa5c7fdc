"""A syntax highlighter: what each character of Python source is.

    zoo-train --preset=highlighter --dataset=python_source --output_dir=DIR

One layer that reads in both directions: what a character is depends on the quotation mark before it as on the
letters after it.
"""

CONFIG = {
    "task": "tagging",
    "tokenizer": "characters",
    "units": 96,
    "embedding_size": 32,
    "bidirectional": True,
    "crf": False,
    "dropout": 0.0,
    "batch_tokens": 8000,
    "learning_rate": 6e-3,
    "epochs": 2,
}
