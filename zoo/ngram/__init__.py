"""Count-based language models: counting n-grams, Kneser-Ney smoothing, back-off models, ARPA files."""

from zoo.ngram.backoff import MAX_ORDER, BackoffModel
from zoo.ngram.counting import Counts, count
from zoo.ngram.kneser_ney import FALLBACK, estimate

__all__ = ["FALLBACK", "MAX_ORDER", "BackoffModel", "Counts", "count", "estimate"]
