"""Families: distributions `q` that are their own parameter pytrees."""

from elbojax.families.base import (
    Enumerable,
    Family,
    Gaussian,
    Reparameterised,
    entropy,
    family,
    kl_divergence,
    sample_many,
    static,
)
from elbojax.families.full_rank import FullRank, full_rank
from elbojax.families.mean_field import MeanField, mean_field

__all__ = [
    "Enumerable",
    "Family",
    "FullRank",
    "Gaussian",
    "MeanField",
    "Reparameterised",
    "entropy",
    "family",
    "full_rank",
    "kl_divergence",
    "mean_field",
    "sample_many",
    "static",
]
