"""Loops of any length: what one turn does, found once, for all turns side by side."""

import graphlib
from typing import Any

import numpy as np

from elbojax.structure.domains import Domain, Pairs, empty, union
from elbojax.workarounds.equations import scan_inputs

WIDEST = 500
"""Numbers that one turn may read: carried, of the sequences, and of constants that depend on coordinates."""
MOST_PAIRS = 3000
"""Pairs of these that may meet: each is a product of sparse matrices with a row for each turn."""


def together(interpreter: Any, equation: Any, inputs: list[Any]) -> list[Any] | None:
    """The outputs of a `scan` whose carried numbers remember few turns, or sum up; None where that is not so.

    The body is run once with a coordinate for each number that it reads. What it carries on from a bounded number of turns
    (a state before, two before) is then known for all turns from the sequences; what grows with the turns (a sum of
    terms) may only be carried on linearly and come out at the end.

    Args:
      interpreter: of the operations around, which is not changed where None is returned.
      equation: of the `scan`.
      inputs: domains and arrays.
    """
    params = equation.params
    body, length = params["jaxpr"], params["length"]
    num_consts, num_carry = scan_inputs(params)
    kinds = ["const"] * num_consts + ["carry"] * num_carry + ["row"] * (len(inputs) - num_consts - num_carry)
    size, turns = interpreter.pairs.size, np.arange(length)[:: -1 if params["reverse"] else 1]
    shapes = [variable.aval.shape for variable in body.jaxpr.invars]
    if any(v.aval.dtype.kind not in "f" for v, kind in zip(body.jaxpr.invars, kinds, strict=True) if kind == "carry"):
        return None  # a counter, say, by which elements are picked
    counts = [
        int(np.prod(shape, dtype=int)) if kind == "carry" or isinstance(x, Domain) else 0
        for x, kind, shape in zip(inputs, kinds, shapes, strict=True)
    ]
    ends = np.cumsum([0, *counts])
    if length == 0 or ends[-1] > WIDEST:
        return None
    inner = Pairs(int(ends[-1]), diagonal=False)
    args = []
    for x, kind, shape, first, count in zip(inputs, kinds, shapes, ends[:-1], counts, strict=True):
        if count:
            args.append(_unit(shape, int(first), inner.size))
        else:
            args.append(x if kind == "const" else empty(shape, inner.size))
    outputs = [
        x if isinstance(x, Domain) else empty(np.shape(x), inner.size)
        for x in interpreter.inner(inner).run(body.jaxpr, body.consts, args)
    ]
    met = inner.pattern().tocoo()
    if met.nnz > MOST_PAIRS:
        return None
    carried = np.arange(ends[num_consts], ends[num_consts + num_carry])
    reads = _reads(outputs[:num_carry])
    endless = _endless(reads, int(carried[0]) if len(carried) else 0)
    out = _reads(outputs[num_carry:])
    used = set(met.row.tolist()).union(*out) if out else set(met.row.tolist())
    if used & {int(carried[i]) for i in endless}:
        return None

    rows: dict[int, Any] = {}  # of each number that a turn reads, for all turns, [length, D]
    starts: list[Any] = []
    for x, kind, first, count in zip(inputs, kinds, ends[:-1], counts, strict=True):
        for i in range(count):
            if kind == "const":
                rows[int(first) + i] = x.rows[np.full(length, i)]
            elif kind == "row":
                rows[int(first) + i] = x.rows[turns * count + i]
            else:
                starts.append(x.rows[[i]] if isinstance(x, Domain) else empty((1,), size).rows)
    last: dict[int, Any] = {}
    base = int(carried[0]) if len(carried) else 0
    graph = {
        c: [i - base for i in reads[c] if 0 <= i - base < len(reads)] for c in range(len(reads)) if c not in endless
    }
    for c in graphlib.TopologicalSorter(graph).static_order():
        after = _stacked([starts[c], _sum([rows.get(i) for i in reads[c]], length, size)])
        # What a turn reads of another carried number is what the turn before left.
        rows[base + c], last[c] = after[:length], after[[length]]
    for c in endless:
        sources = _closure(c, endless, reads, base)
        whole = [Domain((1,), starts[i]) for i in sources]
        for i in sources:
            inside = [rows[j] for j in reads[i] if j in rows]
            whole += [Domain((length,), each).total().spread((1,)) for each in inside]
        last[c] = union(whole).rows
    for i, j in zip(met.row.tolist(), met.col.tolist(), strict=True):
        if i <= j:
            interpreter.pairs.between(Domain((length,), rows[i]), Domain((length,), rows[j]))
    return _handed_out(outputs, num_carry, last, out, rows, turns, size)


def _handed_out(outputs, num_carry, last, out, rows, turns, size):
    """The carried numbers after the last turn, and the sequences."""
    found, at, length = [], 0, len(turns)
    for each in outputs[:num_carry]:
        parts = [last[at + i] for i in range(each.count)]
        found.append(Domain(each.shape, _stacked(parts)) if parts else empty(each.shape, size))
        at += each.count
    at = 0
    for each in outputs[num_carry:]:
        parts = [_sum([rows[j] for j in out[at + i]], length, size) for i in range(each.count)]
        at += each.count
        shape = (length, *each.shape)
        if not parts:
            found.append(empty(shape, size))
            continue
        place = np.empty(length, int)
        place[turns] = np.arange(length)
        order = place[:, None] + length * np.arange(each.count)
        found.append(Domain((length * each.count,), _stacked(parts)).taken(order.reshape(shape)))
    return found


def _unit(shape: tuple[int, ...], first: int, size: int) -> Domain:
    import scipy.sparse as sp

    count = int(np.prod(shape, dtype=int))
    at = np.arange(count)
    return Domain(shape, sp.csr_array((np.ones(count, bool), (at, first + at)), shape=(count, size)))


def _reads(outputs: list[Domain]) -> list[set[int]]:
    """What each number of the outputs depends on, one after the other."""
    return [
        set(x.rows.indices[x.rows.indptr[i] : x.rows.indptr[i + 1]].tolist()) for x in outputs for i in range(x.count)
    ]


def _endless(reads: list[set[int]], base: int) -> set[int]:
    """Carried numbers that depend on all turns before: those on a circle, and those that read one."""
    number = len(reads)
    reach = np.zeros((number, number), bool)
    for c, sources in enumerate(reads):
        reach[c, [i - base for i in sources if 0 <= i - base < number]] = True
    for k in range(number):
        reach |= reach[:, [k]] & reach[[k], :]
    circles = np.flatnonzero(np.diag(reach))
    return set(circles.tolist()) | set(np.flatnonzero(reach[:, circles].any(1)).tolist())


def _closure(c: int, endless: set[int], reads: list[set[int]], base: int) -> set[int]:
    found, todo = set(), [c]
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo += [j - base for j in reads[i] if j - base in endless]
    return found


def _sum(parts: list[Any], length: int, size: int) -> Any:
    kept = [part for part in parts if part is not None]
    return union([Domain((length,), part) for part in kept]).rows if kept else empty((length,), size).rows


def _stacked(parts: list[Any]) -> Any:
    import scipy.sparse as sp

    return sp.csr_array(sp.vstack(parts), dtype=bool)
