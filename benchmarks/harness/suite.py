"""What a suite is to the harness, and how it is run."""

import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.harness import machine, process
from benchmarks.harness.record import Row, Store


class Job(NamedTuple):
    """What one process does.

    Attributes:
      problem: of the suite's problems.
      contenders: those that take turns in this process; one where each is to have a process of its own.
      seed: of the keys. A job that takes several seeds as its rounds names its first one, and its rows their own.
    """

    problem: str
    contenders: tuple[str, ...]
    seed: int


class Suite(NamedTuple):
    """One question, put to several contenders.

    Attributes:
      question: one sentence, the head of the page.
      jobs: `quick -> [Job]` in the order in which they are run. Jobs of one seed are a round: contenders that are compared stand
        next to each other, so that a slow spell of the machine meets all of them.
      rows: `(job, quick) -> rows`, in a process of its own; called there after the imports of this suite's module.
      sections: `rows -> [markdown]`, what the page says of them below its head.
      seconds: limit of one job, imports and compilation included.
      quick_seconds: the same of the short form.
      x64: whether it is double precision.
      picture: `(rows, path) -> files`, which draws at `path` and beside it what the page is to show; called where matplotlib is
        installed and there are rows.
    """

    question: str
    jobs: Callable[[bool], list[Job]]
    rows: Callable[[Job, bool], Iterator[Row]]
    sections: Callable[[list[Row]], list[str]]
    seconds: float = 300.0
    quick_seconds: float = 120.0
    x64: bool = True
    picture: Callable[[list[Row], pathlib.Path], list[pathlib.Path]] | None = None


def run(
    name: str,
    suite: Suite,
    store: Store,
    *,
    quick: bool = False,
    only: str = "",
    again: bool = False,
    say: Callable[[str], Any] = print,
) -> None:
    """Run the jobs whose rows are missing; each row is on disk as soon as it is there.

    Args:
      name: of the suite, by which the process of a job finds it.
      suite: its entry.
      store: where rows are kept.
      quick: the short form.
      only: parts of names of problems or contenders, separated by commas; all without.
      again: also what is there already.
      say: told a line for each row.
    """
    wanted = [part for part in only.split(",") if part]
    environment = machine.environment(x64=suite.x64)
    for job in suite.jobs(quick):
        chosen = [
            contender
            for contender in job.contenders
            if (not wanted or any(part in job.problem or part in contender for part in wanted))
            and (again or (job.problem, contender, job.seed) not in store)
        ]
        if not chosen:
            continue
        for row in process.rows(name, suite, job._replace(contenders=tuple(chosen)), quick):
            store.add(row | {"date": machine.today(), "quick": quick}, environment)
            say(line(row))


def line(row: Row) -> str:
    """A row as it ends."""
    numbers = (f"{name} {row[name]:.3g}" for name in row if isinstance(row[name], float) and name != "load")
    return f"{row['contender']:<24} {row['problem']:<36} seed {row['seed']}: {row['status']:<10} {'  '.join(numbers)}"


def rounds(problems: tuple[str, ...], contenders: tuple[str, ...], seeds: int, *, apart: bool) -> list[Job]:
    """All contenders on all problems, seed after seed.

    Args:
      problems: by name.
      contenders: by name; their order turns by one from seed to seed.
      seeds: rounds.
      apart: whether each contender has a process of its own.
    """
    jobs = []
    for seed, problem in itertools.product(range(seeds), problems):
        shift = seed % len(contenders)
        order = contenders[shift:] + contenders[:shift]
        jobs += [Job(problem, (one,), seed) for one in order] if apart else [Job(problem, order, seed)]
    return jobs
