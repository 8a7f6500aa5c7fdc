"""N-gram models with Kneser-Ney smoothing, to be used as any other."""

from __future__ import annotations

import json
from collections.abc import Sequence

from zoo import ngram
from zoo.models.base import learn_tokenizer
from zoo.models.counted_model import CountedModel, boundary_of, ids_of
from zoo.ngram.layer import Backoff
from zoo.text import TOKENIZERS, Tokenizer

SIZES = "ngrams.json"


class NgramModel(CountedModel):
    """An n-gram model with Kneser-Ney smoothing (see zoo.ngram.kneser_ney); `learn` counts the training text.

    Args:
        tokenizer: how texts become ids.
        sizes: how many n-grams there are of each order; their values are weights.
        separate_texts: the training texts were examples of their own, not one continuous text.

    Options of `learn`: `order`, `prune`, `discount_fallback` and `closed_vocabulary` as in
    zoo.ngram.kneser_ney, and `across_lines`: in a continuous text n-grams reach across the ends of lines.
    """

    def __init__(self, tokenizer: Tokenizer, sizes: Sequence[int], separate_texts: bool = False):
        super().__init__(tokenizer, separate_texts, Backoff(sizes, name="ngrams"))
        self.sizes = list(sizes)

    @property
    def ngrams(self) -> Backoff:
        return self.layer

    @classmethod
    def learn(cls, records, options, source=None):
        tokenizer = learn_tokenizer(records, options, source)
        boundary = boundary_of(tokenizer, options)
        ids = ids_of(tokenizer, records, options["separate_texts"])
        counts = ngram.count(ids, options["order"], tokenizer.vocabulary_size, boundary)
        try:
            estimated = ngram.estimate(
                counts,
                options["prune"],
                options["discount_fallback"] or None,
                not options["closed_vocabulary"],
            )
        except ValueError as error:
            raise ValueError(f"{error} (--order, --discount_fallback, --prune)") from error
        model = cls(tokenizer, estimated.sizes, options["separate_texts"])
        model.ngrams.assign(estimated)
        return model

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        return cls(tokenizer, json.loads(assets[SIZES]), options["separate_texts"])

    def assets(self):
        return {**super().assets(), SIZES: json.dumps(self.sizes).encode()}
