"""`find_structure`: what the pattern of the Hessian says about a posterior."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elbojax.loops.checks import check_host, check_key, check_log_density
from elbojax.loops.strict import relaxed
from elbojax.structure.flat import flatten
from elbojax.structure.leading import among_hubs, of_dense, whole_leaves
from elbojax.structure.parts import components, hubs, kind_of
from elbojax.structure.pattern import Unfound, dense_hessians, look
from elbojax.structure.products import Derivatives
from elbojax.structure.record import Structure
from elbojax.structure.said import chosen
from elbojax.structure.tracer import traced
from elbojax.targets import Target
from elbojax.types import Key, PyTree, Scalar

UNTRACED = 30
"""Coordinates up to which the pattern is had from D products alone, which take less time than reading the operations."""
KNOWN = 0.5
"""Share of all entries up to which a pattern is sparse enough to be looked at before anything else is fitted."""
TALKATIVE = 30
"""Coordinates from which a posterior without structure is worth a word of advice."""
UNLOOKED = (
    "Every coordinate touches every other, and they are too many to look for leading ones; if some are latent given the others,"
    " as the values of a Gaussian process are given its hyperparameters, name them: latent=."
)
CENTRE = (
    "What is latent touches all else that is. If it is written non-centred, as standard normals that are scaled and summed along"
    " time, write it centred, as a variable with a density of its own: its pattern is that of the model then."
)


@relaxed
def find_structure(
    key: Key,
    log_density: Callable[..., Scalar],
    init: PyTree,
    *,
    data: PyTree = None,
    support: PyTree = None,
    latent: PyTree = None,
) -> Structure:
    r"""Find what leads a posterior and into which independent components the rest of it falls.

    .. math:: \log p(\theta, \beta, x) = c(\theta, \beta) + \sum_g \log p_g(x_g; \theta, \beta)

    The pattern of the Hessian in the unconstrained space of `fit` is read from the operations of the log-density and confirmed by
    a few Hessian-vector products at random points around the start, or had from its exact zeros there, by D products.

    The coordinates that touch the most others are taken out until what is left falls into small or banded components. Of those
    taken out, the ones that move the curvature of the others lead (scales, correlations, dispersions); the others are a border
    (fixed effects, the smaller of two crossed factors). Where nothing falls apart, a few may lead still: those given which the
    log-density is concave.

    Args:
      key: for the points and the vectors.
      log_density: `(position) -> scalar`, or `(position, data) -> scalar` where data is given, over pytrees like `init`.
      init: pytree of floats; a start, in the space that `support` says.
      data: pytree of arrays passed to the log-density.
      support: as for `fit`.
      latent: None to find it; else what is latent: a pytree or prefix like `init` of True and False, where leaves of a dict that
        it does not name are not latent, or a list of names of leaves. All else leads, and of the latent coordinates some
        may be the border.

    Returns:
      A `Structure`; `print(structure)` tells it in a line.

    Raises:
      TypeError: as `fit` does; `latent` is not a prefix of `init`.
      ValueError: as `fit` does; the log-density is not finite at the start; `latent` names no leaf; D is beyond `LARGEST`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> def log_density(z, y):
      ...     groups = -0.5 * jnp.sum((z["group"] - z["mu"]) ** 2) / z["tau"] ** 2 - 4 * jnp.log(z["tau"])
      ...     return groups - 0.5 * jnp.sum((y - z["group"]) ** 2) - 0.5 * z["mu"] ** 2 - z["tau"]
      >>> init = {"mu": 0.0, "tau": 1.0, "group": jnp.zeros(4)}
      >>> data = jnp.array([0.5, -1.0, 2.0, 1.5])
      >>> elbojax.find_structure(jax.random.key(0), log_density, init, data=data, support={"tau": "positive"})
      1 leading: tau; 1 border: mu; 4 independent components of size 1: group

    References:
      Kristensen et al. 2016, TMB, https://doi.org/10.18637/jss.v070.i05;
      Rue, Martino and Chopin 2009, https://doi.org/10.1111/j.1467-9868.2008.00700.x
    """
    check_host("find_structure", key=key, init=init, data=data)
    check_key(key)
    check_log_density(log_density)
    rng = np.random.default_rng(np.ravel(np.asarray(jax.random.key_data(key))))
    with jax.enable_x64(True), np.errstate(all="ignore"):
        target, start, held = flatten(log_density, init, support, data)
        is_latent = None if latent is None else chosen(latent, init, target)
        return structure_of(rng, target, start, held, is_latent)


def structure_of(
    rng: np.random.Generator,
    target: Target,
    start: np.ndarray,
    data: PyTree,
    latent: np.ndarray | None = None,
    known_only: bool = False,
) -> Structure:
    """`find_structure` of a target over flat vectors; under `jax.enable_x64(True)`.

    Args:
      rng: of the points and the vectors.
      target: the model.
      start: [D].
      data: on the device, in double precision, or None.
      latent: [D] which coordinates are latent, or None.
      known_only: whether to give up where the operations do not tell a sparse pattern, before D products are computed.

    Returns:
      A `Structure`.

    Raises:
      Unfound: the log-density is not finite at the start; D is beyond `LARGEST`; nothing sparse is known of `known_only`.
    """
    known = traced(target, data) if target.size > UNTRACED else (None, False)
    if known_only and (known[0] is None or known[0].nnz > KNOWN * target.size**2):
        raise Unfound("the operations of the log-density do not tell a sparse pattern of its Hessian")
    return _found(rng, Derivatives(target, data), start, target.names, latent, known)


def _found(
    rng: np.random.Generator,
    ask: Derivatives,
    start: np.ndarray,
    names: tuple[str, ...],
    latent: np.ndarray | None,
    known: tuple[Any, bool],
) -> Structure:
    seen = look(rng, ask, start, *known)
    everything, told = np.arange(ask.size), np.full(ask.size, np.nan)
    if latent is None:
        out = whole_leaves(seen.pattern, hubs(seen.pattern, everything), names)
        if len(out):
            leading, border, told = among_hubs(rng, ask, seen, out, np.setdiff1d(everything, out), names)
        else:
            leading, told = of_dense(rng, ask, seen, names, dense_hessians(ask, seen))
            border = hubs(seen.pattern, np.setdiff1d(everything, leading)) if len(leading) else np.zeros(0, int)
    else:
        leading = np.flatnonzero(~latent)
        border = hubs(seen.pattern, np.flatnonzero(latent))
    rest = np.setdiff1d(everything, np.concatenate([leading, border]))
    found = components(seen.pattern, rest)
    kind = kind_of(seen.pattern, found)
    note = (
        UNLOOKED
        if not seen.hessians and latent is None
        else CENTRE
        if kind == "dense" and max(map(len, found.parts)) >= TALKATIVE
        else ""
    )
    return Structure(
        leading=leading,
        border=border,
        components=found.parts,
        bandwidths=found.bandwidths,
        kind=kind,
        pattern=seen.pattern,
        names=names,
        moved=told,
        varies=seen.varies,
        num_gradients=ask.num_gradients,
        note=note,
    )
