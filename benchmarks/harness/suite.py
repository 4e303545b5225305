"""What a suite is to the harness, and how it is run."""

import itertools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.harness import machine, process
from benchmarks.harness.record import Row, Store


class Job(NamedTuple):
    """What one process does.

    Attributes:
      problem: of the suite's problems.
      contenders: those that take turns in this process; one where each is to have a process of its own.
      seed: of the keys; the first of them, where the job takes several and its rows name their own.
      seeds: how many, where a row of each is wanted of every contender.
    """

    problem: str
    contenders: tuple[str, ...]
    seed: int
    seeds: int = 1


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
      row_seconds: limit of each row of a job that has several; none but that of the job without.
      x64: whether it is double precision.
      picture: `(rows, path) -> files`, which draws at `path` and beside it what the page is to show; called where matplotlib is
        installed and there are rows.
      on_request: jobs that are run only where `--only` names one of their contenders.
      sweep: `(name, [(value, rows)]) -> markdown`, what a sweep of a threshold comes to; without it, the first value beside each
        other.
      costs: fields that are the better the smaller they are, compared as ratios: times, counts, memory.
      errors: field -> the smallest difference that counts, in its unit; the better the nearer to zero.
      gains: field -> the same; the better the larger.
      right: whether the answer of a row is as it should be, where that is more than being there.
    """

    question: str
    jobs: Callable[[bool], list[Job]]
    rows: Callable[[Job, bool], Iterator[Row]]
    sections: Callable[[list[Row]], list[str]]
    seconds: float = 300.0
    quick_seconds: float = 120.0
    row_seconds: float | None = None
    x64: bool = True
    picture: Callable[[list[Row], pathlib.Path], list[pathlib.Path]] | None = None
    on_request: Callable[[], list[Job]] | None = None
    sweep: Callable[[str, list[tuple[Any, list[Row]]]], str] | None = None
    costs: tuple[str, ...] = ()
    errors: Mapping[str, float] = MappingProxyType({})
    gains: Mapping[str, float] = MappingProxyType({})
    right: Callable[[Row], bool | None] | None = None


def run(
    name: str,
    suite: Suite,
    store: Store,
    *,
    quick: bool = False,
    only: str = "",
    seeds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    again: bool = False,
    say: Callable[[str], Any] = print,
) -> None:
    """Run the jobs whose rows are missing; each row is on disk as soon as it is there.

    Args:
      name: of the suite, by which the process of a job finds it.
      suite: its entry.
      store: where rows are kept.
      quick: the short form.
      only: as `chosen` has it.
      seeds: how many at most; as many as the suite has without.
      settings: thresholds that are in force.
      again: also what is there already.
      say: told a line for each row.
    """
    environment = machine.environment(x64=suite.x64)
    for job in chosen(suite, quick, only):
        if seeds is not None:
            job = job._replace(seeds=min(job.seeds, seeds - job.seed))
        absent = lambda one, seed, job=job: again or (job.problem, one, seed) not in store  # noqa: E731
        left = [
            seed for seed in range(job.seed, job.seed + job.seeds) if any(absent(one, seed) for one in job.contenders)
        ]
        while left:
            # A crash costs one seed; the others go on in another process.
            block = list(itertools.takewhile(lambda seed, left=left: seed - left[0] == left.index(seed), left))
            names = tuple(one for one in job.contenders if any(absent(one, seed) for seed in block))
            part, done = Job(job.problem, names, block[0], len(block)), set()
            for row in process.rows(name, suite, part, quick, settings or {}):
                store.add(row | {"date": machine.today(), "quick": quick}, environment)
                say(line(row))
                done.add(row["seed"])
            left = [seed for seed in left if seed not in done]


def chosen(suite: Suite, quick: bool, only: str = "") -> list[Job]:
    """Jobs of the problems and of the contenders that are named.

    Args:
      suite: its entry.
      quick: the short form.
      only: names or parts of names, separated by commas without a space behind. Those of problems choose problems, those of
        contenders contenders; a name that is whole chooses that one alone.

    Raises:
      ValueError: a part is in no name, or the contenders that are named are asked for none of the problems.
    """
    jobs, parts = suite.jobs(quick), [part.strip() for part in re.split(r",(?! )", only) if part.strip()]
    usual = {name for job in jobs for name in (job.problem, *job.contenders)}
    extra = suite.on_request() if suite.on_request else []
    wanted = {part for part in parts if not any(part in name for name in usual)}
    jobs = jobs + [job for job in extra if any(part in one for part in wanted for one in job.contenders)]
    problems = _named(parts, [job.problem for job in jobs])
    contenders = _named(parts, [one for job in jobs for one in job.contenders])
    unknown = [part for part in parts if not any(part in name for name in (*problems, *contenders))]
    if unknown:
        names = ", ".join(dict.fromkeys([*problems, *contenders]))
        raise ValueError(f"no problem or contender {', '.join(unknown)}; there are {names}")
    found = []
    for job in jobs:
        own = tuple(one for one in job.contenders if contenders[one])
        if own and problems[job.problem]:
            found.append(job._replace(contenders=own))
    if not found:
        there = (f"{one!r} on {job.problem!r}" for job in jobs for one in job.contenders if contenders[one])
        raise ValueError(f"{' and '.join(parts)} have nothing in common; there are {', '.join(there)}")
    return found


def _named(parts: list[str], names: list[str]) -> dict[str, bool]:
    """Name -> whether it is chosen: all are where no part is of any."""
    by_part = {
        part: [name for name in names if part == name] or [name for name in names if part in name] for part in parts
    }
    some = {name for found in by_part.values() for name in found}
    return {name: not some or name in some for name in names}


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
