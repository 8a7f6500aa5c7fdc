"""A word language model of the size of Zaremba et al.'s small one, for corpora that are tokenized already.

Two layers of 200 units, the full softmax over every word of the corpus, 20 sequences of 35 steps.
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "whitespace",
    "cell": "lstm",
    "units": 200,
    "layers": 2,
    "dropout": 0.2,
    "initializer_scale": 0.1,
    "batch_size": 20,
    "sequence_length": 35,
    "evaluation_batch_size": 10,
    "optimizer": "sgd",
    "learning_rate": 20.0,
    "global_clipnorm": 0.25,
    "schedule": "plateau",
    "decay_factor": 0.25,
    "epochs": 6,
}
