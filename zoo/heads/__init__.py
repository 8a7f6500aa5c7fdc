"""Output layers of language models, with their losses."""

from zoo.heads.adaptive import AdaptiveSoftmax
from zoo.heads.base import OutputLayer
from zoo.heads.full import FullSoftmax

HEADS: dict[str, type[OutputLayer]] = {
    "full": FullSoftmax,
    "adaptive": AdaptiveSoftmax,
}

__all__ = ["HEADS", "AdaptiveSoftmax", "FullSoftmax", "OutputLayer"]
