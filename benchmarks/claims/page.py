"""The page of all claims: both error rates, what was aimed at, and every figure of README and the guide with its row."""

from benchmarks import suites
from benchmarks.claims.figures import RESULTS, figures
from benchmarks.claims.passages import PASSAGES
from benchmarks.claims.targets import targets
from benchmarks.harness.page import table

HEAD = """# What was measured

Every figure that README and these pages claim, with the rows that it was computed of: on which device, and when. `make
benchmarks-page` writes this page from `benchmarks/results`; a test compares README, the guide and the rows, and fails where
one differs. `python -m benchmarks` measures all of it on your machine: first in a short form, then suite by suite.
"""


def rates() -> str:
    """Both error rates of the certificate, of both calls."""
    f, lines = figures(), []
    for call in ("fit", "fit_batch"):
        for words, kind in (("made to deceive", ""), ("a mode in which no start ends", "hidden_")):
            get = lambda what, call=call, kind=kind: f[f"{call}/{kind}{what}"]  # noqa: E731
            lines.append(
                [f"`{call}`", words, f"{get('targets')} x {get('seeds')}", f"{get('certified')} of {get('fits')}"]
                + [
                    f"**{get('wrong')}**",
                    f"{get('rough')}",
                    f"**{get('refused')} of {get('right')}**",
                    get("fits").dates,
                ]
            )
    header = ["call", "targets", "targets x seeds", "certified", "of these off by more than half an sd"]
    header += ["than a tenth", "refused though within a tenth", "measured"]
    return (
        "## How often is the certificate wrong?\n\n"
        "Of [targets of known moments](../benchmarks/results/certificate.md) that are made to deceive it. Its two errors: an"
        f" answer certified that is wrong, and one refused that is right. On {f['fit/fits'].device}.\n\n"
        + table(header, lines)
    )


def aimed() -> str:
    lines = [target.line() for target in targets()]
    reached = sum(target.reached for target in targets())
    return (
        "## What was aimed at\n\n"
        f"{reached} of {len(lines)} targets are reached. What is missed is not taken away from the list.\n\n"
        + table(["", "wanted", "found", "", "page", "measured"], lines)
    )


def claimed() -> str:
    lines = []
    for name in dict.fromkeys(name for passage in PASSAGES for name in passage.figures):
        one = figures()[name]
        files = dict.fromkeys(passage.file for passage in PASSAGES if name in passage.figures)
        lines.append(
            [f"`{name}`", one.words, f"{one}", ", ".join(files)]
            + [f"[{one.page}](../benchmarks/results/{one.page}.md)", one.device, one.dates]
        )
    return (
        "## Figures of README and the guide\n\n"
        "Ratios of times are of processor seconds. Names are those of `benchmarks/claims/figures.py`.\n\n"
        + table(["figure", "what", "value", "claimed in", "page", "device", "measured"], lines)
    )


def pages() -> str:
    lines = []
    for name in suites.NAMES:
        there = (RESULTS / f"{name}.md").is_file()
        lines.append([f"[{name}](../benchmarks/results/{name}.md)" if there else name, suites.load(name).question])
        if not there:
            lines[-1][1] += " Not yet run in full."
    return "## Suites\n\nEach is run by `python -m benchmarks NAME`.\n\n" + table(["suite", "question"], lines)


def page() -> str:
    return "\n".join([HEAD, rates(), aimed(), claimed(), pages()])
