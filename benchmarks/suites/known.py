"""One contender on one posterior of known answer, in a process of its own: what both suites of this kind measure."""

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.contenders import CONTENDERS, Answer
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job
from benchmarks.problems.known import PROBLEMS, Known

CHANGED = 0.9
"""Power of the likelihood after the change of the model's text."""
IMPORTS = "import time; {}; print(time.process_time())"


def rows(job: Job, *, again: bool) -> Iterator[Row]:
    """The row of the job's contender.

    Args:
      job: of one contender. Where its library is not installed, that is the status of its row.
      again: whether it is asked a second time, and of a changed model.

    Yields:
      The row.
    """
    (name,) = job.contenders
    contender, known = CONTENDERS[name], PROBLEMS[job.problem]()
    try:
        importing = import_seconds(contender.imports)
        for module in contender.imports:
            importlib.import_module(module)
    except ModuleNotFoundError as missing:
        yield {"contender": name, "status": f"not installed: {missing.name}"}
        return
    import jax
    import scipy.linalg  # noqa: F401  (JAX would at its first decomposition, NumPyro does at once; imports are apart)

    keys = jax.random.split(jax.random.key(job.seed), 3)
    call = contender.make(known, 1.0)
    first, wall, cpu = clock(call, keys[0])
    row = {"contender": name, **errors(first, known)}
    row |= {"import_cpu_seconds": importing, "first_cpu_seconds": cpu, "first_seconds": wall}
    if again:
        row["second_cpu_seconds"] = clock(call, keys[1])[2]
        row["changed_cpu_seconds"] = clock(contender.make(known, CHANGED), keys[2])[2]
    yield row


def import_seconds(modules: tuple[str, ...]) -> float:
    """Processor seconds of a new process until it has imported them."""
    code = IMPORTS.format("; ".join(f"import {module}" for module in modules))
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["it said nothing"])[-1]
        kind, _, words = last.partition(": ")
        if kind == "ModuleNotFoundError":
            raise ModuleNotFoundError(words, name=words.split("'")[1] if "'" in words else words)
        raise RuntimeError(f"importing {', '.join(modules)}: {last}")
    return float(told.stdout.split()[-1])


def clock(call, key) -> tuple[Answer, float, float]:
    """The answer, wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = call(key)
    return answer, time.perf_counter() - wall, time.process_time() - cpu


def errors(answer: Answer, known: Known) -> Row:
    """What of an answer stands in a row."""
    found: Row = {}
    if answer.mean is not None and answer.sd is not None:
        found["mean_error"] = float(np.max(np.abs(answer.mean - known.mean) / known.sd))
        found["sd_error"] = float(np.max(np.abs(answer.sd / known.sd - 1)))
    if answer.log_evidence is not None:
        found["log_evidence_error"] = answer.log_evidence - known.log_evidence
        found["log_evidence_se"] = answer.log_evidence_se
    return found | {"gradients": answer.gradients, "values": answer.values, "certified": answer.certified}
