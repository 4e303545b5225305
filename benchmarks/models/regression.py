"""Normal linear regressions: likelihood y_i ~ normal(x_i . beta, sigma) throughout."""

import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from benchmarks.models.base import LOG_TWO, LOG_TWO_PI, Data, Model, Position, Raw, build, half_cauchy, half_normal
from elbojax.types import Array, Scalar


def log_likelihood(mean: Array, sigma: Scalar, response: Array) -> Scalar:
    """Sum over N independent normal observations with means [N]."""
    return stats.norm.logpdf(response, mean, sigma).sum()


def flat(position: Position, data: Data) -> Scalar:
    """Flat priors on beta and on sigma > 0."""
    return log_likelihood(data["design"] @ position["beta"], position["sigma"], data["response"])


def half_cauchy_scale(position: Position, data: Data) -> Scalar:
    """Flat prior on beta, half-Cauchy(0, 2.5) on sigma."""
    return flat(position, data) + half_cauchy(position["sigma"], 2.5)


def normal_priors(position: Position, data: Data) -> Scalar:
    """Priors beta_k ~ normal(0, 10) and sigma ~ half-normal(0, 10)."""
    prior = stats.norm.logpdf(position["beta"], 0.0, 10.0).sum() + half_normal(position["sigma"], 10.0)
    return flat(position, data) + prior


def trend(position: Position, data: Data) -> Scalar:
    """A line over the years: informative normal priors on intercept and slope, flat on sigma."""
    prior = stats.norm.logpdf(position["alpha"], data["alpha_loc"], data["alpha_scale"])
    prior += stats.norm.logpdf(position["beta"], data["beta_loc"], data["beta_scale"])
    return prior + log_likelihood(position["alpha"] + position["beta"] * data["x"], position["sigma"], data["y"])


def compressed(position: Position, data: Data) -> Scalar:
    r"""Priors b_k ~ normal(0, 1), Intercept ~ t_3(8, 10), sigma ~ half-t_3(0, 10), on compressed data.

    With R the triangular factor of [1, Xc, y], the residual sum of squares is exactly

    .. math:: \lVert y - X \beta \rVert^2 = \lVert R_y - R_X \beta \rVert^2

    so p + 2 rows say what N rows do.
    """
    sigma = position["sigma"]
    residuals = data["response"] - data["design"] @ jnp.append(position["Intercept"], position["b"])
    likelihood = -data["count"] * (jnp.log(sigma) + 0.5 * LOG_TWO_PI) - 0.5 * jnp.sum((residuals / sigma) ** 2)
    prior = stats.norm.logpdf(position["b"], 0.0, 1.0).sum()
    prior += stats.t.logpdf(position["Intercept"], 3.0, 8.0, 10.0) + LOG_TWO + stats.t.logpdf(sigma, 3.0, 0.0, 10.0)
    return likelihood + prior


def _regression(name: str, log_density, predictors: list, response) -> Model:
    """A model with parameters beta and sigma; a constant is put before the predictors."""
    design = np.stack(np.broadcast_arrays(1.0, *predictors), axis=1)
    parameters = {"beta": ("real", np.zeros(design.shape[1])), "sigma": ("positive", 1.0)}
    return build(name, log_density, parameters, {"design": design, "response": response})


def _arrays(raw: Raw) -> dict[str, np.ndarray]:
    return {key: np.asarray(value, float) for key, value in raw.items()}


def earn_height(raw: Raw) -> Model:
    d = _arrays(raw)
    return _regression("earnings-earn_height", flat, [d["height"]], d["earn"])


def logearn_interaction(raw: Raw) -> Model:
    d = _arrays(raw)
    predictors = [d["height"], d["male"], d["height"] * d["male"]]
    return _regression("earnings-logearn_interaction", flat, predictors, np.log(d["earn"]))


def kidscore_momiq(raw: Raw) -> Model:
    d = _arrays(raw)
    return _regression("kidiq-kidscore_momiq", half_cauchy_scale, [d["mom_iq"]], d["kid_score"])


def kidscore_interaction(raw: Raw) -> Model:
    d = _arrays(raw)
    predictors = [d["mom_hs"], d["mom_iq"], d["mom_hs"] * d["mom_iq"]]
    return _regression("kidiq-kidscore_interaction", half_cauchy_scale, predictors, d["kid_score"])


def kidscore_interaction_c(raw: Raw) -> Model:
    d = _arrays(raw)
    school, iq = d["mom_hs"] - d["mom_hs"].mean(), d["mom_iq"] - d["mom_iq"].mean()
    return _regression("kidiq_with_mom_work-kidscore_interaction_c", flat, [school, iq, school * iq], d["kid_score"])


def mesquite(raw: Raw) -> Model:
    d = _arrays(raw)
    predictors = [d[key] for key in ("diam1", "diam2", "canopy_height", "total_height", "density", "group")]
    return _regression("mesquite-mesquite", flat, predictors, d["weight"])


def logmesquite(raw: Raw) -> Model:
    d = _arrays(raw)
    sizes = [np.log(d[key]) for key in ("diam1", "diam2", "canopy_height", "total_height", "density")]
    return _regression("mesquite-logmesquite", flat, [*sizes, d["group"]], np.log(d["weight"]))


def _nes(year: int, raw: Raw) -> Model:
    d = _arrays(raw)
    ages = [d["age_discrete"] == group for group in (2, 3, 4)]
    predictors = [d["real_ideo"], d["race_adj"], *ages, d["educ1"], d["gender"], d["income"]]
    return _regression(f"nes{year}-nes", flat, predictors, d["partyid7"])


def nes1980(raw: Raw) -> Model:
    return _nes(1980, raw)


def nes2000(raw: Raw) -> Model:
    return _nes(2000, raw)


def blr(raw: Raw) -> Model:
    design = np.asarray(raw["X"])
    parameters = {"beta": ("real", np.zeros(design.shape[1])), "sigma": ("positive", 1.0)}
    return build("sblrc-blr", normal_priors, parameters, {"design": design, "response": raw["y"]})


def kilpisjarvi(raw: Raw) -> Model:
    renamed = {"pmualpha": "alpha_loc", "psalpha": "alpha_scale", "pmubeta": "beta_loc", "psbeta": "beta_scale"}
    data = {"x": raw["x"], "y": raw["y"], **{new: raw[old] for old, new in renamed.items()}}
    parameters = {"alpha": ("real", 0.0), "beta": ("real", 0.0), "sigma": ("positive", 1.0)}
    return build("kilpisjarvi_mod-kilpisjarvi", trend, parameters, data)


def diamonds(raw: Raw) -> Model:
    """The only regression that is given compressed: 5,000 rows become 26."""
    predictors, response = np.asarray(raw["X"], float)[:, 1:], np.asarray(raw["Y"], float)
    centred = predictors - predictors.mean(axis=0)
    factor = np.linalg.qr(np.column_stack([np.ones(len(response)), centred, response]), mode="r")
    data = {"design": factor[:, :-1], "response": factor[:, -1], "count": len(response)}
    parameters = {
        "b": ("real", np.zeros(centred.shape[1])),
        "Intercept": ("real", 0.0),
        "sigma": ("positive", 1.0),
    }
    return build("diamonds-diamonds", compressed, parameters, data)
