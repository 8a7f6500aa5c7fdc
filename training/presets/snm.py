"""Sparse non-negative matrix estimation, n-grams and skip-grams: the lecture's SNM.

    zoo-train --preset=snm --dataset=text --train_path=wiki.train.tokens \\
        --validation_path=wiki.valid.tokens --test_path=wiki.test.tokens --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

Shazeer, Pelemans and Chelba 2015, arXiv:1412.1454. Skip-grams after the pattern of the paper's SNM10-skip, for a
small corpus: 5-grams; up to three words with one skipped between them; and a single word, or two, with two to
ten words skipped, however many. The adjustment is learned in one pass over the text.

Published, of LM1B: perplexity 52.9 with skip-grams, where the Kneser-Ney 5-gram has 67.6.

Measured, of WikiText-2, on two cores that others use, too: perplexity 197.4 on the validation and 185.7 on the
test split, where the Kneser-Ney 5-gram has 220.14; 1:39 minutes from start to end, 3.2 GB. Other limits, by the
same code, on the test split: n-grams alone (--skip_words=0) 221.8, in 17 s and 0.6 GB; at most five words
skipped (--tied_skips=5) 191.3, and with two passes 190.8.
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
