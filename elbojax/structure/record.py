"""What was found of a posterior's structure, and how it is told to a person."""

import dataclasses
import re
from collections import Counter
from typing import Any

import numpy as np

SHOWN = 6
"""Names listed of a set before the rest is counted."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Structure:
    r"""Three parts of a posterior in the unconstrained space of `fit`: leading, border, independent components.

    .. math:: \log p(\theta, \beta, x) = c(\theta, \beta) + \sum_g \log p_g(x_g; \theta, \beta)

    as far as the exact zeros of the Hessian tell.

    Attributes:
      size: D.
      leading: [n] int, increasing: coordinates that move the curvature of the others (scales, correlations, dispersions).
      border: [m] int, increasing: coordinates that touch many others and do not (fixed effects, the smaller of two crossed
        factors).
      components: int arrays, one for each set of coordinates that is independent of all others given leading and border, in
        the order that makes its band narrow (reverse Cuthill-McKee).
      bandwidths: [number of components] int: largest distance of two coordinates, in that order, that touch.
      kind: of the components all together: "single", all of one coordinate; "block", all of at most `BLOCK`; "band"; "sparse",
        where the band is wide; "dense", of which there is one; "none" where nothing is latent.
      pattern: `scipy.sparse` matrix [D, D] of bool, symmetric and with its diagonal: where the Hessian may differ from zero.
      names: D words such as "alpha[3]".
      moved: [D]: by how many of its own sds the mode of a coordinate would move were the latent coordinates integrated out and
        not maximised over; NaN where it was not looked at.
      varies: whether the last of the points looked at had entries that the earlier ones did not have.
      num_gradients: what it took; a Hessian-vector product counts as two.
      note: a sentence for the user, or "".
    """

    leading: np.ndarray
    border: np.ndarray
    components: tuple[np.ndarray, ...]
    bandwidths: np.ndarray
    kind: str
    pattern: Any
    names: tuple[str, ...]
    moved: np.ndarray
    varies: bool
    num_gradients: int
    note: str = ""

    @property
    def size(self) -> int:
        """D."""
        return len(self.names)

    @property
    def latent(self) -> np.ndarray:
        """All coordinates of the components, one component after the other."""
        return np.concatenate([*self.components, np.zeros(0, int)]).astype(int)

    def __repr__(self) -> str:
        return "; ".join(self._parts()) + (f"\n{self.note}" if self.note else "")

    def _parts(self) -> list[str]:
        if not (len(self.leading) + len(self.border)) and self.kind == "dense":
            return [f"no structure: dense, {self.size} coordinates"]
        parts = [
            f"{len(part)} {word}: {listed(self.names, part)}"
            for word, part in (("leading", self.leading), ("border", self.border))
            if len(part)
        ]
        return (parts or ["nothing leading"]) + self._sets()

    def _sets(self) -> list[str]:
        number = len(self.components)
        if not number:
            return ["nothing latent"]
        sizes = Counter(map(len, self.components))
        names = listed(self.names, self.latent)
        if number == 1:
            (size,) = sizes
            band = f", half bandwidth {self.bandwidths[0]}" if self.kind in ("band", "sparse") else ""
            return [f"1 {self.kind} component of size {size}{band}: {names}"]
        each = f"size {next(iter(sizes))}" if len(sizes) == 1 else f"sizes {min(sizes)} to {max(sizes)}"
        band = f", half bandwidths up to {self.bandwidths.max()}" if self.kind in ("band", "sparse") else ""
        return [f"{number:,} independent components of {each}{band}: {names}"]


def leaf_of(name: str) -> str:
    """The name of the leaf that a coordinate belongs to: "alpha" of "alpha[3]"."""
    return re.sub(r"\[[\d,]*\]$", "", name)


def listed(names: tuple[str, ...], part: np.ndarray) -> str:
    """A set of coordinates in words: whole leaves by their name, others one by one or counted."""
    leaves = [leaf_of(name) for name in names]
    whole = Counter(leaves)
    here = Counter(leaves[i] for i in part)
    words = []
    for leaf, count in sorted(here.items(), key=lambda item: min(i for i in part if leaves[i] == item[0])):
        if count == whole[leaf]:
            words.append(leaf)
        elif count <= 3:
            words += [names[i] for i in sorted(part) if leaves[i] == leaf]
        else:
            words.append(f"{leaf} ({count} of {whole[leaf]})")
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
