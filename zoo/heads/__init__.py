"""Output layers of language models, with their losses."""

from zoo.heads.adaptive import AdaptiveSoftmax
from zoo.heads.base import OutputLayer
from zoo.heads.full import FullSoftmax
from zoo.heads.sampled import BlackOut, NoiseContrastive, SampledSoftmax

HEADS: dict[str, type[OutputLayer]] = {
    "full": FullSoftmax,
    "adaptive": AdaptiveSoftmax,
    "sampled": SampledSoftmax,
    "nce": NoiseContrastive,
    "blackout": BlackOut,
}

__all__ = [
    "HEADS",
    "AdaptiveSoftmax",
    "BlackOut",
    "FullSoftmax",
    "NoiseContrastive",
    "OutputLayer",
    "SampledSoftmax",
]
