"""Posteriors with hierarchy, time, space and item response: the structured pack, which is read from disk.

`load(name)` gives one of `NAMES` as a `Model`, its data from the folder that `find` names. Written as a user would write them,
in the parameters that the pack's `model.md` names, without a hint about structure.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from benchmarks.models.base import LOG_TWO, Data, Model, Position, Raw, build, half_normal, log_normal
from elbojax.bijectors import interval
from elbojax.types import Array, Scalar

VARIABLE = "ELBOJAX_STRUCTURED"
normal = stats.norm.logpdf


def find(path: str | os.PathLike | None = None) -> pathlib.Path:
    """The folder of the pack: the one given, or that of the environment variable ELBOJAX_STRUCTURED.

    Args:
      path: of the folder.

    Returns:
      The folder.

    Raises:
      FileNotFoundError: there is none.
    """
    said = path or os.environ.get(VARIABLE)
    if not said or not pathlib.Path(said).is_dir():
        raise FileNotFoundError(f"the structured pack is not here: set {VARIABLE} to its folder, got {said!r}")
    return pathlib.Path(said)


def bernoulli(y: Array, logits: Array) -> Scalar:
    """Log-probability of y in {0, 1}."""
    return jnp.sum(y * logits - jax.nn.softplus(logits))


def poisson(y: Array, log_rate: Array) -> Scalar:
    """Log-probability of counts, but for their factorials."""
    return jnp.sum(y * log_rate - jnp.exp(log_rate))


def half_t(x: Array, degrees: float, scale: float) -> Array:
    """Log density of |z|, z Student t around 0."""
    return LOG_TWO + stats.t.logpdf(x, degrees, 0.0, scale)


def _index(values: Any) -> np.ndarray:
    return np.asarray(values, int) - 1


def dogs(raw: Raw) -> tuple[Callable, dict, dict]:
    """y_jt ~ Bernoulli(a^S_jt b^V_jt), S and V counting shocks and avoidances so far."""
    y = np.asarray(raw["y"], float)
    shocks = np.cumsum(y, axis=1) - y
    avoided = np.cumsum(1 - y, axis=1) - (1 - y)

    def log_density(z: Position, data: Data) -> Scalar:
        log_p = data["shocks"] * jnp.log(z["a"]) + data["avoided"] * jnp.log(z["b"])
        return jnp.sum(jnp.where(data["y"] > 0, log_p, jnp.log(-jnp.expm1(log_p))))

    data = {"y": y[:, 1:], "shocks": shocks[:, 1:], "avoided": avoided[:, 1:]}
    return log_density, {"a": ("unit_interval", 0.5), "b": ("unit_interval", 0.5)}, data


def bones(raw: Raw) -> tuple[Callable, dict, dict]:
    """Graded responses: P(grade = k) = Q_(k-1) - Q_k, Q_k = logistic(delta_j (theta_i - gamma_jk))."""
    grade, gamma, grades = (np.asarray(raw[key]) for key in ("grade", "gamma", "ncat"))
    child, item = np.nonzero(grade > 0)
    k, delta = grade[child, item], np.asarray(raw["delta"], float)[item]
    first, last = k == 1, k == grades[item]
    low = np.where(first, 0.0, gamma[item, np.maximum(k - 2, 0)])
    high = np.where(last, 0.0, gamma[item, np.minimum(k - 1, gamma.shape[1] - 1)])
    between = np.where(first | last, 0.0, np.log(-np.expm1(-delta * np.where(first | last, 1.0, high - low))))

    def log_density(z: Position, data: Data) -> Scalar:
        age = z["theta"][child]
        above = jnp.where(first, 0.0, jax.nn.log_sigmoid(data["delta"] * (age - data["low"])))
        below = jnp.where(last, 0.0, jax.nn.log_sigmoid(data["delta"] * (data["high"] - age)))
        return jnp.sum(above + below) + jnp.sum(data["between"]) + jnp.sum(normal(z["theta"], 0.0, 36.0))

    data = {"delta": delta, "low": low, "high": high, "between": between}
    return log_density, {"theta": ("real", np.zeros(len(grade)))}, data


def counts_by_site(raw: Raw) -> tuple[Callable, dict, dict]:
    """obs_i ~ Poisson(exp(alpha[site_i])), alpha_s ~ normal(mu_alpha, sd_alpha)."""
    site = _index(raw["obssite"])

    def log_density(z: Position, data: Data) -> Scalar:
        prior = jnp.sum(normal(z["alpha"], z["mu_alpha"], z["sd_alpha"])) + normal(z["mu_alpha"], 0.0, 10.0)
        return prior + poisson(data["obs"], z["alpha"][site])

    parameters = {
        "mu_alpha": ("real", 0.0),
        "sd_alpha": (interval(0.0, 5.0), 1.0),
        "alpha": ("real", np.zeros(raw["nsite"])),
    }
    return log_density, parameters, {"obs": raw["obs"]}


def radon_intercepts(raw: Raw) -> tuple[Callable, dict, dict]:
    """y ~ normal(alpha[county] + beta floor, sigma_y), alpha_j ~ normal(mu_alpha, sigma_alpha)."""
    county = _index(raw["county_idx"])

    def log_density(z: Position, data: Data) -> Scalar:
        prior = half_normal(z["sigma_y"], 1.0) + half_normal(z["sigma_alpha"], 1.0)
        prior += normal(z["mu_alpha"], 0.0, 10.0) + normal(z["beta"], 0.0, 10.0)
        prior += jnp.sum(normal(z["alpha"], z["mu_alpha"], z["sigma_alpha"]))
        return prior + jnp.sum(normal(data["y"], z["alpha"][county] + z["beta"] * data["floor"], z["sigma_y"]))

    parameters = {
        "alpha": ("real", np.zeros(raw["J"])),
        "beta": ("real", 0.0),
        "mu_alpha": ("real", 0.0),
        "sigma_alpha": ("positive", 1.0),
        "sigma_y": ("positive", 1.0),
    }
    return log_density, parameters, {"y": raw["log_radon"], "floor": raw["floor_measure"]}


def radon_slopes(raw: Raw) -> tuple[Callable, dict, dict]:
    """y ~ normal(alpha + beta[county] floor, sigma_y), beta_j ~ normal(mu_beta, sigma_beta)."""
    county = _index(raw["county_idx"])

    def log_density(z: Position, data: Data) -> Scalar:
        prior = half_normal(z["sigma_y"], 1.0) + half_normal(z["sigma_beta"], 1.0)
        prior += normal(z["mu_beta"], 0.0, 10.0) + normal(z["alpha"], 0.0, 10.0)
        prior += jnp.sum(normal(z["beta"], z["mu_beta"], z["sigma_beta"]))
        return prior + jnp.sum(normal(data["y"], z["alpha"] + z["beta"][county] * data["floor"], z["sigma_y"]))

    parameters = {
        "alpha": ("real", 0.0),
        "beta": ("real", np.zeros(raw["J"])),
        "mu_beta": ("real", 0.0),
        "sigma_beta": ("positive", 1.0),
        "sigma_y": ("positive", 1.0),
    }
    return log_density, parameters, {"y": raw["log_radon"], "floor": raw["floor_measure"]}


def lsat(raw: Raw) -> tuple[Callable, dict, dict]:
    """r_kj ~ Bernoulli(logistic(beta theta_j - alpha_k)), theta_j ~ normal(0, 1)."""
    each = np.diff(raw["culm"], prepend=0)
    answers = np.repeat(np.asarray(raw["response"], float), each, axis=0)

    def log_density(z: Position, data: Data) -> Scalar:
        prior = jnp.sum(normal(z["alpha"], 0.0, 100.0)) + half_normal(z["beta"], 100.0) + jnp.sum(normal(z["theta"]))
        return prior + bernoulli(data["answers"], z["beta"] * z["theta"][:, None] - z["alpha"])

    parameters = {
        "alpha": ("real", np.zeros(raw["T"])),
        "theta": ("real", np.zeros(raw["N"])),
        "beta": ("positive", 1.0),
    }
    return log_density, parameters, {"answers": answers}


def capture(raw: Raw) -> tuple[Callable, dict, dict]:
    """Capture and recapture: rows never caught are present with probability omega, or absent."""
    y = np.asarray(raw["y"], float)
    seen = y.sum(axis=1) > 0

    def log_density(z: Position, data: Data) -> Scalar:
        logits = jax.scipy.special.logit(z["mean_p"]) + z["sigma"] * z["eps_raw"][:, None]
        caught = jnp.sum(data["y"] * logits - jax.nn.softplus(logits), axis=1) + jnp.log(z["omega"])
        either = jnp.logaddexp(caught, jnp.log1p(-z["omega"]))
        return jnp.sum(jnp.where(seen, caught, either)) + jnp.sum(normal(z["eps_raw"]))

    parameters = {
        "omega": ("unit_interval", 0.5),
        "mean_p": ("unit_interval", np.full(raw["T"], 0.5)),
        "sigma": (interval(0.0, 5.0), 1.0),
        "eps_raw": ("real", np.zeros(raw["M"])),
    }
    return log_density, parameters, {"y": y}


def occupancy(raw: Raw) -> tuple[Callable, dict, dict]:
    """Occupancy and detection of 28 species seen and 22 that may exist, correlated effects of each."""
    visits, species, sites = raw["K"], raw["n"], raw["J"]

    def log_density(z: Position, data: Data) -> Scalar:
        prior = stats.cauchy.logpdf(z["alpha"], 0.0, 2.5) + stats.cauchy.logpdf(z["beta"], 0.0, 2.5)
        prior += jnp.sum(LOG_TWO + stats.cauchy.logpdf(z["sigma_uv"], 0.0, 2.5))
        prior += stats.beta.logpdf((z["rho_uv"] + 1) / 2, 2.0, 2.0) + stats.beta.logpdf(z["Omega"], 2.0, 2.0)
        u, v = z["uv1"] / z["sigma_uv"][0], z["uv2"] / z["sigma_uv"][1]
        rest = 1 - z["rho_uv"] ** 2
        prior += jnp.sum(normal(u)) + jnp.sum(normal(v, z["rho_uv"] * u, jnp.sqrt(rest)))
        prior -= len(z["uv1"]) * jnp.sum(jnp.log(z["sigma_uv"]))
        lives, found = z["uv1"] + z["alpha"], z["uv2"] + z["beta"]
        never = jax.nn.log_sigmoid(lives) - visits * jax.nn.softplus(found)
        zero = jnp.logaddexp(never, jax.nn.log_sigmoid(-lives))
        x, lives, found = data["x"], lives[:species, None], found[:species, None]
        met = jax.nn.log_sigmoid(lives) + x * found - visits * jax.nn.softplus(found)
        seen = jnp.sum(jnp.where(x > 0, met, zero[:species, None])) + species * jnp.log(z["Omega"])
        unseen = jnp.logaddexp(jnp.log(z["Omega"]) + sites * zero[species:], jnp.log1p(-z["Omega"]))
        return prior + seen + jnp.sum(unseen)

    parameters = {
        "alpha": ("real", 0.0),
        "beta": ("real", 0.0),
        "Omega": ("unit_interval", 0.5),
        "rho_uv": (interval(-1.0, 1.0), 0.0),
        "sigma_uv": ("positive", np.ones(2)),
        "uv1": ("real", np.zeros(raw["S"])),
        "uv2": ("real", np.zeros(raw["S"])),
    }
    return log_density, parameters, {"x": raw["X"]}


def items_latent_regression(raw: Raw) -> tuple[Callable, dict, dict]:
    """y ~ Bernoulli(logistic(alpha_i theta_j - beta_i)), theta_j ~ normal(Z_j lambda, 1), difficulties that sum to zero."""
    item, person, w = _index(raw["ii"]), _index(raw["jj"]), np.asarray(raw["W"], float)
    covariates = np.column_stack([w[:, :1], (w[:, 1:] - w[:, 1:].mean(0)) / (2 * w[:, 1:].std(0, ddof=1))])

    def log_density(z: Position, data: Data) -> Scalar:
        beta = jnp.append(z["beta_free"], -jnp.sum(z["beta_free"]))
        prior = jnp.sum(log_normal(z["alpha"], 1.0, 1.0)) + jnp.sum(normal(beta, 0.0, 3.0))
        prior += jnp.sum(stats.t.logpdf(z["lambda_adj"], 3.0))
        prior += jnp.sum(normal(z["theta"], data["covariates"] @ z["lambda_adj"], 1.0))
        return prior + bernoulli(data["y"], z["alpha"][item] * z["theta"][person] - beta[item])

    parameters = {
        "alpha": ("positive", np.ones(raw["I"])),
        "beta_free": ("real", np.zeros(raw["I"] - 1)),
        "theta": ("real", np.zeros(raw["J"])),
        "lambda_adj": ("real", np.zeros(raw["K"])),
    }
    return log_density, parameters, {"y": raw["y"], "covariates": covariates}


def items_hierarchical(raw: Raw) -> tuple[Callable, dict, dict]:
    """y ~ Bernoulli(logistic(exp(xi1_i) (theta_j - xi2_i))), xi_i bivariate normal, theta_j ~ normal(0, 1)."""
    item, person = _index(raw["ii"]), _index(raw["jj"])

    def log_density(z: Position, data: Data) -> Scalar:
        (first, second), (s, t), rho = z["mu"], z["tau"], z["rho"]
        prior = normal(first, 0.0, 1.0) + normal(second, 0.0, 5.0) - 0.1 * (s + t) + 3 * jnp.log(1 - rho**2)
        u = (z["xi1"] - first) / s
        prior += jnp.sum(normal(u)) + jnp.sum(normal((z["xi2"] - second) / t, rho * u, jnp.sqrt(1 - rho**2)))
        prior += jnp.sum(normal(z["theta"])) - len(z["xi1"]) * (jnp.log(s) + jnp.log(t))
        return prior + bernoulli(data["y"], jnp.exp(z["xi1"])[item] * (z["theta"][person] - z["xi2"][item]))

    parameters = {
        "theta": ("real", np.zeros(raw["J"])),
        "xi1": ("real", np.zeros(raw["I"])),
        "xi2": ("real", np.zeros(raw["I"])),
        "mu": ("real", np.zeros(2)),
        "tau": ("positive", np.ones(2)),
        "rho": (interval(-1.0, 1.0), 0.0),
    }
    return log_density, parameters, {"y": raw["y"]}


def prophet(raw: Raw) -> tuple[Callable, dict, dict]:
    """A trend with 25 changes of slope, Laplace, and 34 regressors; normal noise."""
    t, change = np.asarray(raw["t"], float), np.asarray(raw["t_change"], float)
    hinges = np.maximum(t[:, None] - change, 0.0)

    def log_density(z: Position, data: Data) -> Scalar:
        prior = normal(z["k"], 0.0, 5.0) + normal(z["m"], 0.0, 5.0) + half_normal(z["sigma_obs"], 0.5)
        prior += jnp.sum(stats.laplace.logpdf(z["delta"], 0.0, data["tau"])) + jnp.sum(
            normal(z["beta"], 0.0, data["sigmas"])
        )
        mean = z["k"] * data["t"] + z["m"] + data["hinges"] @ z["delta"] + data["x"] @ z["beta"]
        return prior + jnp.sum(normal(data["y"], mean, z["sigma_obs"]))

    parameters = {
        "k": ("real", 0.0),
        "m": ("real", 0.0),
        "delta": ("real", np.zeros(raw["S"])),
        "sigma_obs": ("positive", 1.0),
        "beta": ("real", np.zeros(raw["K"])),
    }
    data = {"t": t, "hinges": hinges, "x": raw["X"], "y": raw["y"], "tau": raw["tau"], "sigmas": raw["sigmas"]}
    return log_density, parameters, data


def loss_curves(raw: Raw) -> tuple[Callable, dict, dict]:
    """loss ~ normal(LR_c premium_c G(t), loss_sd premium_c), G the growth of Weibull, LR_c log-normal."""
    cohort = _index(raw["cohort_id"])
    time = np.asarray(raw["t_value"], float)[_index(raw["t_idx"])]
    premium = np.asarray(raw["premium"], float)[cohort]

    def log_density(z: Position, data: Data) -> Scalar:
        prior = normal(z["mu_LR"], 0.0, 0.5) + log_normal(z["sd_LR"], 0.0, 0.5) + log_normal(z["loss_sd"], 0.0, 0.7)
        prior += log_normal(z["omega"], 0.0, 0.5) + log_normal(z["theta"], 0.0, 0.5)
        prior += jnp.sum(log_normal(z["LR"], z["mu_LR"], z["sd_LR"]))
        growth = -jnp.expm1(-((data["time"] / z["theta"]) ** z["omega"]))
        mean = z["LR"][cohort] * data["premium"] * growth
        return prior + jnp.sum(normal(data["loss"], mean, z["loss_sd"] * data["premium"]))

    parameters = {
        "omega": ("positive", 1.0),
        "theta": ("positive", 1.0),
        "LR": ("positive", np.ones(raw["n_cohort"])),
        "mu_LR": ("real", 0.0),
        "sd_LR": ("positive", 1.0),
        "loss_sd": ("positive", 1.0),
    }
    return log_density, parameters, {"time": time, "premium": premium, "loss": raw["loss"]}


def splines(raw: Raw) -> tuple[Callable, dict, dict]:
    """Penalised splines for the mean and for the log of the sd."""

    def log_density(z: Position, data: Data) -> Scalar:
        prior = stats.t.logpdf(z["Intercept"], 3.0, -13.0, 36.0) + stats.t.logpdf(z["Intercept_sigma"], 3.0, 0.0, 10.0)
        prior += half_t(z["sds_1_1"], 3.0, 36.0) + half_t(z["sds_sigma_1_1"], 3.0, 36.0)
        prior += jnp.sum(normal(z["zs_1_1"])) + jnp.sum(normal(z["zs_sigma_1_1"]))
        mean = z["Intercept"] + data["x"] @ z["bs"] + data["z"] @ (z["sds_1_1"] * z["zs_1_1"])
        log_sd = data["x_sigma"] @ z["bs_sigma"] + data["z_sigma"] @ (z["sds_sigma_1_1"] * z["zs_sigma_1_1"])
        return prior + jnp.sum(normal(data["y"], mean, jnp.exp(z["Intercept_sigma"] + log_sd)))

    knots = raw["knots_1"]
    parameters = {
        "Intercept": ("real", 0.0),
        "bs": ("real", np.zeros(1)),
        "zs_1_1": ("real", np.zeros(knots)),
        "sds_1_1": ("positive", 1.0),
        "Intercept_sigma": ("real", 0.0),
        "bs_sigma": ("real", np.zeros(1)),
        "zs_sigma_1_1": ("real", np.zeros(knots)),
        "sds_sigma_1_1": ("positive", 1.0),
    }
    data = {
        "y": raw["Y"],
        "x": raw["Xs"],
        "z": raw["Zs_1_1"],
        "x_sigma": raw["Xs_sigma"],
        "z_sigma": raw["Zs_sigma_1_1"],
    }
    return log_density, parameters, data


def votes(raw: Raw) -> tuple[Callable, dict, dict]:
    """Gaussian processes over elections by region and state, non-centred, with 17 variances on a simplex."""
    region_of, state, region, year = (
        _index(raw[key]) for key in ("state_region_ind", "state_ind", "region_ind", "year_ind")
    )
    years = raw["N_years"]
    apart = (np.arange(years)[:, None] - np.arange(years)) ** 2

    def process(long, length, short, brief):
        kernel = long * jnp.exp(-apart / (2 * length**2)) + short * jnp.exp(-apart / (2 * brief**2))
        return jnp.linalg.cholesky(kernel + 1e-6 * jnp.eye(years))

    def weibull(x, shape, scale):
        return jnp.log(shape / scale) + (shape - 1) * jnp.log(x / scale) - (x / scale) ** shape

    def log_density(z: Position, data: Data) -> Scalar:
        v = 17 * z["tot_var"] * z["prop_var"]
        prior = normal(z["mu"], 0.5, 0.5) + 2 * jnp.log(z["tot_var"]) - 3 * z["tot_var"]
        prior += jnp.sum(jnp.log(z["prop_var"]))
        prior += weibull(z["length_GP_region_long"], 30.0, 8.0) + weibull(z["length_GP_state_long"], 30.0, 8.0)
        prior += weibull(z["length_GP_region_short"], 30.0, 3.0) + weibull(z["length_GP_state_short"], 30.0, 3.0)
        for effects in ("GP_region_std", "GP_state_std", "year_std", "state_std", "region_std"):
            prior += jnp.sum(normal(z[effects]))
        by_region = process(v[12], z["length_GP_region_long"], v[14], z["length_GP_region_short"]) @ z["GP_region_std"]
        by_state = process(v[13], z["length_GP_state_long"], v[15], z["length_GP_state_short"]) @ z["GP_state_std"]
        mean = z["mu"] + jnp.sqrt(v[0]) * z["year_std"][year] + jnp.sqrt(v[1]) * z["region_std"][region]
        mean += (jnp.sqrt(v[2:12])[region_of] * z["state_std"])[state]
        mean += by_region[year, region] + by_state[year, state]
        return prior + jnp.sum(normal(data["y"], mean, jnp.sqrt(v[16])))

    parameters = {
        "GP_region_std": ("real", np.zeros((years, raw["N_regions"]))),
        "GP_state_std": ("real", np.zeros((years, raw["N_states"]))),
        "year_std": ("real", np.zeros(raw["N_years_obs"])),
        "state_std": ("real", np.zeros(raw["N_states"])),
        "region_std": ("real", np.zeros(raw["N_regions"])),
        "tot_var": ("positive", 1.0),
        "prop_var": ("simplex", np.full(17, 1 / 17)),
        "mu": ("real", 0.0),
        "length_GP_region_long": ("positive", 8.0),
        "length_GP_state_long": ("positive", 8.0),
        "length_GP_region_short": ("positive", 3.0),
        "length_GP_state_short": ("positive", 3.0),
    }
    return log_density, parameters, {"y": raw["y"]}


def tracts(raw: Raw) -> tuple[Callable, dict, dict]:
    """y_i ~ Poisson(E_i exp(beta0 + sigma (sqrt(1 - rho) theta_i + sqrt(rho / s) phi_i))), phi by the neighbours (BYM2)."""
    one, other, size = _index(raw["node1"]), _index(raw["node2"]), raw["N"]

    def log_density(z: Position, data: Data) -> Scalar:
        prior = normal(z["beta0"]) + half_normal(z["sigma"], 1.0) + stats.beta.logpdf(z["rho"], 0.5, 0.5)
        prior += jnp.sum(normal(z["theta"])) - 0.5 * jnp.sum((z["phi"][one] - z["phi"][other]) ** 2)
        prior += normal(jnp.sum(z["phi"]), 0.0, 0.001 * size)
        effect = jnp.sqrt(1 - z["rho"]) * z["theta"] + jnp.sqrt(z["rho"] / data["scaling"]) * z["phi"]
        return prior + poisson(data["y"], data["log_e"] + z["beta0"] + z["sigma"] * effect)

    parameters = {
        "beta0": ("real", 0.0),
        "sigma": ("positive", 1.0),
        "rho": ("unit_interval", 0.5),
        "theta": ("real", np.zeros(size)),
        "phi": ("real", np.zeros(size)),
    }
    return log_density, parameters, {"y": raw["y"], "log_e": np.log(raw["E"]), "scaling": raw["scaling_factor"]}


def drivers(raw: Raw) -> tuple[Callable, dict, dict]:
    """A level in a box that walks, a season whose twelve months sum to noise, two regressors."""
    y = np.asarray(raw["y"], float)
    middle, reach = y.mean(), 3 * y.std(ddof=1)

    def log_density(z: Position, data: Data) -> Scalar:
        season, level, (first, second, third) = z["seasonal"], z["mu"], z["sigma"]
        prior = jnp.sum(half_t(z["sigma"], 4.0, 1.0))
        year = jnp.stack([season[11 - lag : len(y) - lag] for lag in range(12)]).sum(axis=0)
        prior += jnp.sum(normal(year, 0.0, first)) + jnp.sum(normal(jnp.diff(level), 0.0, second))
        mean = level + z["beta"] * data["x"] + z["lambda"] * data["w"] + season
        return prior + jnp.sum(normal(data["y"], mean, third))

    parameters = {
        "mu": (interval(middle - reach, middle + reach), np.full(len(y), middle)),
        "seasonal": ("real", np.zeros(len(y))),
        "beta": ("real", 0.0),
        "lambda": ("real", 0.0),
        "sigma": ("positive_ordered", np.array([0.1, 0.2, 0.3])),
    }
    return log_density, parameters, {"y": y, "x": raw["x"], "w": raw["w"]}


BUILDERS: dict[str, Callable[[Raw], tuple[Callable, dict, dict]]] = {
    "dogs-dogs_hierarchical": dogs,
    "bones_data-bones_model": bones,
    "loss_curves-losscurve_sislob": loss_curves,
    "rstan_downloads-prophet": prophet,
    "mcycle_splines-accel_splines": splines,
    "butterfly-multi_occupancy": occupancy,
    "GLMM_data-GLMM1_model": counts_by_site,
    "Mth_data-Mth_model": capture,
    "radon_all-radon_variable_intercept_centered": radon_intercepts,
    "radon_all-radon_variable_slope_centered": radon_slopes,
    "uk_drivers-state_space_stochastic_level_stochastic_seasonal": drivers,
    "fims_Aus_Jpn_irt-2pl_latent_reg_irt": items_latent_regression,
    "sat-hier_2pl": items_hierarchical,
    "lsat_data-lsat_model": lsat,
    "state_wide_presidential_votes-hierarchical_gp": votes,
    "traffic_accident_nyc-bym2_offset_only": tracts,
}
NAMES = tuple(BUILDERS)


def load(name: str, path: str | os.PathLike | None = None) -> Model:
    """One posterior with its data.

    Args:
      name: one of `NAMES`.
      path: of the pack; see `find`.

    Returns:
      The `Model`.

    Raises:
      FileNotFoundError: the pack is not here.
    """
    raw = json.loads((find(path) / name / "data.json").read_text())
    log_density, parameters, data = BUILDERS[name](raw)
    return build(name, log_density, parameters, data)


def check(name: str, path: str | os.PathLike | None = None) -> dict[str, Any]:
    """What the pack says of the log-density at two points.

    Args:
      name: one of `NAMES`.
      path: of the pack; see `find`.

    Returns:
      `points`: A and B, positions; `difference`: log p(B) - log p(A).
    """
    return json.loads((find(path) / name / "check.json").read_text())
