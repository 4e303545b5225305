"""Nested sampling by jaxns, as its quick start has it."""

import numpy as np

from benchmarks.contenders.base import Answer, Contender


def make(known, power):
    import jax
    import jax.numpy as jnp
    from jaxns.core import NestedSampler
    from jaxns.model import Model
    from jaxns.priors import Prior
    from tensorflow_probability.substrates import jax as tfp

    def prior_model(data):
        z = Prior(tfp.distributions.Normal(jnp.zeros(known.size), 1.0), name="z").realise()
        return power * known.log_likelihood(z, data)

    sampler = NestedSampler(model=Model(prior_model=prior_model), collect_phantom_samples=True)

    def call(key):
        data = jax.tree.map(jnp.asarray, known.data)
        found = sampler.run(key=key, args=(data,)).to_result().trim()
        draws = np.asarray(found.resample(2000, key=key).X_samples["z"])
        return Answer(
            draws.mean(axis=0),
            draws.std(axis=0, ddof=1),
            float(found.log_Z_mean),
            float(found.log_Z_uncert),
            values=float(found.total_num_likelihood_evaluations),
        )

    return call


CONTENDER = Contender(("jaxns.core",), make, "`jaxns` is its `NestedSampler` as in its quick start.")
