"""Posteriors of the Inference Gym with the ground truths that it brings, which others found by long chains.

`load(name)` gives one of `NAMES` as a `Model` over the unconstrained space, by the package's own bijectors. Only posteriors that
need no data from elsewhere are named. Most of the package computes in single precision, whatever it is given.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.models.base import Model
from elbojax.types import Array

TARGETS = {
    "eight_schools": "EightSchools",
    "brownian_motion": "BrownianMotionMissingMiddleObservations",
    "brownian_motion_unknown_scales": "BrownianMotionUnknownScalesMissingMiddleObservations",
    "lorenz_bridge": "ConvectionLorenzBridge",
    "stochastic_volatility_100": "VectorizedStochasticVolatilitySP500Small",
    "stochastic_volatility_log_100": "VectorizedStochasticVolatilityLogSP500Small",
    "stochastic_volatility_2516": "VectorizedStochasticVolatilitySP500",
    "item_response": "SyntheticItemResponseTheory",
    "log_gaussian_cox": "SyntheticLogGaussianCoxProcess",
}
"""Ours, which say what they are, and the package's."""
NAMES = tuple(TARGETS)


def target(name: str) -> Any:
    """The package's object.

    Args:
      name: one of `NAMES`.

    Returns:
      A model of `inference_gym.using_jax`.

    Raises:
      ValueError: no such posterior is named here.
      ModuleNotFoundError: the package is not installed.
    """
    if name not in TARGETS:
        raise ValueError(f"wanted one of {', '.join(NAMES)}; given {name!r}")
    from inference_gym import using_jax

    return getattr(using_jax.targets, TARGETS[name])()


def load(name: str) -> Model:
    """One posterior.

    Args:
      name: one of `NAMES`.

    Returns:
      The `Model`; its data are within, and its columns are the numbers of which the package has the truth.

    Raises:
      ValueError: as `target`.
      ModuleNotFoundError: as `target`.
    """
    model = target(name)
    is_shape = lambda x: type(x).__name__ == "TensorShape"  # noqa: E731
    shapes = [tuple(shape) for shape in jax.tree.leaves(model.event_shape, is_leaf=is_shape)]
    structure, identity = jax.tree.structure(model.dtype), model.sample_transformations["identity"]
    bijectors = jax.tree.leaves(model.default_event_space_bijector, is_leaf=lambda x: hasattr(x, "forward"))
    init = {f"leaf_{i}": jnp.zeros(shape) for i, shape in enumerate(shapes)}

    def forward(position, dtype) -> list[Array]:
        leaves = [jnp.asarray(position[f"leaf_{i}"], dtype) for i in range(len(shapes))]
        return [bijector.forward(leaf) for bijector, leaf in zip(bijectors, leaves, strict=True)]

    def in_precision(dtype):
        def log_density(position, data):
            del data
            leaves = [jnp.asarray(position[f"leaf_{i}"], dtype) for i in range(len(shapes))]
            pairs = zip(bijectors, leaves, strict=True)
            jacobians = [b.forward_log_det_jacobian(leaf, event_ndims=leaf.ndim) for b, leaf in pairs]
            return model.unnormalized_log_prob(jax.tree.unflatten(structure, forward(position, dtype))) + sum(jacobians)

        return log_density

    dtype = jnp.result_type(float)
    try:
        jax.eval_shape(in_precision(dtype), init, {})
    except TypeError:  # constants of single precision beside numbers of double
        dtype = jnp.float32
    return Model(
        name=name,
        log_density=in_precision(dtype),
        init=init,
        support={},
        data={},
        column_names=tuple(f"column_{i}" for i in range(len(truth(name)["mean"]))),
        columns=lambda position: jnp.concatenate(
            [jnp.ravel(leaf) for leaf in _leaves(identity(jax.tree.unflatten(structure, forward(position, dtype))))]
        ),
        position=lambda columns: {},
    )


def _leaves(tree: Any) -> list[Any]:
    """Leaves, those of mappings of any kind by name: parameters come in one kind and their truth in another."""
    if isinstance(tree, Mapping):
        return [leaf for name in sorted(tree) for leaf in _leaves(tree[name])]
    return jax.tree.leaves(tree)


def truth(name: str) -> dict[str, np.ndarray]:
    """Means and sds of all columns [C], and the Monte Carlo errors of the means in sds, as the package has them.

    Args:
      name: one of `NAMES`.

    Returns:
      `mean`, `sd` and `mean_error`. Of the sds it says no error: that of as many normal draws is taken.
    """
    found = target(name).sample_transformations["identity"]
    flat = lambda tree: np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in _leaves(tree)])  # noqa: E731
    mean, sd = flat(found.ground_truth_mean), flat(found.ground_truth_standard_deviation)
    error = flat(found.ground_truth_mean_standard_error) / sd
    return {"mean": mean, "sd": sd, "mean_error": error, "sd_error": error / np.sqrt(2)}
