"""A mode in which no start near `init` ends is found along rays, or by gradients far out, which costs little else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.cascade.evaluate import Compiled, drive
from elbojax.cascade.stages.gaussian import fit_gaussian


def pair(z, data):
    each = lambda at, width: jnp.sum(-0.5 * ((z - at) / width) ** 2 - jnp.log(width))  # noqa: E731
    return jnp.logaddexp(
        jnp.log1p(-data["weight"]) + each(0.0, 1.0), jnp.log(data["weight"]) + each(data["place"], data["width"])
    )


def hidden(size, apart, width, weight, turned, seed=0):
    direction = np.random.default_rng(seed).normal(size=size) if turned else np.eye(size)[-1]
    return {"weight": weight, "place": apart * direction / np.linalg.norm(direction), "width": float(width)}


CASES = {
    "as wide": (2, 6, 1, 0.1, True),
    "wider, on an axis": (2, 10, 3, 0.05, False),
    "narrow, on an axis": (5, 8, 0.3, 0.1, False),
    "five parameters": (5, 8, 1, 0.1, True),
    "twenty parameters": (20, 12, 1, 0.1, True),
    # Within 4 D squared sds of the first.
    "near, of ten parameters": (10, 8, 1, 0.1, True),
    "near, of twenty parameters": (20, 8, 1, 0.1, True),
    "nearer": (5, 6, 1, 0.2, True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hidden_mode_is_found_and_weighed(name):
    for seed in (0, 1, 2):
        size, apart, width, weight, turned = CASES[name]
        data = hidden(size, apart, width, weight, turned, seed)
        fit = elbojax.fit(jax.random.key(seed), pair, np.zeros(size), data=data)
        mean = weight * data["place"]
        sd = np.sqrt(1 - weight + weight * (width**2 + data["place"] ** 2) - mean**2)
        assert bool(fit.certificate.certified)
        np.testing.assert_allclose(np.asarray(fit.mean()), mean, atol=0.1 * np.min(sd))
        np.testing.assert_allclose(np.asarray(fit.sd()) / sd, 1, atol=0.1)


@pytest.mark.parametrize("size", (1, 3, 20))
def test_where_there_is_none_it_costs_32_gradients(size):
    scale = np.logspace(-1, 1, size)
    log_density = lambda z: -0.5 * jnp.sum((z / scale) ** 2)  # noqa: E731
    counts = []
    for largest in (20, 0):
        with elbojax.thresholds.overridden(RAYS_LARGEST=largest), jax.enable_x64(True):
            model = Compiled(elbojax.targets.ravel(log_density, jnp.zeros(size)), None)
            outcome, paths = drive(fit_gaussian(np.random.default_rng(0), np.ones(size)), model)
        counts.append((outcome.certificate.num_gradients, outcome.certificate.num_log_densities, outcome.draws))
        assert len(paths.modes) == elbojax.thresholds.PATHS and int(outcome.certificate.modes) == 1
    assert counts[0][0] - counts[1][0] == 32
    assert counts[0][1] - counts[1][1] == 9 * (64 + 2 * size) + 33
    np.testing.assert_array_equal(counts[0][2], counts[1][2])  # the answer is the same, draw by draw
