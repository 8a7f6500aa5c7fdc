"""Interpolated modified Kneser-Ney, 5-grams: the lecture's KN5.

    zoo-train --preset=kneser_ney --dataset=ptb:DIR --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test

Chen and Goodman 1998, TR-10-98, section 3; no n-gram is left out, and each line has a history of its own.
Line ends are predicted, as KenLM's </s> are. Words that training lacks share an equal part of the uniform
distribution, and all are known on the Penn Treebank.

Published: perplexity 141.2 on the test split of the Penn Treebank.
"""

CONFIG = {
    "task": "language_model",
    "model": "ngram",
    "leading_space": True,
    "tokenizer": "whitespace",
    "order": 5,
    "discount_fallback": "0.5,1,1.5",  # of texts so short that they give no discounts
}
