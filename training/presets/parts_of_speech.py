"""Parts of speech: words and their characters, a bidirectional LSTM, a linear-chain CRF.

    zoo-train --preset=parts_of_speech --dataset=conllu --train_path=en_ewt-ud-train.conllu \\
        --validation_path=en_ewt-ud-dev.conllu --output_dir=DIR

After Huang et al. 2015, arXiv:1508.01991, and Lample et al. 2016, arXiv:1603.01360, without pretrained
vectors.
"""

CONFIG = {
    "task": "tagging",
    "tokenizer": "words",
    "units": 128,
    "embedding_size": 100,
    "character_units": 48,
    "bidirectional": True,
    "crf": True,
    "dropout": 0.4,
    "batch_size": 32,
    "epochs": 12,
}
