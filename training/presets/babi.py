"""Questions about short stories, with answers of a closed set: the tasks of bAbI, a thousand questions each.

    zoo-train --preset=babi --dataset=babi --train_path=... --validation_path=... --output_dir=DIR

The tasks of Weston et al. 2015, arXiv:1502.05698. The reader's recurrence over the story knows what is asked.
"""

CONFIG = {
    "task": "reading",
    "tokenizer": "words",
    "cell": "gru",
    "units": 64,
    "embedding_size": 48,
    "bidirectional": True,
    "dropout": 0.2,
    "batch_size": 32,
    "learning_rate": 4e-3,
    "epochs": 40,
}
