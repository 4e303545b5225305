"""The same as the suite `posteriordb`, on posteriors of no database, their truth found by long chains or exactly.

A truth that is not yet on disk (`benchmarks.problems.long_runs`) is found by the first process that asks for it, in minutes.
"""

import functools

from benchmarks.models import unseen
from benchmarks.suites import posteriordb

QUICK = ("longley-regression",)

SUITE = posteriordb.SUITE._replace(
    question="And to posteriors of no database, whose truth was found by long chains or exactly?",
    jobs=functools.partial(posteriordb.jobs_on, unseen.NAMES, QUICK, 1),
    row_seconds=None,
)
