"""Ji et al. 2016, "BlackOut: Speeding up Recurrent Neural Network Language Models With Very Large
Vocabularies", RNN-2048, for LM1B.

    zoo-train --preset=rnn_blackout_lm1b --dataset=tfds:lm1b --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

arXiv:1511.06909, section 4.2, and the authors' program (IntelLabs/rnnlm, billion/run_1m.sh): a simple
recurrent network of 2048 logistic units, 2,000 samples of the unigrams to the power of 0.1, 128 sequences of
20 steps.

Published: perplexity 68.3 on the test split.

Differs from the paper: Adagrad with learning rate 0.1 and sums that start at 0, where the authors have a
decaying mean of squares (RMSProp); the norm of the whole gradient is clipped at 1; of the words of the data
the 793,470 most frequent are known, not all.

Of WikiText-2, 200 units and 400 steps, sums that start at 0 reach perplexity 454 on validation, at 0.1 1,010.

Measured: on two cores three steps, of the corpus of lstm_2048_512_lm1b, but with its 200,000 most frequent
words (--vocabulary_size=200000; 828 million weights), as all of them take 26 GB: 3 to 8 s for 2,560 words,
9.5 GB; without evaluation and checkpoints. No figure was reached: it has not been trained to the end.
"""

from training.presets import lstm_2048_512_lm1b

CONFIG = {
    **lstm_2048_512_lm1b.CONFIG,
    "cell": "elman",
    "cell_options": "activation=sigmoid",
    "embedding_size": 0,
    "output_layer": "blackout",
    "output_options": "samples=2000,alpha=0.1",
    "dropout": 0.0,
    "learning_rate": 0.1,
    "initial_accumulator": 0.0,
    "loss_reduction": "token_mean",
}
