"""Every figure that is claimed, computed from stored rows: `suite/what`, with its words, its source, and when it was measured.

To add one: a line in the function of its suite, or a function and an entry in `READERS`.
"""

import functools
import pathlib
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from benchmarks.harness.errors import GOOD, WRONG
from benchmarks.harness.record import Row, Store
from benchmarks.harness.record import median as over_rows
from benchmarks.pages.accuracy import MCMC, NUTS, firsts, is_good, summary, worst
from benchmarks.suites import certificate, cold, kinds, step, structured, vae

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Figure(NamedTuple):
    """A number, and where it comes from.

    Attributes:
      value: of any unit.
      words: what it is.
      page: of `benchmarks/results`, without its ending.
      dates: of the rows that it was computed of, the first and the last.
      device: of the same.
    """

    value: float
    words: str
    page: str
    dates: str
    device: str

    def __format__(self, form: str) -> str:
        """By a format of Python's; `words` has small counts in letters; without one, four digits at most."""
        if form == "words":
            return WORDS[round(self.value)] if self.value in range(len(WORDS)) else f"{self.value:,.0f}"
        if form:
            return format(self.value, form)
        return f"{self.value:,.0f}" if float(self.value).is_integer() or self.value >= 1000 else f"{self.value:.4g}"


class Source(NamedTuple):
    """Rows of one file, and the device of each of its environments."""

    page: str
    rows: list[Row]
    devices: dict[str, str]

    def figure(self, value: Any, words: str, rows: Iterable[Row] | None = None) -> Figure:
        some = self.rows if rows is None else list(rows)
        dates = sorted({row["date"] for row in some if row.get("date")})
        told = dates[0] + f" to {dates[-1]}" * (len(dates) > 1) if dates else "date not kept"
        places = {row.get("environment") for row in some} or {None}
        where = dict.fromkeys(place for name, place in self.devices.items() if name in places or None in places)
        return Figure(float(value), words, self.page, told, ", ".join(where))


def device(environment: dict[str, Any]) -> str:
    return f"{environment['device']} ({environment['processor']}, {environment['cores']} cores)"


def stored(name: str) -> Source:
    """Of a suite of the harness."""
    store = Store(RESULTS / f"{name}.json")
    return Source(name, store.rows, {place: device(one) for place, one in store.environments.items()})


def of_certificate() -> Iterator[tuple[str, Figure]]:
    source = stored("certificate")
    for call in certificate.SEEDS:
        for kind, hidden in (("", False), ("hidden_", True)):
            some = [row for row in source.rows if row["contender"] == call and row["hidden"] == hidden]
            good = [row for row in some if row["certified"]]
            right = [row for row in some if certificate.worst(row) <= GOOD]
            told = f"`{call}`, targets {'with' if hidden else 'without'} a mode in which no start ends: "
            for what, value, words in (
                ("targets", len({row["problem"] for row in some}), "targets"),
                ("seeds", max(row["seed"] for row in some) + 1, "seeds each"),
                ("fits", len(some), "fits"),
                ("certified", len(good), "certified"),
                ("wrong", certificate.off(good, WRONG), f"certified and off by more than {WRONG}"),
                ("rough", certificate.off(good, GOOD), f"certified and off by more than {GOOD}"),
                ("right", len(right), f"within {GOOD}"),
                ("refused", sum(not row["certified"] for row in right), f"refused though within {GOOD}"),
            ):
                yield f"{call}/{kind}{what}", source.figure(value, told + words, some)


def of_posteriordb() -> Iterator[tuple[str, Figure]]:
    for stem in ("posteriordb", "unseen"):
        source = stored(stem)
        table = firsts(source.rows)
        fits, nuts = table["fit"], table[NUTS]
        beside, mcmc = summary(fits, nuts), summary(fits, table.get(MCMC, {}))
        own = list(fits.values())
        of_fit = [row for row in source.rows if row["contender"] == "fit"]
        yield f"{stem}/run", source.figure(len(fits), "posteriors", own)
        yield f"{stem}/good", source.figure(beside["good"], f"`fit`: every mean and sd within {GOOD}", own)
        good = sum(map(is_good, nuts.values()))
        yield f"{stem}/nuts_good", source.figure(good, f"NUTS: every mean and sd within {GOOD}", nuts.values())
        certified = [row for row in of_fit if row["certified"]]
        yield f"{stem}/certified", source.figure(len(certified), "`fit`, all seeds: certified", of_fit)
        wrong = sum(1 for row in certified if (found := worst(row)) is None or found > WRONG)
        yield f"{stem}/wrong", source.figure(wrong, f"`fit`, all seeds: certified and off by more than {WRONG}", of_fit)
        for what, value, words in (
            ("gradients", beside["gradients_to_nuts"], "gradients of `fit` over those of NUTS, median"),
            ("cold", beside["cold_cpu_to_nuts"], "first call, processor seconds over NUTS in one jitted scan, median"),
            ("cold_mcmc", mcmc["cold_cpu_to_nuts"], "first call, processor seconds over NumPyro's `MCMC.run`, median"),
            ("warm", beside["warm_cpu_to_nuts"], "again, processor seconds over NUTS in one jitted scan, median"),
            ("warm_mcmc", mcmc["warm_cpu_to_nuts"], "again, processor seconds over NumPyro's `MCMC.run`, median"),
        ):
            if value is not None:
                yield f"{stem}/{what}", source.figure(value, words, own)
        for method, rows in (("fit", fits), ("nuts", nuts)):
            for name, row in rows.items():
                if row.get("first_cpu_seconds"):
                    told = f"{name}, {method}: first call, processor seconds"
                    yield f"{stem}/{name}/{method}/cold", source.figure(row["first_cpu_seconds"], told, [row])
        for name in fits:
            runs = [row for row in of_fit if row["problem"] == name]
            yield f"{stem}/{name}/runs", source.figure(len(runs), f"{name}: runs of `fit`", runs)
            found = sum(bool(row["certified"]) for row in runs)
            yield f"{stem}/{name}/certified", source.figure(found, f"{name}: certified", runs)


def of_batch() -> Iterator[tuple[str, Figure]]:
    source = stored("batch")
    at = {(row["problem"], row["contender"]): row for row in source.rows}
    rivals = [row for row in source.rows if "cpu_over" in row]
    for name, pick in (("least", min), ("most", max)):
        for what, field, words in (("warm", "cpu_over", "compiled"), ("cold", "cold_over", "compilation included")):
            told = f"`fit_batch` over vmapped Adam, processor time, {words}, the {name} of {len(rivals)} rivals"
            yield f"batch/{what}_{name}", source.figure(pick(one[field] for one in rivals), told, rivals)
    ours = at["throughput", "fit_batch"]
    yield "batch/elbo", source.figure(ours["elbo"], "`fit_batch`: mean ELBO, nats", [ours])
    best = max(row["elbo"] for row in rivals)
    yield "batch/elbo_rivals", source.figure(best, "the best of the rivals' mean ELBOs, nats", rivals)
    lanes = at["refill", "run_batch"]
    told = "`run_batch`: share of the ideal gain, processor time"
    yield "batch/refill", source.figure(lanes["cpu_gain_share"], told, [lanes])


def of_kinds() -> Iterator[tuple[str, Figure]]:
    source = stored("kinds")
    at = {(row["problem"], row["contender"]): row for row in source.rows if row["status"] == "done"}
    for kind in dict.fromkeys(row["problem"] for row in source.rows):
        ours, nuts = at[kind, kinds.OURS], at.get((kind, kinds.NUTS))
        name = f"{ours['batch']:,} {ours['description']}"
        yield f"kinds/{kind}/models", source.figure(ours["batch"], f"{name}: models", [ours])
        yield f"kinds/{kind}/certified", source.figure(ours["certified_count"], f"{name}: certified", [ours])
        for what, bound in (("wrong", WRONG), ("rough", GOOD)):
            told = f"{name}: certified and off by more than {bound}, of those whose truth is known"
            yield f"kinds/{kind}/{what}", source.figure(ours[f"certified_{what}"], told, [ours])
        if nuts is not None:
            both = [ours, nuts]
            told = f"{name}: NUTS over `fit_batch`, processor seconds, compilation included"
            value = nuts["batch_cpu_seconds"] / ours["batch_cpu_seconds"]
            yield f"kinds/{kind}/nuts_cold", source.figure(value, told, both)
            told = f"{name}: `fit_batch` over NUTS, processor time of a model, compiled"
            yield (
                f"kinds/{kind}/over_nuts",
                source.figure(ours["cpu_milliseconds"] / nuts["cpu_milliseconds"], told, both),
            )
            told = f"{name}: NUTS off by more than {GOOD}"
            yield f"kinds/{kind}/nuts_rough", source.figure(nuts["rough"], told, [nuts])
            yield (
                f"kinds/{kind}/nuts_known",
                source.figure(nuts["known"], f"{name}: models that NUTS was given", [nuts]),
            )


def of_calibration() -> Iterator[tuple[str, Figure]]:
    source = stored("calibration")
    right = [row for row in source.rows if "prior times" not in row["problem"]]
    wrong = [row for row in source.rows if "prior times" in row["problem"]]
    yield "calibration/models", source.figure(len(right), "calibration: models", right)
    yield (
        "calibration/replicates",
        source.figure(min(row["replicates"] for row in right), "calibration: data sets of each model", right),
    )
    told = "calibration: models whose ranks are uniform"
    yield "calibration/calibrated", source.figure(sum(row["calibrated"] for row in right), told, right)
    yield "calibration/wrong", source.figure(len(wrong), "calibration: models with a wrong prior", wrong)
    caught = sum(not row["calibrated"] for row in wrong)
    yield (
        "calibration/caught",
        source.figure(caught, "calibration: models with a wrong prior that are seen to be wrong", wrong),
    )


def of_cold() -> Iterator[tuple[str, Figure]]:
    source = stored("cold")
    at = {(row["problem"], row["contender"], row["seed"]): row for row in source.rows if row["status"] == "done"}
    for problem in dict.fromkeys(row["problem"] for row in source.rows):
        own = [row for row in source.rows if row["problem"] == problem and row["contender"] == cold.FIT]
        for when in cold.TIMES:
            field = f"{when}_cpu_seconds"
            told = f"{problem}: `fit`, {when}, processor seconds"
            yield f"cold/{problem}/{when}", source.figure(over_rows(own, field) or 0.0, told, own)
            pairs = [(row, at.get((problem, cold.SCAN, row["seed"]))) for row in own]
            ratios = [
                row[field] / other[field] for row, other in pairs if other and row.get(field) and other.get(field)
            ]
            if ratios:
                told = f"{problem}: {when}, `fit` over NUTS in one jitted scan, processor seconds"
                yield f"cold/{problem}/{when}/over_nuts", source.figure(statistics.median(ratios), told, own)


def of_step() -> Iterator[tuple[str, Figure]]:
    source = stored("step")
    for row in source.rows:
        if row["contender"] == step.OURS:
            told = f"{row['problem']}: a step over the hand-written loop, wall time"
            yield f"step/{row['problem']}", source.figure(row["ratio"], told, [row])


def of_chain_check() -> Iterator[tuple[str, Figure]]:
    source = stored("chain_check")
    for kind in ("right", "wrong"):
        some = [row for row in source.rows if row.get("kind") == kind]
        passed = sum(row["verdict"] == "agrees" for row in some)
        yield f"chain_check/{kind}", source.figure(len(some), f"`q` that are {kind}", some)
        yield f"chain_check/{kind}_passed", source.figure(passed, f"`q` that are {kind}, and pass", some)


def of_structured() -> Iterator[tuple[str, Figure]]:
    source = stored("structured")
    own = [row for row in source.rows if row["contender"] == structured.FIT]
    yield "structured/run", source.figure(len(own), "posteriors", own)
    certified = sum(bool(row.get("certified")) for row in own)
    yield "structured/certified", source.figure(certified, "`fit`: certified within the limit", own)
    for row in own:
        if row.get("gradients"):
            told = f"{row['problem']}: gradients of `fit`"
            yield f"structured/{row['problem']}/gradients", source.figure(row["gradients"], told, [row])


def of_vae() -> Iterator[tuple[str, Figure]]:
    source = stored("vae")
    for row in source.rows:
        if row["contender"] == vae.OURS and "ratio" in row:
            told = f"autoencoder of {row['problem']}: a step of `train` over the hand-written scan, wall time"
            yield f"vae/{vae.STEPS[row['problem']].pixels}", source.figure(row["ratio"], told, [row])


def of_growth() -> Iterator[tuple[str, Figure]]:
    source = stored("structure_growth")
    for row in source.rows:
        for field, words in (("gradients", "gradients"), ("first_cpu_seconds", "processor seconds"), ("peak_mb", "MB")):
            told = f"{row['problem']}, D = {row['parameters']:,}: {words}"
            yield f"structure_growth/{row['problem']}/{field}", source.figure(row[field], told, [row])


READERS: tuple[Callable[[], Iterator[tuple[str, Figure]]], ...] = (
    of_certificate,
    of_posteriordb,
    of_batch,
    of_kinds,
    of_calibration,
    of_cold,
    of_step,
    of_chain_check,
    of_structured,
    of_vae,
    of_growth,
)


@functools.cache
def figures() -> dict[str, Figure]:
    """All, by name."""
    return {name: figure for reader in READERS for name, figure in reader()}
