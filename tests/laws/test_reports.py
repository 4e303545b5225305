"""What a report says of a fit that went wrong, or of one whose support was not named."""

import jax
import jax.numpy as jnp
import numpy as np

import elbojax

KEY = jax.random.key(0)


def test_a_turned_sign_is_asked_after():
    fit = elbojax.fit(KEY, lambda z: 0.5 * jnp.sum(z**2), np.zeros(2))
    assert not fit.certificate.certified
    assert fit.certificate.status == elbojax.Status.IMPROPER
    assert "is the sign of the log-density turned?" in str(fit)
    # No numbers of a hundred digits, and no effective draws of what has none.
    assert max(map(len, str(fit).splitlines())) < 150 and "effective draws" not in str(fit)


def test_a_support_that_was_not_named():
    fit = elbojax.fit(KEY, lambda z: 3 * jnp.log(z) - 2 * z, 1.0)  # gamma(4, 2); NaN below zero
    assert fit.certificate.certified and fit.certificate.elbo == -np.inf
    np.testing.assert_allclose([fit.mean(), fit.sd()], [2.0, 1.0], atol=0.1)
    assert "name the support" in str(fit)
    named = elbojax.fit(KEY, lambda z: 3 * jnp.log(z) - 2 * z, 1.0, support="positive")
    assert named.certificate.certified and "ELBO -inf" not in str(named)
