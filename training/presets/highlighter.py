"""A syntax highlighter: what each character of Python source is.

    zoo-train --preset=highlighter --dataset=python_source --output_dir=DIR

Two layers, of which the second sees in each direction what the first has found in the other.
"""

CONFIG = {
    "task": "tagging",
    "tokenizer": "characters",
    "units": 64,
    "embedding_size": 32,
    "layers": 2,
    "bidirectional": True,
    "crf": False,
    "dropout": 0.0,
    "batch_tokens": 16000,
    "learning_rate": 4e-3,
    "epochs": 1,
}
