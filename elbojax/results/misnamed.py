"""What an answer's numbers are called in other libraries, and where they are here."""

import difflib

ELSEWHERE = {
    "samples": "sample(key, num_samples) gives draws",
    "get_samples": "sample(key, num_samples) gives draws",
    "sample_posterior": "sample(key, num_samples) gives draws",
    "position": "sample(key, num_samples) gives draws",
    "rvs": "sample(key, num_samples) gives draws",
    "std": "standard deviations are sd()",
    "stddev": "standard deviations are sd()",
    "scale": "standard deviations are sd()",
    "var": "variances are the squares of sd()",
    "variance": "variances are the squares of sd()",
    "median": "of one model, quantile(0.5) gives medians",
    "posterior": "to_arviz() gives the groups of ArviZ",
    "idata": "to_arviz() gives the groups of ArviZ",
    "trace": "to_arviz() gives the groups of ArviZ",
    "posterior_predictive": "of one model, predict gives draws of new data",
    "print_summary": "print it, or summary()",
    "describe": "print it, or summary()",
    "loss": "the bound is certificate.elbo",
    "losses": "the bound is certificate.elbo",
    "params": "the fitted distribution is q, on flat unconstrained vectors; mean() and sd() are in your space",
    "guide": "the fitted distribution is q, on flat unconstrained vectors; mean() and sd() are in your space",
    "logz": "the evidence is certificate.log_evidence",
    "log_marginal_likelihood": "the evidence is certificate.log_evidence",
    "converged": "whether it can be used is certificate.certified",
    "success": "whether it can be used is certificate.certified",
}
"""Names of NumPyro, BlackJAX, Stan, ArviZ and SciPy, and what stands in their place."""


def hint(name: str, names: list[str], inside: tuple[str, ...]) -> str:
    """What may have been meant by an attribute that is not there.

    Args:
      name: as asked for.
      names: that are there.
      inside: those of the certificate.

    Returns:
      The end of a sentence; empty where nothing comes near.

    Example:
      >>> hint("khat", ["mean", "sd"], ("khat", "ess"))
      '; it is in certificate.khat'
      >>> hint("maen", ["mean", "sd"], ())
      "; did you mean 'mean'?"
    """
    if name in inside:
        return f"; it is in certificate.{name}"
    if name in ELSEWHERE:
        return f"; {ELSEWHERE[name]}"
    near = difflib.get_close_matches(name, [*names, *inside], n=1)
    if not near:
        return ""
    return f"; did you mean {near[0] if near[0] in names else f'certificate.{near[0]}'!r}?"
