"""Sparse non-negative matrix estimation, n-grams and skip-grams: the lecture's SNM.

    zoo-train --preset=snm --dataset=text --train_path=wiki.train.tokens \\
        --validation_path=wiki.valid.tokens --test_path=wiki.test.tokens --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

Shazeer, Pelemans and Chelba 2015, arXiv:1412.1454. 5-grams; skip-grams of up to three words in the history,
one skipped between them; and of up to two, with two to ten words skipped, however many (tied). The adjustment
is learned in one pass over the text.

Differs from the paper: fewer and shorter skip-grams, for a small corpus (its SNM10-skip has 10-grams).

Published, of LM1B: perplexity 52.9 with skip-grams, where the Kneser-Ney 5-gram has 67.6.

Measured, of WikiText-2, on two cores: perplexity 197.4 on the validation and 185.7 on the test split, where
the Kneser-Ney 5-gram has 220.14; 1:39 minutes for training, 3.2 GB. With other limits, by zoo.snm alone,
without the programs around it: 221.8 on the test split with n-grams alone (--skip_words=0), 17 s; 190.8 with
at most five words skipped and two passes (--tied_skips=5 --epochs=2), 75 s.
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
