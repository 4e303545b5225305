"""Families: distributions `q` that are their own parameter pytrees."""

from elbojax.families.amortised import Amortised, amortised
from elbojax.families.banded import BandedPrecision, banded_precision
from elbojax.families.base import (
    Enumerable,
    Family,
    Gaussian,
    Reparameterised,
    entropy,
    family,
    kl_by_part,
    kl_divergence,
    sample_many,
    static,
)
from elbojax.families.blocks import Blocks, GaussianBlocks, blocks
from elbojax.families.discrete import Bernoulli, Categorical, bernoulli, categorical
from elbojax.families.flow import Flow, autoregressive_flow, coupling_flow
from elbojax.families.full_rank import FullRank, full_rank
from elbojax.families.funnel import Funnel, funnel
from elbojax.families.gaussian_chain import GaussianChain, gaussian_chain, linear_dynamics
from elbojax.families.hierarchical import Hierarchical, ReparameterisedHierarchical, hierarchical
from elbojax.families.low_rank import LowRank, low_rank
from elbojax.families.markov_chain import MarkovChain, hmm_smoother, markov_chain
from elbojax.families.mean_field import MeanField, mean_field
from elbojax.families.mixture import Mixture, aggregate, mixture
from elbojax.families.particles import Particles, particles
from elbojax.families.product import Product, ReparameterisedProduct, product
from elbojax.families.sinh_arcsinh import SinhArcsinh, sinh_arcsinh
from elbojax.families.student_t import StudentT, student_t
from elbojax.families.tailed import StudentTTails, with_student_t_tails

__all__ = [
    "Amortised",
    "BandedPrecision",
    "Bernoulli",
    "Blocks",
    "Categorical",
    "Enumerable",
    "Family",
    "Flow",
    "FullRank",
    "Funnel",
    "Gaussian",
    "GaussianBlocks",
    "Hierarchical",
    "GaussianChain",
    "LowRank",
    "MarkovChain",
    "MeanField",
    "Mixture",
    "Particles",
    "Product",
    "Reparameterised",
    "ReparameterisedHierarchical",
    "ReparameterisedProduct",
    "SinhArcsinh",
    "StudentT",
    "StudentTTails",
    "aggregate",
    "amortised",
    "autoregressive_flow",
    "banded_precision",
    "bernoulli",
    "blocks",
    "categorical",
    "coupling_flow",
    "entropy",
    "family",
    "full_rank",
    "funnel",
    "hierarchical",
    "kl_by_part",
    "gaussian_chain",
    "kl_divergence",
    "linear_dynamics",
    "low_rank",
    "markov_chain",
    "mean_field",
    "mixture",
    "particles",
    "product",
    "sample_many",
    "sinh_arcsinh",
    "hmm_smoother",
    "static",
    "student_t",
    "with_student_t_tails",
]
