"""Named entities: words and their characters, a bidirectional LSTM, a linear-chain CRF of legal BIO moves.

    zoo-train --preset=entities --dataset=conll --train_path=... --validation_path=... --output_dir=DIR

Lample et al. 2016, arXiv:1603.01360, without pretrained vectors.
"""

CONFIG = {
    "task": "tagging",
    "tokenizer": "words",
    "units": 100,
    "embedding_size": 100,
    "character_units": 32,
    "bidirectional": True,
    "crf": True,
    "dropout": 0.5,
    "batch_size": 16,
    "epochs": 15,
}
