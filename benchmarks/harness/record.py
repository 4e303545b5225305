"""The one schema of rows, and the file in which they are kept: a later run goes on with what is there."""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

Row = dict[str, Any]
KEY = ("problem", "contender", "seed")
"""Fields that tell rows of a suite apart."""
DIGITS = 5
"""Significant digits that are kept: no figure here is known to more."""

BATCH_RATES = ("known", "wrong", "rough", "median_error", "worst_error")
FIELDS = {
    "problem": "what was asked",
    "contender": "who answered",
    "seed": "of its key; rounds of the same seed took turns",
    "status": "`done`, or in a word why there is no answer",
    "parameters": "D of the problem, on flat unconstrained vectors",
    "certified": "whether the contender vouches for the answer; none where it never does",
    "gradients": "log-density gradients, or what costs as much",
    "values": "log-density values, not in `gradients`",
    "mean_error": "the largest |mean - true mean| in true sds",
    "mean_error_rms": "root mean square of the same over the parameters",
    "sd_error": "the largest |sd / true sd - 1|",
    "stated_mean_error": "of the means in posterior sds, the largest, as the contender states it",
    "stated_sd_error": "of the sds, relative, likewise",
    "reference": "what the truth was found by",
    "note": "of a person, or of the contender",
    "log_evidence_error": "log p(x) less the true one, nats",
    "log_evidence_se": "standard error of log p(x) as the contender states it, nats",
    "import_cpu_seconds": "processor time of the imports alone, in a process of their own",
    "first_cpu_seconds": "processor time of the first call, compilation included",
    "first_seconds": "the same by the clock",
    "second_cpu_seconds": "processor time of a second call with another key",
    "warm_seconds": "time of a call that has been compiled, by the clock",
    "ended": "how it ended, in the contender's words",
    "changed_cpu_seconds": "processor time of a call with a log-density whose text has been changed",
    "batch": "models that are asked for in one call",
    "models": "of them, those that this contender was given",
    "description": "of the problem, for a heading",
    "steps": "of a timed fit",
    "rounds": "of interleaved timings, over which medians are taken",
    "spread": "of the rounds' processor times, the width of their middle half over their median",
    "microseconds": "wall time of a step, of one model of a batch",
    "cpu_microseconds": "processor time of the same",
    "ratio": "of wall time to that of the suite's first contender, round by round, the median",
    "cpu_ratio": "the same of processor time",
    "milliseconds": "wall time of one model of a batch, compiled",
    "cpu_milliseconds": "processor time of the same",
    "batch_cpu_seconds": "of all models of the batch, compilation included",
    "compile_cpu_seconds": "of that, compilation",
    "over": "wall time of a model by the suite's first contender over that by this one, round by round, the median",
    "cpu_over": "the same of processor time",
    "cold_over": "the same of `batch_cpu_seconds`",
    "data_mb": "of the batch's data, MB",
    "results_mb": "of what is returned, MB",
    "steps_of_models": "the least, the median, the mean and the most",
    "same_steps": "whether two loops took the same for each model",
    "lanes": "models that run side by side on a device",
    "gain": "wall time of a vmapped loop over that of lanes that refill, round by round, the median",
    "cpu_gain": "the same of processor time",
    "ideal_gain": "what it would be were all lanes always busy",
    "scheduled_gain": "what it can be, the queue being as it is",
    "gain_share": "`gain` over `ideal_gain`",
    "cpu_gain_share": "`cpu_gain` over `ideal_gain`",
    "devices": "over which models were spread",
    "gradients_of_devices": "of each",
    "balance": "gradients of all over those of the busiest times their number",
    "known": "models whose truth is known",
    "wrong": "of them, those off by more than half an sd",
    "rough": "of them, those off by more than a tenth",
    "median_error": "over models whose truth is known, of the largest error of a mean or sd",
    "worst_error": "of the same",
    "certified_count": "models that are certified",
    **{f"certified_{what}": f"`{what}` of those certified" for what in BATCH_RATES},
    "right": "models whose truth is known, within a tenth of an sd",
    "refused_right": "of them, those not certified",
    "gradients_mean": "mean over the models, where `gradients` is the median",
    "statuses": "status -> models",
    "elbo": "the bound that was reached, nats; the mean over a batch",
    "loss": "mean over the last epoch, nats",
    "log_likelihood": "of test data, nats a datum",
    "log_likelihood_se": "over the data",
    "by_datum": "of each",
    "over_vae": "`log_likelihood` above that of the VAE, datum by datum, of all seeds together, where data are not stored",
    "over_vae_se": "of the same",
    "active": "latents that are used",
    "replicates": "data sets that were simulated",
    "certified_share": "of them, those with a certified fit",
    "stages": "stage -> how many of the certified fits are of it",
    "outermost": "stage -> share of the ranks that are among the two lowest or the two highest",
    "calibrated": "whether no rank speaks against it, all taken together",
    "p_value": "of all ranks together, that of the worst times their number",
    "p_values": "number that was ranked -> p",
    "inside": "the same -> whether its ECDF is inside its simultaneous 95 % band",
    "rank_counts": "the same -> how often each rank was met",
    "compile_seconds": "time of compilation alone, by the clock",
    "warm_cpu_seconds": "processor time of a call that has been compiled",
    "cpu_seconds": "processor time of a call, with what it had to compile",
    "sd_error_rms": "root mean square of sd / true sd - 1 over the parameters",
    "correlation_error": "the largest |correlation - true correlation|",
    "wasserstein": "the largest 1-Wasserstein distance to the reference draws, in reference sds",
    "columns": "numbers that are compared, as Stan names them",
    "mean_errors": "of each column, signed; of one with heavy tails by quantiles",
    "sd_errors": "likewise",
    "wassersteins": "likewise",
    "by_quantiles": "of each column, whether it is assessed by quantiles",
    "means": "of each column; medians of those with heavy tails",
    "sds": "likewise; widths of their central 90 % in units of a normal's",
    "mean_ses": "standard errors of `means`, in sds",
    "sd_ses": "of `sds`, relative",
    "heavy_columns": "places of those with heavy tails",
    "columns_off": "columns further away than a tenth and three standard errors of the reference",
    "rhat": "rank-normalised, the largest of all columns",
    "before": "what the row had that this one took the place of",
    "moment_sd_error": "the largest |sd / true sd - 1| of all columns, those too that are assessed by quantiles",
    "heavy": "columns that are assessed by quantiles",
    "withheld": "of the others, those whose sd is withheld",
    "hidden": "whether the target has a mode in which no start ends",
    "stage": "of a cascade, whose answer it is",
    "khat": "Pareto k-hat of the importance ratios",
    "ess": "effective draws",
    "kind": "of what is on trial: `right`, `wrong` by more than the tolerance, or `between`",
    "verdict": "what a check said of it",
    "reasons": "of the verdict, in the check's words",
    "estimates": "of each gradient",
    "bias": "norm of the mean gradient less that of the estimator's own bound",
    "bias_by_chance": "what that would be about without a bias",
    "variance": "of one estimate, summed over the parameters",
    "signal_to_noise": "norm of the gradient over the sd of an estimate",
    "value": "of the bound, nats",
    "value_sd": "of one estimate of it",
    "value_difference": "between two libraries on the same draws",
    "gradient_difference": "the same of gradients, the largest",
    "planned_mb": "memory that XLA plans for the compiled program, temporaries and results, MB",
    "peak_mb": "the most memory that the process held, MB",
    "load": "programs that wanted a processor in the minute before",
    "date": "UTC",
    "environment": "name of an entry under `environments`: device, processor, versions",
    "quick": "whether it is of a short run",
}
"""Names that a suite may give its numbers, in the order of the pages. A suite adds here what it measures anew."""


class Store:
    """Rows by problem, contender and seed, on disk after each change; and notes on them, which a person writes into the file."""

    def __init__(self, file: str | os.PathLike) -> None:
        self.file = pathlib.Path(file)
        stored = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.environments: dict[str, dict[str, Any]] = stored.get("environments", {})
        self.notes: list[str] = stored.get("notes", [])
        self._rows: dict[tuple, Row] = {key_of(row): row for row in stored.get("rows", [])}

    def __contains__(self, key: tuple) -> bool:
        return key in self._rows

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def get(self, key: tuple) -> Row | None:
        """The row of this key, if there is one."""
        return self._rows.get(key)

    def add(self, row: Row, environment: dict[str, Any]) -> None:
        """Put in a row, in place of one of the same key, and save.

        Args:
          row: of names in `FIELDS`.
          environment: where it was measured, `machine.environment()`; kept once for all rows that share it.

        Raises:
          ValueError: a name that is not in `FIELDS`, or one of the key that is missing.
        """
        unknown = [name for name in row if name not in FIELDS]
        missing = [name for name in KEY if name not in row]
        if unknown or missing:
            raise ValueError(
                f"wanted a row of fields of benchmarks.harness.record.FIELDS with {', '.join(KEY)};"
                f" unknown: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
            )
        name = name_of(environment)
        self.environments[name] = environment
        self._rows[key_of(row)] = plain(row) | {"environment": name}
        self.save()

    def save(self) -> None:
        """One row a line; a file beside it first, so that a kill leaves the old one whole."""
        used = {row["environment"] for row in self._rows.values()}
        self.environments = {name: one for name, one in self.environments.items() if name in used}
        environments = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in self.environments.items())
        rows = ",\n  ".join(json.dumps(row) for row in self._rows.values())
        self.file.parent.mkdir(parents=True, exist_ok=True)
        aside = self.file.with_suffix(".part")
        notes = f' "notes": {json.dumps(self.notes)},\n' if self.notes else ""
        aside.write_text(f'{{"environments": {{\n  {environments}\n }},\n{notes} "rows": [\n  {rows}\n]}}\n')
        aside.replace(self.file)


def key_of(row: Row) -> tuple:
    return tuple(row[part] for part in KEY)


def name_of(environment: dict[str, Any]) -> str:
    """A short name of what is the same in all rows that can be compared: all but date and commit."""
    same = {name: value for name, value in environment.items() if name not in ("date", "commit")}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:8]


def plain(value: Any) -> Any:
    """The same as JSON has it: numbers of a few digits, None for those that are not finite."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    return [plain(entry) for entry in value]


def median(rows: Iterable[Row], field: str) -> float | None:
    """Over the rows that have a number in the field; None where none has."""
    there = [row[field] for row in rows if isinstance(row.get(field), int | float)]
    return float(np.median(there)) if there else None
