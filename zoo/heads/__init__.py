"""Output layers of language models, with their losses."""

from zoo.heads.adaptive import AdaptiveSoftmax
from zoo.heads.base import OutputLayer
from zoo.heads.full import FullSoftmax
from zoo.heads.hierarchical import HierarchicalSoftmax
from zoo.heads.maxent import MaximumEntropy
from zoo.heads.mixture import MixtureOfSoftmaxes
from zoo.heads.sampled import BlackOut, NoiseContrastive, SampledSoftmax

HEADS: dict[str, type[OutputLayer]] = {
    "full": FullSoftmax,
    "adaptive": AdaptiveSoftmax,
    "sampled": SampledSoftmax,
    "nce": NoiseContrastive,
    "blackout": BlackOut,
    "mixture": MixtureOfSoftmaxes,
    "hierarchical": HierarchicalSoftmax,
    "maxent": MaximumEntropy,
}

__all__ = [
    "HEADS",
    "AdaptiveSoftmax",
    "BlackOut",
    "FullSoftmax",
    "HierarchicalSoftmax",
    "MaximumEntropy",
    "MixtureOfSoftmaxes",
    "NoiseContrastive",
    "OutputLayer",
    "SampledSoftmax",
]
