"""References of structured posteriors without chains: what is latent integrated out exactly, the rest on a grid or by weights.

Written in NumPy from what `model.md` says, apart from the log-densities that `fit` is given.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

Moments = dict[str, Any]
SPAN, POINTS = 6.0, 41
"""Of a grid: how many sds to either side, and points of each axis."""
PROPOSALS, DEGREES, ROUNDS = 30_000, 8, 3


def _result(values: np.ndarray, squares: np.ndarray, weights: np.ndarray, noise: bool) -> Moments:
    """Moments from conditional means and second moments [S, C] of each point of a mixture with weights [S]."""
    mean = weights @ values
    sd = np.sqrt(weights @ squares - mean**2)
    mean_error, sd_error, ess = np.zeros_like(mean), np.zeros_like(mean), np.inf
    if noise:
        ess = 1 / np.sum(weights**2)
        spread = weights**2 @ (values - mean) ** 2
        mean_error = np.sqrt(spread) / sd
        centred = squares - 2 * values * mean + mean**2 - sd**2
        sd_error = 0.5 * np.sqrt(weights**2 @ centred**2) / sd**2
    return {
        "mean": mean,
        "sd": sd,
        "heavy": [],
        "mean_error": mean_error,
        "sd_error": sd_error,
        "rhat": 1.0,
        "ess": ess,
    }


def _minimum(function: Callable[[np.ndarray], float], start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where it is smallest, and the inverse of its Hessian there, by differences."""
    best = minimize(function, start, method="BFGS", options={"gtol": 1e-4}).x
    best = minimize(function, best, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-8, "maxiter": 4000}).x
    size, h = len(best), 1e-3
    unit = h * np.eye(size)
    hessian = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1):
            terms = [function(best + a * unit[i] + b * unit[j]) * a * b for a in (1, -1) for b in (1, -1)]
            hessian[i, j] = hessian[j, i] = sum(terms) / (4 * h * h)
    return best, np.linalg.inv(hessian)


def _grid(log_density: Callable[[np.ndarray], float], start: np.ndarray) -> np.ndarray:
    """Points [S, 2] of a grid in the axes of the covariance."""
    best, covariance = _minimum(lambda x: -log_density(x), start)
    root = np.linalg.cholesky(covariance)
    axis = np.linspace(-SPAN, SPAN, POINTS)
    return best + np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2) @ root.T


def radon(raw: dict[str, Any], slopes: bool) -> Moments:
    """Both radon models: given the two scales all else is jointly normal, with an arrow-shaped precision."""
    group = np.asarray(raw["county_idx"]) - 1
    y, floor, count = np.asarray(raw["log_radon"], float), np.asarray(raw["floor_measure"], float), raw["J"]
    u, v = (floor, np.ones_like(floor)) if slopes else (np.ones_like(floor), floor)
    total = lambda x: np.bincount(group, x, count)  # noqa: E731
    uu, uv, uy, vv, vy, yy = total(u * u), total(u * v), total(u * y), (v @ v), (v @ y), (y @ y)

    def solved(x):
        sa, sy = np.exp(x)
        p, b = uu / sy**2 + 1 / sa**2, uy / sy**2
        cross = np.stack([np.full(count, -1 / sa**2), uv / sy**2])
        corner = np.diag([count / sa**2 + 0.01, vv / sy**2 + 0.01])
        schur = corner - (cross / p) @ cross.T
        rest = np.array([0.0, vy / sy**2]) - (cross / p) @ b
        outer = np.linalg.solve(schur, rest)
        log_z = -len(y) * np.log(sy) - count * np.log(sa) - 0.5 * yy / sy**2
        log_z += 0.5 * (b @ (b / p) + rest @ outer) - 0.5 * (np.log(p).sum() + np.linalg.slogdet(schur)[1])
        log_z += -0.5 * (sa**2 + sy**2) + np.sum(x)
        return log_z, p, b, cross, schur, outer

    points = _grid(lambda x: solved(x)[0], np.log([0.3, 0.8]))
    values, squares, log_z = [], [], []
    for x in points:
        log_p, p, b, cross, schur, outer = solved(x)
        means = (b - cross.T @ outer) / p
        covariance = np.linalg.inv(schur)
        through = cross.T / p[:, None]
        variances = 1 / p + np.sum((through @ covariance) * through, axis=1)
        mu, other = outer
        scales = np.exp(x)
        sds = np.diag(covariance)
        if slopes:  # alpha, beta, mu_beta, sigma_beta, sigma_y
            value, variance = [[other], means, [mu], scales], [[sds[1]], variances, [sds[0]], [0, 0]]
        else:  # alpha, beta, mu_alpha, sigma_alpha, sigma_y
            value, variance = [means, [other], [mu], scales], [variances, [sds[1]], [sds[0]], [0, 0]]
        value = np.concatenate(value)
        values.append(value)
        squares.append(value**2 + np.concatenate(variance))
        log_z.append(log_p)
    weights = np.exp(log_z - logsumexp(log_z))
    return _result(np.array(values), np.array(squares), weights, noise=False)


def counts_by_site(raw: dict[str, Any]) -> Moments:
    """GLMM1: each site on a grid of its own effect, the two hyperparameters on another."""
    site, size = np.asarray(raw["obssite"]) - 1, raw["nsite"]
    n, total = np.bincount(site, minlength=size), np.bincount(site, raw["obs"], size)
    a = np.linspace(-6, 7, 4001)
    log_f = total[:, None] * a - n[:, None] * np.exp(a)
    top = log_f.max(axis=1, keepdims=True)
    f = np.exp(log_f - top)

    def prior(x):
        return np.exp(-0.5 * ((a - x[0]) / np.exp(x[1])) ** 2 - x[1])

    def log_density(x):
        if x[1] > np.log(5):
            return -np.inf
        return np.sum(np.log(f @ prior(x))) - 0.005 * x[0] ** 2 + x[1]

    points = _grid(log_density, np.array([2.0, 0.3]))
    points = points[points[:, 1] < np.log(5)]
    priors = np.stack([prior(x) for x in points])
    z, first, second = (priors @ (f * a**k).T for k in range(3))
    log_z = np.log(z).sum(1) - 0.005 * points[:, 0] ** 2 + points[:, 1]
    outer = np.column_stack([points[:, 0], np.exp(points[:, 1])])
    values, squares = np.column_stack([outer, first / z]), np.column_stack([outer**2, second / z])
    return _result(values, squares, np.exp(log_z - logsumexp(log_z)), noise=False)


def _weighted(log_density: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights: importance sampling from Student t, its moments set by two rounds before; all rows at once."""
    rng = np.random.default_rng(0)
    loc, covariance = _minimum(lambda x: -float(log_density(x[None])[0]), start)
    for turn in range(ROUNDS):
        count = PROPOSALS if turn == ROUNDS - 1 else PROPOSALS // 5
        root = np.linalg.cholesky(covariance)
        z = rng.standard_normal((count, len(loc))) / np.sqrt(rng.chisquare(DEGREES, count) / DEGREES)[:, None]
        points = loc + z @ root.T
        log_q = -0.5 * (DEGREES + len(loc)) * np.log1p(np.sum(z**2, 1) / DEGREES)
        log_w = np.concatenate([log_density(part) for part in np.array_split(points, max(count // 500, 1))]) - log_q
        weights = np.exp(log_w - logsumexp(log_w))
        loc = weights @ points
        covariance = 1.1 * (weights * (points - loc).T) @ (points - loc)
    return points, weights


def _nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and log-weights of a standard normal."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    return x, np.log(w / w.sum())


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def lsat(raw: dict[str, Any]) -> Moments:
    """Abilities by quadrature, of which there are as many kinds as patterns of answers."""
    each = np.diff(raw["culm"], prepend=0)
    answers = np.asarray(raw["response"], float)[each > 0]
    counts = each[each > 0]
    x, log_w = _nodes(41)
    right = answers.sum(1)

    def terms(points):  # [S, patterns, nodes]
        alpha, beta = points[:, :5], np.exp(points[:, 5])
        logits = beta[:, None, None] * x[:, None] - alpha[:, None, :]
        all_ = _softplus(logits).sum(-1)
        return right[:, None] * x * beta[:, None, None] - (alpha @ answers.T)[:, :, None] - all_[:, None, :] + log_w

    def log_density(points):
        alpha, beta = points[:, :5], np.exp(points[:, 5])
        prior = -0.5 * np.sum(alpha**2, 1) / 1e4 - 0.5 * beta**2 / 1e4 + points[:, 5]
        return prior + logsumexp(terms(points), axis=2) @ counts

    points, weights = _weighted(log_density, np.zeros(6))
    first, second = [], []
    for part in np.array_split(points, len(points) // 500):
        log_f = terms(part)
        share = np.exp(log_f - logsumexp(log_f, axis=2, keepdims=True))
        first.append(share @ x)
        second.append(share @ x**2)
    who = np.repeat(np.arange(len(counts)), counts)
    alpha, beta = points[:, :5], np.exp(points[:, 5:])
    theta, theta2 = np.concatenate(first)[:, who], np.concatenate(second)[:, who]
    values = np.column_stack([alpha, theta, beta])
    return _result(values, np.column_stack([alpha**2, theta2, beta**2]), weights, noise=True)


def capture(raw: dict[str, Any]) -> Moments:
    """Mth: effects by quadrature, of which there are as many kinds as histories of capture."""
    y = np.asarray(raw["y"], float)
    kinds, who, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
    x, log_w = _nodes(61)
    seen = kinds.sum(1) > 0

    def terms(points):
        """Each kind at each node, [S, kinds, nodes], log omega included, with the absent where never seen; and parameters."""
        omega, sigma = expit(points[:, 0]), 5 * expit(points[:, 6])
        eta = points[:, 1:6, None] + sigma[:, None, None] * x
        log_l = np.einsum("kt,stn->skn", kinds, eta) - _softplus(eta).sum(1)[:, None, :]
        caught = log_l + np.log(omega)[:, None, None]
        either = np.logaddexp(caught, np.log1p(-omega)[:, None, None])
        return np.where(seen[:, None], caught, either) + log_w

    def log_density(points):
        inner = logsumexp(terms(points), axis=2) @ counts
        jacobian = -_softplus(points) - _softplus(-points)
        return inner + jacobian.sum(1)

    points, weights = _weighted(log_density, np.array([0.0, -1.5, -1.5, -1.5, -1.5, -1.5, -1.0]))
    first, second = [], []
    for part in np.array_split(points, len(points) // 500):
        log_f = terms(part)
        share = np.exp(log_f - logsumexp(log_f, axis=2, keepdims=True))
        first.append(share @ x)
        second.append(share @ x**2)
    outer = np.column_stack([expit(points[:, :6]), 5 * expit(points[:, 6])])
    who = who.ravel()
    values = np.column_stack([outer, np.concatenate(first)[:, who]])
    return _result(values, np.column_stack([outer**2, np.concatenate(second)[:, who]]), weights, noise=True)


EXACT: dict[str, Callable[[dict[str, Any]], Moments]] = {
    "radon_all-radon_variable_intercept_centered": lambda raw: radon(raw, slopes=False),
    "radon_all-radon_variable_slope_centered": lambda raw: radon(raw, slopes=True),
    "GLMM_data-GLMM1_model": counts_by_site,
    "lsat_data-lsat_model": lsat,
    "Mth_data-Mth_model": capture,
}
