"""Posteriors that are in no database: fresh ground for what was tuned on posteriordb. The data come with packages.

Ten kinds of likelihood on data that scikit-learn, statsmodels and arch bundle, and a Gaussian process on simulated data;
`benchmarks.problems.long_runs` finds the truth.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats
from jax.scipy.special import betaln, gammaln

from benchmarks.models.base import LOG_TWO, Data, Model, Position, build, half_cauchy, half_normal
from benchmarks.models.latent_process import exact_process, sine
from elbojax.types import Array, Scalar


def _statsmodels(name: str):
    """A bundled data set as a DataFrame."""
    import importlib

    return importlib.import_module(f"statsmodels.datasets.{name}").load_pandas().data


def _standardised(columns) -> np.ndarray:
    x = np.asarray(columns, float)
    return (x - x.mean(axis=0)) / x.std(axis=0)


def _with_constant(columns) -> np.ndarray:
    return np.column_stack([np.ones(len(columns)), columns])


def logistic(position: Position, data: Data) -> Scalar:
    """y_n ~ Bernoulli(logit^-1(x_n . beta)), beta_k ~ t_4(0, 2.5): 31 nearly collinear predictors, separable but for a few."""
    logits = data["x"] @ position["beta"]
    likelihood = jnp.sum(data["y"] * logits - jax.nn.softplus(logits))
    return likelihood + stats.t.logpdf(position["beta"], 4.0, 0.0, 2.5).sum()


def breast_cancer() -> Model:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    parameters = {"beta": ("real", np.zeros(31))}
    return build("breast_cancer-logistic", logistic, parameters, {"x": _with_constant(_standardised(x)), "y": y})


def poisson(position: Position, data: Data) -> Scalar:
    """y_n ~ Poisson(exp(x_n . beta)), beta_k ~ normal(0, 5): 17 states, one of them with most of the counts."""
    log_rate = data["x"] @ position["beta"]
    likelihood = jnp.sum(data["y"] * log_rate - jnp.exp(log_rate) - gammaln(data["y"] + 1))
    return likelihood + stats.norm.logpdf(position["beta"], 0.0, 5.0).sum()


def executions() -> Model:
    d = _statsmodels("cpunish")
    x = _with_constant(_standardised(d.drop(columns="EXECUTIONS")))
    return build("cpunish-poisson", poisson, {"beta": ("real", np.zeros(7))}, {"x": x, "y": d["EXECUTIONS"].to_numpy()})


def negative_binomial(position: Position, data: Data) -> Scalar:
    """y_n ~ NB(mean exp(x_n . beta), size phi), beta_k ~ normal(0, 5), 1 / sqrt(phi) = r ~ half-normal(0, 1)."""
    y, log_mean, phi = data["y"], data["x"] @ position["beta"], position["r"] ** -2
    log_total = jnp.logaddexp(jnp.log(phi), log_mean)
    each = (
        gammaln(y + phi) - gammaln(phi) - gammaln(y + 1) + phi * (jnp.log(phi) - log_total) + y * (log_mean - log_total)
    )
    return each.sum() + stats.norm.logpdf(position["beta"], 0.0, 5.0).sum() + half_normal(position["r"], 1.0)


def committees() -> Model:
    d = _statsmodels("committee")
    x = _with_constant(_standardised(d.drop(columns="BILLS104")))
    parameters = {"beta": ("real", np.zeros(6)), "r": ("positive", 1.0)}
    return build("committee-negative_binomial", negative_binomial, parameters, {"x": x, "y": d["BILLS104"].to_numpy()})


def robust(position: Position, data: Data) -> Scalar:
    """y_n ~ t_nu(x_n . beta, sigma), flat on beta, sigma ~ half-Cauchy(0, 10), nu ~ gamma(2, 0.1), in raw units."""
    nu, sigma = position["nu"], position["sigma"]
    likelihood = stats.t.logpdf(data["y"], nu, data["x"] @ position["beta"], sigma).sum()
    return likelihood + half_cauchy(sigma, 10.0) + stats.gamma.logpdf(nu, 2.0, scale=10.0)


def stack_loss() -> Model:
    d = _statsmodels("stackloss")
    x = _with_constant(d.drop(columns="STACKLOSS"))
    parameters = {"beta": ("real", np.zeros(4)), "sigma": ("positive", 1.0), "nu": ("positive", 10.0)}
    return build("stackloss-student_t", robust, parameters, {"x": x, "y": d["STACKLOSS"].to_numpy()})


def beta_binomial(position: Position, data: Data) -> Scalar:
    """y_n of m_n ~ beta-binomial(p_n kappa, (1 - p_n) kappa), logit p_n = x_n . beta.

    Priors beta_k ~ normal(0, 2), log kappa ~ normal(3, 2).
    """
    kappa, logits = position["kappa"], data["x"] @ position["beta"]
    a, b = kappa * jax.nn.sigmoid(logits), kappa * jax.nn.sigmoid(-logits)
    likelihood = jnp.sum(betaln(data["yes"] + a, data["no"] + b) - betaln(a, b))
    prior = stats.norm.logpdf(position["beta"], 0.0, 2.0).sum()
    return likelihood + prior + stats.norm.logpdf(jnp.log(kappa), 3.0, 2.0) - jnp.log(kappa)


def schools() -> Model:
    d = _statsmodels("star98")
    predictors = ["LOWINC", "PERASIAN", "PERBLACK", "PERHISP", "PERMINTE", "AVYRSEXP", "AVSALK", "PERSPENK", "PTRATIO"]
    data = {
        "x": _with_constant(_standardised(d[predictors])),
        "yes": d["NABOVE"].to_numpy(),
        "no": d["NBELOW"].to_numpy(),
    }
    parameters = {"beta": ("real", np.zeros(10)), "kappa": ("positive", 1.0)}
    return build("star98-beta_binomial", beta_binomial, parameters, data)


def ordered_logit(position: Position, data: Data) -> Scalar:
    """P(y_n <= k) = logit^-1(c_k - x_n . beta), beta_k ~ normal(0, 2), c_k ~ normal(0, 5), c ordered."""
    cuts = jnp.concatenate([jnp.array([-jnp.inf]), position["cuts"], jnp.array([jnp.inf])])
    level = data["y"].astype(int)
    location = data["x"] @ position["beta"]
    # The ends apart, for a difference of infinities has no gradient.
    inner = jnp.clip(level, 1, None), jnp.clip(level + 1, None, cuts.size - 2)
    below = jnp.where(level > 0, jax.nn.sigmoid(cuts[inner[0]] - location), 0.0)
    up_to = jnp.where(level < cuts.size - 2, jax.nn.sigmoid(cuts[inner[1]] - location), 1.0)
    prior = stats.norm.logpdf(position["beta"], 0.0, 2.0).sum() + stats.norm.logpdf(position["cuts"], 0.0, 5.0).sum()
    return jnp.log(up_to - below).sum() + prior


def party() -> Model:
    d = _statsmodels("anes96")
    x = _standardised(d[["logpopul", "TVnews", "selfLR", "age", "educ", "income"]])
    parameters = {"beta": ("real", np.zeros(6)), "cuts": ("ordered", np.linspace(-2.5, 2.5, 6))}
    return build("anes96-ordered_logit", ordered_logit, parameters, {"x": x, "y": d["PID"].to_numpy()})


def varying_intercepts(position: Position, data: Data) -> Scalar:
    """y_n ~ normal(a_{j[n]} + x_n . b, sigma), a_j ~ normal(mu, tau), written centred; as a radon model.

    Priors mu, b_k ~ normal(0, 2), tau, sigma ~ half-normal(0, 1).
    """
    a, mu, tau, sigma = position["a"], position["mu"], position["tau"], position["sigma"]
    prior = stats.norm.logpdf(a, mu, tau).sum() + stats.norm.logpdf(mu, 0.0, 2.0)
    prior += stats.norm.logpdf(position["b"], 0.0, 2.0).sum() + half_normal(tau, 1.0) + half_normal(sigma, 1.0)
    mean = a[data["group"].astype(int)] + data["x"] @ position["b"]
    return prior + stats.norm.logpdf(data["y"], mean, sigma).sum()


def investment() -> Model:
    d = _statsmodels("grunfeld")
    firms, group = np.unique(d["firm"].astype(str), return_inverse=True)
    x, y = _standardised(np.log(d[["value", "capital"]])), _standardised(np.log(d["invest"]))
    parameters = {
        "a": ("real", np.zeros(len(firms))),
        "b": ("real", np.zeros(2)),
        "mu": ("real", 0.0),
        "tau": ("positive", 1.0),
        "sigma": ("positive", 1.0),
    }
    return build("grunfeld-varying_intercepts", varying_intercepts, parameters, {"x": x, "y": y, "group": group})


def two_components(position: Position, data: Data) -> Scalar:
    """y_n ~ theta normal(mu_1, sigma_1) + (1 - theta) normal(mu_2, sigma_2), mu_1 < mu_2.

    Priors mu_k ~ normal(0, 10), sigma_k ~ half-normal(0, 2), theta uniform.
    """
    mu, sigma, theta = position["mu"], position["sigma"], position["theta"]
    components = stats.norm.logpdf(data["y"][:, None], mu, sigma)
    likelihood = jnp.logaddexp(jnp.log(theta) + components[:, 0], jnp.log1p(-theta) + components[:, 1])
    return likelihood.sum() + stats.norm.logpdf(mu, 0.0, 10.0).sum() + half_normal(sigma, 2.0).sum()


def petals() -> Model:
    from sklearn.datasets import load_iris

    parameters = {
        "mu": ("ordered", np.array([1.0, 2.0])),
        "sigma": ("positive", np.ones(2)),
        "theta": ("unit_interval", 0.5),
    }
    return build("iris-mixture", two_components, parameters, {"y": load_iris().data[:, 2]})


def garch_t(position: Position, data: Data) -> Scalar:
    """r_t ~ t_nu(mu, scale with variance h_t), h_t = omega + alpha (r_{t-1} - mu)^2 + beta h_{t-1}, in percent.

    mu ~ normal(0, 1), omega ~ half-normal(0, 1), (alpha, beta, rest) ~ Dirichlet(1, 1, 1), nu - 2 ~ gamma(2, 0.1).
    """
    mu, omega, nu = position["mu"], position["omega"], 2 + position["nu_less_two"]
    alpha, beta, _ = position["shares"]
    squares = (data["r"] - mu) ** 2

    def step(h, square):
        return omega + alpha * square + beta * h, h

    _, h = jax.lax.scan(step, data["h0"], squares)
    likelihood = stats.t.logpdf(data["r"], nu, mu, jnp.sqrt(h * (nu - 2) / nu)).sum()
    prior = stats.norm.logpdf(mu, 0.0, 1.0) + half_normal(omega, 1.0) + LOG_TWO
    return likelihood + prior + stats.gamma.logpdf(nu - 2, 2.0, scale=10.0)


def volatility() -> Model:
    from arch.data import sp500

    price = sp500.load()["Adj Close"].to_numpy()[-1001:]
    returns = 100 * np.diff(np.log(price))
    parameters = {
        "mu": ("real", 0.0),
        "omega": ("positive", 0.1),
        "shares": ("simplex", np.full(3, 1 / 3)),
        "nu_less_two": ("positive", 5.0),
    }
    return build("sp500-garch_t", garch_t, parameters, {"r": returns, "h0": returns.var()})


def regression(position: Position, data: Data) -> Scalar:
    """y_n ~ normal(x_n . beta, sigma), flat on beta and on sigma > 0, in raw units: its marginals are known exactly."""
    return stats.norm.logpdf(data["y"], data["x"] @ position["beta"], position["sigma"]).sum()


def employment() -> Model:
    d = _statsmodels("longley")
    x = _with_constant(d[["GNP", "UNEMP", "ARMED"]])
    parameters = {"beta": ("real", np.zeros(4)), "sigma": ("positive", 1.0)}
    return build("longley-regression", regression, parameters, {"x": x, "y": d["TOTEMP"].to_numpy()})


def exact_regression(key: Array, model: Model, num_samples: int) -> np.ndarray:
    r"""Exact columns [S, p + 1] of `regression`.

    .. math:: \sigma^2 \mid y \sim \text{Inv-}\chi^2(N - p - 1, \cdot), \qquad
              \beta \mid \sigma, y \sim \mathrm N(\hat\beta, \sigma^2 (X^\top X)^{-1})
    """
    x, y = np.asarray(model.data["x"]), np.asarray(model.data["y"])
    n, p = x.shape
    unit = np.abs(x).max(axis=0)
    q, r = np.linalg.qr(x / unit)
    rest = y - q @ (q.T @ y)
    sigma_key, beta_key = jax.random.split(key)
    # 2 Gamma(df / 2) is chi-square; one degree less than under the usual prior on log sigma.
    chi_square = 2 * np.asarray(jax.random.gamma(sigma_key, (n - p - 1) / 2, (num_samples,)))
    sigma = np.sqrt(rest @ rest / chi_square)
    z = np.asarray(jax.random.normal(beta_key, (num_samples, p)))
    beta = np.linalg.solve(r, (q.T @ y)[:, None] + sigma * z.T) / unit[:, None]
    return np.column_stack([beta.T, sigma])


BUILDERS: dict[str, Callable[[], Model]] = {
    "anes96-ordered_logit": party,
    "breast_cancer-logistic": breast_cancer,
    "committee-negative_binomial": committees,
    "cpunish-poisson": executions,
    "grunfeld-varying_intercepts": investment,
    "iris-mixture": petals,
    "longley-regression": employment,
    "sine-gaussian_process": sine,
    "sp500-garch_t": volatility,
    "stackloss-student_t": stack_loss,
    "star98-beta_binomial": schools,
}
NAMES = tuple(BUILDERS)
EXACT = {"longley-regression": exact_regression, "sine-gaussian_process": exact_process}


def load(name: str) -> Model:
    """One posterior with its data.

    Args:
      name: one of `NAMES`.

    Returns:
      The `Model`.

    Raises:
      ValueError: no such model is written here.
      ModuleNotFoundError: the package that bundles its data is not installed.
    """
    if name not in BUILDERS:
        raise ValueError(f"wanted one of {', '.join(NAMES)}; given {name!r}")
    return BUILDERS[name]()
