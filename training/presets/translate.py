"""A translator of tens of thousands of short sentences: subwords, bidirectional LSTM encoder, attention.

    zoo-train --preset=translate --dataset=parallel --train_path=train.de,train.en \\
        --validation_path=val.de,val.en --output_dir=DIR

After Bahdanau et al. 2015, arXiv:1409.0473, with one layer, and subwords for words.
"""

CONFIG = {
    "task": "translation",
    "tokenizer": "subwords",
    "vocabulary_size": 5000,
    "units": 256,
    "embedding_size": 256,
    "bidirectional": True,
    "attention": "additive",
    "tie_embeddings": True,
    "dropout": 0.4,
    "batch_tokens": 1500,
    "learning_rate": 2e-3,
    "epochs": 8,
}
