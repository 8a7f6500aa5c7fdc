"""Sparse non-negative matrix language models, to be used as any other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from zoo.models.base import learn_tokenizer
from zoo.models.counted_model import CountedModel, boundary_of, ids_of
from zoo.snm.adjustment import Adjustment, Matrix, adjust
from zoo.snm.layer import SparseMatrix
from zoo.snm.skipgrams import Chain, Limits, count
from zoo.text import TOKENIZERS, Tokenizer

SKIP_GRAMS = "skip_grams.json"


class SparseMatrixModel(CountedModel):
    """A sparse non-negative matrix model of n-grams and skip-grams (see zoo.snm.adjustment).

    `learn` counts the training text, and learns the adjustment.

    Args:
        tokenizer: how texts become ids.
        chains: of the skip-grams.
        sizes: how many there are by chain and level; their values are weights.
        boundary: the token that none reaches across; None where they do.
        separate_texts: the training texts were examples of their own, not one continuous text.

    Options of `learn`: `order`, `skip_words`, `skips` and `tied_skips` as in zoo.snm.skipgrams.Limits,
    `across_lines` and `closed_vocabulary` as of n-gram models; `epochs`, `learning_rate` and `seed` of the
    adjustment.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        chains: Sequence[Chain],
        sizes: Sequence[Sequence[int]],
        boundary: int | None,
        separate_texts: bool = False,
    ):
        super().__init__(tokenizer, separate_texts, SparseMatrix(chains, sizes, boundary, name="skip_grams"))
        self.sizes = [list(levels) for levels in sizes]

    @property
    def skip_grams(self) -> SparseMatrix:
        return self.layer

    @classmethod
    def learn(cls, records, options, source=None):
        tokenizer = learn_tokenizer(records, options, source)
        boundary = boundary_of(tokenizer, options)
        limits = Limits(*(options[field.name] for field in dataclasses.fields(Limits)))
        limits.chains()  # before the text is read
        ids = np.concatenate(list(ids_of(tokenizer, records, options["separate_texts"])))
        counted = count(ids, limits, tokenizer.vocabulary_size, boundary)
        adjustment = Adjustment(Matrix(counted, options["seed"]), not options["closed_vocabulary"])
        adjust(adjustment, options["epochs"], options["learning_rate"], options["seed"])
        adjusted = adjustment.model(boundary)
        model = cls(tokenizer, adjusted.chains, adjusted.sizes, boundary, options["separate_texts"])
        model.skip_grams.assign(adjusted)
        return model

    @classmethod
    def restore(cls, options, assets):
        tokenizer = TOKENIZERS[options["tokenizer"]].from_assets(assets)
        described = json.loads(assets[SKIP_GRAMS])
        chains = [Chain(**chain) for chain in described["chains"]]
        boundary = boundary_of(tokenizer, options)
        return cls(tokenizer, chains, described["sizes"], boundary, options["separate_texts"])

    def assets(self):
        chains = [dataclasses.asdict(chain) for chain in self.skip_grams.chains]
        described = {"chains": chains, "sizes": self.sizes}
        return {**super().assets(), SKIP_GRAMS: json.dumps(described).encode()}
