"""What single operations of JAX do to the coordinates that numbers depend on. What has no rule here counts as dense."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elbojax.structure.domains import MOST, Domain, Pairs, TooMany, empty, union

Rule = Callable[[Pairs, Any, list[Any]], Any]
LINEAR = ("neg", "convert_element_type", "copy", "copy_p", "reduce_precision", "abs", "real", "optimization_barrier")
LINEAR_PAIRS = ("add", "sub", "add_any", "max", "min", "clamp")
FLAT = ("sign", "floor", "ceil", "round", "stop_gradient")
NONLINEAR = (
    *(
        "exp",
        "exp2",
        "log",
        "log1p",
        "expm1",
        "sin",
        "cos",
        "tan",
        "tanh",
        "logistic",
        "sqrt",
        "rsqrt",
        "cbrt",
        "square",
    ),
    *(
        "erf",
        "erfc",
        "erf_inv",
        "lgamma",
        "digamma",
        "polygamma",
        "igamma",
        "igammac",
        "random_gamma_grad",
        "regularized_incomplete_beta",
    ),
    *("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "integer_pow", "pow", "atan2", "zeta"),
    *("bessel_i0e", "bessel_i1e", "rem", "nextafter"),
)


def _arrays(pairs: Pairs, equation: Any, inputs: list[Any]) -> list[Domain]:
    """Inputs that depend on something, in the shape of the output."""
    shape = equation.outvars[0].aval.shape
    return [x.spread(shape) for x in inputs if isinstance(x, Domain)] or [empty(shape, pairs.size)]


def _linear(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    return union(_arrays(pairs, equation, inputs))


def _flat(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    return empty(equation.outvars[0].aval.shape, pairs.size)


def _nonlinear(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    found = union(_arrays(pairs, equation, inputs))
    pairs.within(found)
    return found


def _mul(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    arrays = _arrays(pairs, equation, inputs)
    if len(arrays) == 2:
        pairs.between(*arrays)
        return union(arrays)
    other = np.broadcast_to(np.asarray(inputs[1] if isinstance(inputs[0], Domain) else inputs[0]), arrays[0].shape)
    return arrays[0] if np.all(other != 0) else arrays[0].taken(np.where(other != 0, arrays[0].ids(), -1))


def _div(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    shape = equation.outvars[0].aval.shape
    above, below = (x.spread(shape) if isinstance(x, Domain) else None for x in inputs)
    if below is None:
        assert above is not None
        return above
    pairs.within(below)
    if above is not None:
        pairs.between(above, below)
        return union([above, below])
    return below


def _moved(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    """Operations that put elements elsewhere, seen by what they do to the elements' numbers."""
    domains = [x for x in inputs if isinstance(x, Domain)]
    starts = np.cumsum([0, *(x.count for x in domains)])
    numbers: list[tuple[Any, bool]] = []
    for x in inputs:
        if isinstance(x, Domain):
            numbers.append((starts[sum(is_domain for _, is_domain in numbers)] + x.ids(), True))
        else:
            array = np.asarray(x)
            numbers.append((np.full(array.shape, -1) if _is_element(equation, len(numbers)) else array, False))
    if any(isinstance(x, Domain) and not _is_element(equation, i) for i, x in enumerate(inputs)):
        whole = union([x.total() for x in domains])  # positions that are not known
        return whole.spread(equation.outvars[0].aval.shape)
    params = dict(equation.params)
    if "fill_value" in params:
        params["fill_value"] = -1
    found = equation.primitive.bind(*(array for array, _ in numbers), **params)
    joined = domains[0] if len(domains) == 1 else _joined(domains)
    if equation.primitive.multiple_results:
        return [joined.taken(np.asarray(each)) for each in found]
    return joined.taken(np.asarray(found))


def _joined(domains: list[Domain]) -> Domain:
    import scipy.sparse as sp

    rows = sp.csr_array(sp.vstack([x.rows for x in domains]), dtype=bool)
    return Domain((rows.shape[0],), rows)


ELEMENTS = {"gather": {0}, "dynamic_slice": {0}, "dynamic_update_slice": {0, 1}, "scatter": {0, 2}}
"""Inputs that hold elements and not positions; all, of other operations."""


def _is_element(equation: Any, place: int) -> bool:
    elements = ELEMENTS.get(equation.primitive.name)
    return elements is None or place in elements


def _select(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    which, *cases = inputs
    shape = equation.outvars[0].aval.shape
    arrays = [x.spread(shape) if isinstance(x, Domain) else empty(shape, pairs.size) for x in cases]
    if isinstance(which, Domain):
        return union(arrays)
    chosen = np.broadcast_to(np.asarray(which), shape).astype(int)
    count = math.prod(shape)
    return _joined(arrays).taken(chosen * count + np.arange(count).reshape(shape))


def _groups(shape: tuple[int, ...], axes: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """The element of the reduced array into which each element goes."""
    kept = tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    out = tuple(length for axis, length in enumerate(shape) if axis not in axes)
    return np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), shape).ravel(), out


def _reduce(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    (x,) = inputs
    groups, shape = _groups(x.shape, equation.params["axes"])
    return x.combined(_incidence(groups, np.arange(x.count), math.prod(shape), x.count), shape)


def _reduce_prod(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    found = _reduce(pairs, equation, inputs)
    pairs.within(found)
    return found


def _incidence(rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> Any:
    import scipy.sparse as sp

    return sp.csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(height, width))


def _cumulative(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    (x,) = inputs
    axis, length = equation.params["axis"], x.shape[equation.params["axis"]]
    if length**2 * (x.count // max(length, 1)) > MOST:
        raise TooMany
    first, second = np.tril_indices(length)
    lines = np.moveaxis(x.ids(), axis, 0).reshape(length, -1)
    if equation.params.get("reverse"):
        first, second = length - 1 - first, length - 1 - second
    found = x.combined(_incidence(lines[first].ravel(), lines[second].ravel(), x.count, x.count), x.shape)
    if equation.primitive.name != "cumsum":
        pairs.within(found)
    return found


def _dot(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    (contract_a, contract_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    shape = equation.outvars[0].aval.shape
    ids_a = _arranged(np.shape(inputs[0]), batch_a, contract_a, last=True)
    ids_b = _arranged(np.shape(inputs[1]), batch_b, contract_b, last=False)
    batch, rows, inner = ids_a.shape
    columns = ids_b.shape[2]
    out = np.arange(batch * rows * columns).reshape(batch, rows, columns)
    a, b = inputs
    found = []
    if isinstance(a, Domain):
        found.append(_contracted(a, ids_a, b, ids_b, out, shape))
    if isinstance(b, Domain):
        swapped = (np.swapaxes(ids, 1, 2) for ids in (ids_b, ids_a, out))
        ids_b2, ids_a2, out2 = swapped
        found.append(_contracted(b, ids_b2, a, ids_a2, out2, shape))
    if len(found) == 2:
        place = np.arange(batch * inner).reshape(batch, 1, inner)
        ends = (_incidence(_like(place, ids_a), ids_a.ravel(), batch * inner, a.count), (batch * inner,))
        place_b = np.swapaxes(place, 1, 2)
        other = (_incidence(_like(place_b, ids_b), ids_b.ravel(), batch * inner, b.count), (batch * inner,))
        pairs.between(a.combined(*ends), b.combined(*other))
    return union(found)


def _like(place: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.broadcast_to(place, ids.shape).ravel()


def _arranged(shape: tuple[int, ...], batch: Any, contract: Any, last: bool) -> np.ndarray:
    """Numbers of the elements, as [batch, free, contracted], or [batch, contracted, free]."""
    free = [axis for axis in range(len(shape)) if axis not in (*batch, *contract)]
    order = [*batch, *free, *contract] if last else [*batch, *contract, *free]
    lengths = [math.prod(shape[axis] for axis in axes) for axes in (batch, free, contract)]
    ids = np.arange(math.prod(shape)).reshape(shape).transpose(order)
    return ids.reshape(lengths if last else [lengths[0], lengths[2], lengths[1]])


def _contracted(a: Domain, ids_a: np.ndarray, b: Any, ids_b: np.ndarray, out: np.ndarray, shape: Any) -> Domain:
    """The outputs on the elements of `a` with which they are sums, where `b` is not known to be zero."""
    batch, rows, inner = ids_a.shape
    columns = ids_b.shape[2]
    if isinstance(b, Domain):
        # All outputs of a row are on all of the row of `a`: one line for the row, taken for each column.
        lines = np.arange(batch * rows).reshape(batch, rows, 1)
        whole = a.combined(_incidence(_like(lines, ids_a), ids_a.ravel(), batch * rows, a.count), (batch * rows,))
        order = np.empty(out.size, int)
        order[out.ravel()] = np.broadcast_to(lines, (batch, rows, columns)).ravel()
        return whole.taken(order.reshape(shape))
    at = np.argwhere(np.asarray(b).ravel()[ids_b] != 0)
    if len(at) * rows > MOST:
        raise TooMany
    n, k, j = at.T
    return a.combined(_incidence(out[n, :, j].ravel(), ids_a[n, :, k].ravel(), out.size, a.count), shape)


def _scatter_add(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    operand, indices, updates = inputs
    shape = equation.outvars[0].aval.shape
    found = [operand] if isinstance(operand, Domain) else [empty(shape, pairs.size)]
    if not isinstance(updates, Domain):
        return found[0] if not isinstance(indices, Domain) else None
    if isinstance(indices, Domain):
        return union([*found, updates.total().spread(shape)])
    numbers = equation.params["dimension_numbers"]
    window = iter(updates.shape[axis] for axis in numbers.update_window_dims)
    fixed = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    gather = jax.lax.GatherDimensionNumbers(
        offset_dims=numbers.update_window_dims,
        collapsed_slice_dims=numbers.inserted_window_dims,
        start_index_map=numbers.scatter_dims_to_operand_dims,
        operand_batching_dims=numbers.operand_batching_dims,
        start_indices_batching_dims=numbers.scatter_indices_batching_dims,
    )
    sizes = tuple(1 if axis in fixed else next(window) for axis in range(len(shape)))
    ids = np.arange(math.prod(shape)).reshape(shape)
    mode = equation.params.get("mode")
    goes = np.asarray(jax.lax.gather(ids, np.asarray(indices), gather, sizes, mode=_mode(mode), fill_value=-1)).ravel()
    inside = goes >= 0
    where = _incidence(goes[inside], np.flatnonzero(inside), math.prod(shape), updates.count)
    return union([*found, updates.combined(where, shape)])


def _mode(mode: Any) -> Any:
    return jax.lax.GatherScatterMode.FILL_OR_DROP if mode is None else mode


def _cholesky(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    """Matrix by matrix."""
    (x,) = inputs
    each = math.prod(x.shape[-2:])
    lines = np.arange(x.count) // max(each, 1)
    whole = x.combined(
        _incidence(lines, np.arange(x.count), x.count // max(each, 1), x.count), (x.count // max(each, 1),)
    )
    pairs.within(whole)
    return whole.taken(lines.reshape(x.shape))


def _triangular_solve(pairs: Pairs, equation: Any, inputs: list[Any]) -> Any:
    """Each right-hand side on itself and on its whole matrix; linear in the former."""
    matrix, right = inputs
    shape = equation.outvars[0].aval.shape
    ids = np.arange(math.prod(shape)).reshape(shape)
    left = equation.params["left_side"]
    batch, (height, width) = math.prod(shape[:-2]), shape[-2:]
    sides, each = (width, height) if left else (height, width)
    numbers = np.arange(batch * sides).reshape(*shape[:-2], *((1, width) if left else (height, 1)))
    line = np.broadcast_to(numbers, shape)
    found = []
    if isinstance(right, Domain):
        where = _incidence(line.ravel(), ids.ravel(), batch * sides, right.count)
        found.append(right.combined(where, (batch * sides,)))
    if isinstance(matrix, Domain):
        size = each * each
        places = np.arange(matrix.count) // max(size, 1)
        whole = matrix.combined(_incidence(places, np.arange(matrix.count), batch, matrix.count), (batch,))
        found.append(whole.taken(np.arange(batch * sides) // max(sides, 1)))
        pairs.within(whole)
        if len(found) == 2:
            pairs.between(*found)
    return union(found).taken(line)


RULES: dict[str, Rule] = {
    **dict.fromkeys((*LINEAR, *LINEAR_PAIRS), _linear),
    **dict.fromkeys(FLAT, _flat),
    **dict.fromkeys(NONLINEAR, _nonlinear),
    **dict.fromkeys(
        (
            *(
                "broadcast_in_dim",
                "reshape",
                "transpose",
                "squeeze",
                "expand_dims",
                "slice",
                "rev",
                "concatenate",
                "pad",
            ),
            *("gather", "dynamic_slice", "dynamic_update_slice", "scatter", "split", "stack", "unstack", "tile"),
        ),
        _moved,
    ),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _reduce),
    **dict.fromkeys(("cumsum", "cumprod", "cumlogsumexp", "cummax", "cummin"), _cumulative),
    "mul": _mul,
    "div": _div,
    "select_n": _select,
    "reduce_prod": _reduce_prod,
    "dot_general": _dot,
    "scatter-add": _scatter_add,
    "scatter_add": _scatter_add,
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
}
