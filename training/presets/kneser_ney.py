"""Interpolated modified Kneser-Ney, 5-grams: the lecture's KN5.

Chen and Goodman 1998, TR-10-98, section 3; no n-gram is left out, and each line has a history of its own.
"""

CONFIG = {
    "task": "language_model",
    "model": "ngram",
    "leading_space": True,
    "tokenizer": "whitespace",
    "order": 5,
    "discount_fallback": "0.5,1,1.5",  # of texts so short that they give no discounts
}
