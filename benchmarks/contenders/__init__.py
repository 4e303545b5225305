"""Who answers: elbojax, and what people would use in its place. To add one: a file, and an entry."""

from benchmarks.contenders import fit, nested_sampling, nutpie_nuts, nuts, smc
from benchmarks.contenders.base import Answer, Contender

FIT, SCAN = "elbojax fit", "NumPyro NUTS, one scan"
CONTENDERS: dict[str, Contender] = {
    FIT: fit.CONTENDER,
    SCAN: nuts.ONE_SCAN,
    "NumPyro MCMC.run": nuts.NUMPYRO,
    "BlackJAX NUTS": nuts.BLACKJAX,
    "nutpie": nutpie_nuts.CONTENDER,
    "BlackJAX SMC": smc.CONTENDER,
    "jaxns": nested_sampling.CONTENDER,
}
MOMENTS = (FIT, SCAN, "NumPyro MCMC.run", "BlackJAX NUTS", "nutpie")
"""Those that are asked for means and sds."""
EVIDENCE = (FIT, "BlackJAX SMC", "jaxns")
"""Those that tell log p(x)."""

__all__ = ["CONTENDERS", "EVIDENCE", "FIT", "MOMENTS", "SCAN", "Answer", "Contender"]
