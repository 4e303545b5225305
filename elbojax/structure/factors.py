r"""Factors of sparse precision matrices on the host: what a Gaussian of many coordinates is drawn from and whitened with.

The coordinates that touch many others are a dense border, eliminated last; the rest is diagonal, a band, or of any pattern:

.. math:: P = \begin{pmatrix} A & C \\ C^\top & B \end{pmatrix}, \qquad
          S = B - C^\top A^{-1} C, \qquad
          \log\det P = \log\det A + \log\det S

Two crossed factors of effects are a diagonal A (the larger one) and a dense Schur complement S (the smaller one). The kind of A
is that whose factor costs least to solve with.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from elbojax.structure.parts import components, hubs

BLOCK = 32
"""Least size of the blocks of a band: those of one coordinate take a turn of Python each. Unmeasured."""
SLOW = 8.0
"""Time of a multiplication with a sparse triangle, in those of a product of dense blocks. A field of 100 x 100: 256 draws take
0.09 seconds with 200,000 numbers of SuperLU, 0.11 with 3,000,000 of a band."""
PLANAR = 3.0
"""Mean distance of a row's first entry from the diagonal, over the root of the size, up to which SuperLU is tried. It is one of a
square field; of a random graph with some neighbours each it is a third of the size, and all of it fills up: 40,000 coordinates
have not ended after minutes."""
MOST_NUMBERS = 6e7
"""Numbers of a factor, 480 MB, beyond which there is none: a dense one of 7,700 coordinates, a field of 600 x 600 as a band."""


class TooLarge(ValueError):
    """No factor of the pattern fits in memory."""


class Factor(Protocol):
    """L of P = L L'; vectors are [n, S], side by side."""

    def half_log_det(self) -> float:
        """Half the log-determinant of P."""

    def forward(self, b: np.ndarray) -> np.ndarray:
        """L^-1 b."""

    def backward(self, b: np.ndarray) -> np.ndarray:
        """L'^-1 b."""

    def raised(self, x: np.ndarray) -> np.ndarray:
        """L' x."""

    def variances(self) -> np.ndarray:
        """[n] diagonal of P^-1."""


class Diagonal:
    """The factor of a diagonal matrix.

    Args:
      matrix: `scipy.sparse` [n, n].
      layout: unread.
    """

    def __init__(self, matrix: Any, layout: "Layout") -> None:
        del layout
        own = matrix.diagonal()
        if not np.all(own > 0):
            raise np.linalg.LinAlgError("not positive definite")
        self._root = np.sqrt(own)[:, None]

    def half_log_det(self) -> float:
        """Half the log-determinant."""
        return float(np.sum(np.log(self._root)))

    def forward(self, b: np.ndarray) -> np.ndarray:
        """L^-1 b."""
        return b / self._root

    def backward(self, b: np.ndarray) -> np.ndarray:
        """L'^-1 b."""
        return b / self._root

    def raised(self, x: np.ndarray) -> np.ndarray:
        """L' x."""
        return self._root * x

    def variances(self) -> np.ndarray:
        """[n] diagonal of the inverse."""
        return 1 / self._root[:, 0] ** 2


class Band:
    """The factor of a band, as a block-bidiagonal matrix.

    Args:
      matrix: `scipy.sparse` [n, n], in the order that makes the band narrow.
      layout: that has the size of the blocks.
    """

    def __init__(self, matrix: Any, layout: "Layout") -> None:
        import scipy.linalg as sl
        import scipy.sparse as sp

        size, block = matrix.shape[0], layout.block
        self._size, self._steps = size, -(-size // block)
        room = self._steps * block
        entries = sp.coo_array(matrix)
        step, i = np.divmod(entries.row, block)
        before, j = np.divmod(entries.col, block)
        own, below = np.zeros((self._steps, block, block)), np.zeros((self._steps, block, block))
        same, next_ = step == before, step == before + 1
        own[step[same], i[same], j[same]] = entries.data[same]
        below[step[next_], i[next_], j[next_]] = entries.data[next_]
        last = np.arange(size, room) - (room - block)
        own[-1, last, last] = 1.0
        self._tril, self._below = np.zeros_like(own), np.zeros_like(below)
        for t in range(self._steps):
            pivot = own[t]
            if t:
                self._below[t] = sl.solve_triangular(self._tril[t - 1], below[t].T, lower=True, check_finite=False).T
                pivot = pivot - self._below[t] @ self._below[t].T
            self._tril[t] = np.linalg.cholesky(pivot)
        # With inverses of the small triangles a turn is two products, which run side by side for all vectors.
        unit = np.eye(block)
        self._inverse = np.stack([sl.solve_triangular(x, unit, lower=True, check_finite=False) for x in self._tril])

    def half_log_det(self) -> float:
        """Half the log-determinant."""
        return float(np.sum(np.log(np.diagonal(self._tril, axis1=1, axis2=2))))

    def forward(self, b: np.ndarray) -> np.ndarray:
        """L^-1 b."""
        b = self._blocks(b)
        found = np.empty_like(b)
        for t in range(self._steps):
            found[t] = self._inverse[t] @ (b[t] - self._below[t] @ found[t - 1] if t else b[t])
        return self._flat(found)

    def backward(self, b: np.ndarray) -> np.ndarray:
        """L'^-1 b."""
        b = self._blocks(b)
        found = np.empty_like(b)
        for t in reversed(range(self._steps)):
            ahead = t + 1 < self._steps
            found[t] = self._inverse[t].T @ (b[t] - self._below[t + 1].T @ found[t + 1] if ahead else b[t])
        return self._flat(found)

    def raised(self, x: np.ndarray) -> np.ndarray:
        """L' x."""
        x = self._blocks(x)
        found = np.swapaxes(self._tril, 1, 2) @ x
        found[:-1] += np.swapaxes(self._below[1:], 1, 2) @ x[1:]
        return self._flat(found)

    def variances(self) -> np.ndarray:
        """[n] diagonal of the inverse, from the entries of the inverse within the blocks."""
        found, covariance = np.empty(self._inverse.shape[:2]), np.zeros_like(self._inverse[0])
        unit = np.eye(len(covariance))
        for t in reversed(range(self._steps)):
            inner = unit if t + 1 == self._steps else unit + self._below[t + 1].T @ covariance @ self._below[t + 1]
            covariance = self._inverse[t].T @ inner @ self._inverse[t]
            found[t] = np.diagonal(covariance)
        return found.ravel()[: self._size]

    def _blocks(self, b: np.ndarray) -> np.ndarray:
        block = self._tril.shape[1]
        padded = np.zeros((self._steps * block, b.shape[1]))
        padded[: self._size] = b
        return padded.reshape(self._steps, block, -1)

    def _flat(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, x.shape[-1])[: self._size]


class General:
    """The factor of any sparse matrix, by SuperLU in an order of least degrees.

    Args:
      matrix: `scipy.sparse` [n, n].
      layout: unread.
    """

    def __init__(self, matrix: Any, layout: "Layout") -> None:
        import scipy.sparse as sp
        from scipy.sparse.linalg import spsolve_triangular

        del layout
        lu = _superlu(matrix)
        pivots = lu.U.diagonal()
        if not (np.all(pivots > 0) and np.array_equal(lu.perm_r, lu.perm_c)):
            raise np.linalg.LinAlgError("not positive definite")
        self._place = lu.perm_r
        self._tril = sp.csr_array(lu.L @ sp.diags_array(np.sqrt(pivots)))
        self._upper = sp.csr_array(self._tril.T)
        self._solve = spsolve_triangular

    def half_log_det(self) -> float:
        """Half the log-determinant."""
        return float(np.sum(np.log(self._tril.diagonal())))

    def forward(self, b: np.ndarray) -> np.ndarray:
        """L^-1 b."""
        moved = np.empty_like(b)
        moved[self._place] = b
        return self._solve(self._tril, moved, lower=True)

    def backward(self, b: np.ndarray) -> np.ndarray:
        """L'^-1 b."""
        return self._solve(self._upper, b, lower=False)[self._place]

    def raised(self, x: np.ndarray) -> np.ndarray:
        """L' x."""
        moved = np.empty_like(x)
        moved[self._place] = x
        return self._upper @ moved

    def variances(self) -> np.ndarray:
        """[n] diagonal of the inverse, by a solve for each coordinate, some at a time."""
        size = len(self._place)
        found = np.empty(size)
        for at in range(0, size, 256):
            unit = np.zeros((size, min(256, size - at)))
            unit[at + np.arange(unit.shape[1]), np.arange(unit.shape[1])] = 1.0
            found[at : at + 256] = np.sum(self.forward(unit) ** 2, axis=0)
        return found


def _superlu(matrix: Any) -> Any:
    import scipy.sparse as sp
    from scipy.sparse.linalg import splu

    try:
        return splu(
            sp.csc_matrix(matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError as error:  # exactly singular
        raise np.linalg.LinAlgError(str(error)) from None


class Layout(NamedTuple):
    """How matrices of one pattern are factored.

    Attributes:
      kind: of the factor of what is not the border, a key of `KINDS`.
      order: [n] coordinates that are not the border, in the order of the factor.
      border: [k] int.
      block: size of the blocks of a band.
      numbers: of the factor and of what goes with the border.
    """

    kind: str
    order: np.ndarray
    border: np.ndarray
    block: int
    numbers: float

    def __repr__(self) -> str:
        beside = f", Schur complement of {len(self.border):,}" if len(self.border) else ""
        return f"{self.kind} of {len(self.order):,}{beside}: {self.numbers:,.0f} numbers"


KINDS: dict[str, Callable[[Any, Layout], Factor]] = {"diagonal": Diagonal, "band": Band, "general": General}
"""To add one: a class, an entry here, and what it costs in `layout_of`."""


def layout_of(pattern: Any, border: np.ndarray | None = None) -> Layout:
    """The layout of least cost.

    Args:
      pattern: `scipy.sparse` [D, D] of bool, symmetric and with its diagonal.
      border: [k] int; None for the coordinates of highest degree whose removal costs least.

    Returns:
      A `Layout`.

    Raises:
      TooLarge: the smallest factor has more than `MOST_NUMBERS` numbers.
    """
    import scipy.sparse as sp

    size = pattern.shape[0]
    border = hubs(pattern, np.arange(size)) if border is None else np.sort(np.asarray(border, int))
    rest = np.setdiff1d(np.arange(size), border)
    found = components(pattern, rest)
    order = np.concatenate([*found.parts, np.zeros(0, int)]).astype(int)
    width = int(found.bandwidths.max(initial=0))
    block = max(width, min(BLOCK, max(len(order), 1)))
    costs = {"band": 3.0 * len(order) * block}  # numbers of the factor; each is used once a solve
    if width == 0:
        costs = {"diagonal": float(len(order))}
    elif width > BLOCK:
        inner = sp.csr_array(pattern[order][:, order], dtype=float)
        firsts = np.minimum.reduceat(inner.indices, inner.indptr[:-1])
        if np.mean(np.arange(len(order)) - firsts) <= PLANAR * np.sqrt(len(order)):
            # What fills up depends on the pattern alone: any numbers with a large diagonal show it.
            shown = sp.csc_array(inner + sp.diags_array(np.full(len(order), 4.0 * len(order))))
            costs["general"] = SLOW * 2.0 * _superlu(shown).L.nnz
    kind = min(costs, key=lambda name: costs[name])
    numbers = costs[kind] / (SLOW if kind == "general" else 1.0)
    coupled = float(pattern[order][:, border].nnz) if len(border) else 0.0
    filled = coupled if kind == "diagonal" else float(len(order) * len(border))
    numbers += 2 * filled + 2.0 * len(border) ** 2
    if numbers > MOST_NUMBERS:
        raise TooLarge(
            f"the factor of a precision matrix of {size:,} coordinates takes {8 * numbers / 1e9:,.1f} GB here, at most"
            f" {8 * MOST_NUMBERS / 1e9:.2g} are taken"
        )
    return Layout(kind, order, border, block, numbers)


class Precision:
    r"""A precision matrix with its factor; vectors are [S, D], one in each row.

    Draws come of standard normal numbers u by the inverse of the transposed factor; `pulled` takes gradients of a log-density to
    those with respect to u.

    Args:
      matrix: `scipy.sparse` [D, D], symmetric, of the layout's pattern; kept.
      layout: as `layout_of` has it.

    Raises:
      numpy.linalg.LinAlgError: the matrix is not positive definite.

    Example:
      >>> import numpy as np, scipy.sparse as sp
      >>> matrix = sp.csr_array(np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 3.0]]))
      >>> found = Precision(matrix, layout_of(matrix != 0, border=np.array([2])))
      >>> round(float(np.exp(2 * found.half_log_det())), 6), found.solve(np.eye(3))[2].round(6).tolist()
      (8.0, [-0.25, -0.25, 0.5])
    """

    def __init__(self, matrix: Any, layout: Layout) -> None:
        import scipy.linalg as sl
        import scipy.sparse as sp

        self.layout, self._size = layout, matrix.shape[0]
        order, border = layout.order, layout.border
        self.matrix = matrix = sp.csr_array(matrix)
        self._inner = KINDS[layout.kind](matrix[order][:, order], layout)
        self._num = len(order)
        self._weights: Any = np.zeros((self._num, 0))
        self._tril = np.zeros((0, 0))
        self._triangular = lambda b, trans: sl.solve_triangular(
            self._tril, b, lower=True, trans=trans, check_finite=False
        )
        if not len(border):
            return
        coupling = matrix[order][:, border]
        if layout.kind == "diagonal":
            self._weights = sp.csr_array(coupling.multiply(self._inner.variances()[:, None]))
            reduced = (coupling.T @ self._weights).toarray()
            if self._weights.nnz > 0.2 * self._weights.shape[0] * len(border):
                self._weights = self._weights.toarray()
        else:
            half = self._inner.forward(coupling.toarray())
            self._weights, reduced = self._inner.backward(half), half.T @ half
        schur = matrix[border][:, border].toarray() - reduced
        self._tril = np.linalg.cholesky(0.5 * (schur + schur.T))

    def half_log_det(self) -> float:
        """Half the log-determinant."""
        return self._inner.half_log_det() + float(np.sum(np.log(np.diagonal(self._tril))))

    def spread(self, noise: np.ndarray) -> np.ndarray:
        """Draws [S, D] of covariance P^-1 from standard normal numbers [S, D]."""
        u = noise.T
        beta = self._triangular(u[self._num :], "T")
        return self._joined(self._inner.backward(u[: self._num]) - self._weights @ beta, beta)

    def whitened(self, x: np.ndarray) -> np.ndarray:
        """[S, D], the inverse of `spread`."""
        inner, beta = self._parted(x)
        return np.concatenate([self._inner.raised(inner + self._weights @ beta), self._tril.T @ beta]).T

    def pulled(self, gradients: np.ndarray) -> np.ndarray:
        """[S, D], the transpose of `spread`."""
        inner, beta = self._parted(gradients)
        return np.concatenate([self._inner.forward(inner), self._triangular(beta - self._weights.T @ inner, "N")]).T

    def solve(self, b: np.ndarray) -> np.ndarray:
        """[S, D] the inverse of P by each row."""
        return self.spread(self.pulled(b))

    def variances(self) -> np.ndarray:
        """[D] diagonal of P^-1."""
        found = np.empty(self._size)
        found[self.layout.order] = self._inner.variances()
        if len(self.layout.border):
            covariance = self._triangular(self._triangular(np.eye(len(self._tril)), "N"), "T")
            found[self.layout.border] = np.diagonal(covariance)
            for at in range(0, self._num, 1024):
                some = self._weights[at : at + 1024]
                dense = some if isinstance(some, np.ndarray) else some.toarray()
                found[self.layout.order[at : at + 1024]] += np.sum((dense @ covariance) * dense, axis=1)
        return found

    def _parted(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x.T[self.layout.order], x.T[self.layout.border]

    def _joined(self, inner: np.ndarray, beta: np.ndarray) -> np.ndarray:
        found = np.empty((inner.shape[1], self._size))
        found[:, self.layout.order], found[:, self.layout.border] = inner.T, beta.T
        return found
