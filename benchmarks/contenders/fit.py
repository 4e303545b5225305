"""`elbojax.fit`, with nothing set."""

import numpy as np

from benchmarks.contenders.base import Answer, Contender, density


def make(known, power):
    import elbojax

    log_density, start = density(known, power), np.zeros(known.size)

    def call(key):
        found = elbojax.fit(key, log_density, start, data=known.data)
        table, c = found.summary(), found.certificate
        return Answer(
            np.asarray(table.mean),
            np.asarray(table.sd),
            float(c.log_evidence),
            float(c.log_evidence_se),
            float(c.num_gradients),
            float(c.num_log_densities),
            bool(c.certified),
        )

    return call


CONTENDER = Contender(("elbojax",), make, "`elbojax.fit` has its defaults.")
