"""Stan models by BridgeStan, compiled by it or run by stanli, which needs no compiler."""

import ctypes
import functools
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from elbojax.calls import explained
from elbojax.inputs import what
from elbojax.interop.base import Model
from elbojax.types import Key, PyTree

LOG_LIKELIHOOD = re.compile(r"log_lik(_|$)|log_likelihood")
"""Names of generated quantities that hold log p(x_n | z), by the custom of Stan's users."""


@explained
def from_stan(
    model: Any = None,
    *,
    stan_file: str | os.PathLike[str] | None = None,
    stan_code: str | None = None,
    data: Mapping[str, Any] | str | None = None,
) -> Model:
    r"""A Stan program with its data, as a `Model` that `fit_model` takes.

    .. math:: \log p(x, z) + \log|\det J|, \quad z \text{ on Stan's unconstrained space}

    Parameters have their names, shapes and own space; transformed parameters are `fit.evaluate()`, generated quantities
    `fit.predict(key)`; those called log_lik are the log-likelihoods for `loo`. The log-density is asked point by point and
    not traced, so the fit cannot use its structure, nor `fit_model_batch` take it. stanli leaves out the constants of
    sampling statements (`y ~ normal(mu, 1)`): then the certificate's evidence is NaN.

    Args:
      model: a `bridgestan.StanModel`; or None, and a program.
      stan_file: path of a program, run by stanli.
      stan_code: the program itself.
      data: by name, or a JSON string, or None where the program has none.

    Returns:
      A `Model`.

    Raises:
      ModuleNotFoundError: bridgestan is not installed, or stanli, for a program.
      RuntimeError: JAX has used the processor's matrix unit (AMX) before the first program, and stanli's compiler cannot start.
      TypeError: none or several of model, file and code are given, or `model` is no StanModel.

    Example:
      >>> code = "parameters { real mu; real<lower=0> tau; } model { mu ~ normal(0, tau); tau ~ gamma(3, 1); }"
      >>> from_stan(stan_code=code)
      Model of Stan: parameters mu, tau; observed nothing

    References:
      Roualdes et al. 2023, BridgeStan, https://doi.org/10.21105/joss.05236
    """
    if sum(given is not None for given in (model, stan_file, stan_code)) != 1:
        raise TypeError("from_stan takes one of: a bridgestan.StanModel, stan_file=, stan_code=")
    if model is None:
        model = _by_stanli(stan_file, stan_code, data)
    if not all(hasattr(model, name) for name in ("log_density_gradient", "param_constrain", "param_unc_num")):
        raise TypeError(
            f"a bridgestan.StanModel is wanted, got {what(model)}; a program goes by name, stan_file= or stan_code="
        )
    density = StanDensity(model)
    columns = _Columns(model)
    generated = columns.names(generated=True)
    likely = [name for name in generated if LOG_LIKELIHOOD.match(name)]
    others = [name for name in generated if name not in likely]
    return Model(
        log_density=density,  # type: ignore[arg-type]
        init=np.zeros(density.size),
        simulate=_Generated(columns, others) if others else None,
        log_likelihood=_Quantities(columns, likely, generated=True) if likely else None,
        derived=_Quantities(columns, columns.names(transformed=True)) if columns.names(transformed=True) else None,
        natural=columns.natural,
        unconstrain=_Unconstrained(columns),
        parameters=tuple(columns.names()),
        normalised=density.normalised,
        library="Stan",
    )


def _by_stanli(stan_file: Any, stan_code: str | None, data: Any) -> Any:
    try:
        import bridgestan  # noqa: F401
        import stanli
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a Stan program needs stanli and bridgestan, and {error.name} is not installed: pip install 'elbojax[stan]'",
            name=error.name,
        ) from error
    _check_start()
    where = {"stan_file": os.fspath(stan_file)} if stan_file is not None else {"stan_code": stan_code}
    return stanli.bridgestan_model(**where, data=_plain(data))


MATRIX_UNIT = 18
"""Number of the state (AMX) that a process on Linux asks for before it multiplies matrices by that unit, as JAX does."""
PROBE = f"""
import ctypes, stanli
ctypes.CDLL(None).syscall(158, 0x1023, {MATRIX_UNIT})
stanli.bridgestan_model(stan_code="parameters {{ real m; }} model {{ m ~ normal(0, 1); }}", data={{}})
"""
"""A process that has asked for it, in which the compiler starts or does not."""


@functools.cache
def _check_start() -> None:
    """Raise before the first program where stanli's compiler would end the process.

    The runtime of stanli 0.24's compiler (OCaml's) makes a signal stack of 8 KiB when it starts, which Linux refuses to a process
    that has used the matrix unit of its processor, whose state is larger. Once started, it stays.
    """
    if not _has_matrix_unit():
        return
    if subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False).returncode < 0:
        raise RuntimeError(
            "stanli's compiler cannot start after JAX has multiplied matrices on this processor (AMX), and would end the"
            " process: call elbojax.from_stan, of any program, before the first computation by JAX; later ones then work"
        )


def _has_matrix_unit() -> bool:
    """Whether this process may use it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    allowed = ctypes.c_uint64(0)
    failed = ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(allowed))
    return not failed and bool(allowed.value >> MATRIX_UNIT & 1)


def _plain(data: Any) -> Any:
    """Data as JSON has them."""
    if data is None or isinstance(data, str):
        return json.loads(data) if isinstance(data, str) and not os.path.exists(data) else data or {}
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in data.items()}


class StanDensity:
    """The log-density of a Stan model on its unconstrained space, Jacobians included: a density object.

    Attributes:
      size: D.
      names: of the unconstrained numbers.
      normalised: whether constants are among it; without them there is no evidence.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.size = model, int(model.param_unc_num())
        self.names = tuple(f"{name} (unconstrained)" for name in model.param_unc_names())
        self.normalised = _keeps_constants(model, np.zeros(self.size))

    def value_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At points [B, D]; where Stan rejects one, the density is zero."""
        found = [self._at(np.ascontiguousarray(point, np.float64)) for point in points]
        return np.array([value for value, _ in found]), np.stack([gradient for _, gradient in found])

    def _at(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        try:
            value, gradient = self.model.log_density_gradient(point, propto=not self.normalised, jacobian=True)
        except RuntimeError:
            return -np.inf, np.zeros(self.size)
        return value, np.array(gradient)


def _keeps_constants(model: Any, point: np.ndarray) -> bool:
    """Whether the log-density can be had with the constants that Stan's ~ drops: stanli has it without alone.

    Raises:
      RuntimeError: by BridgeStan, where it cannot be asked at all.
    """
    try:
        model.log_density_gradient(point, propto=False, jacobian=True)
    except RuntimeError as error:
        return "propto" not in str(error)
    return True


class _Columns:
    """What Stan writes for a draw, by name and shape."""

    def __init__(self, model: Any) -> None:
        self.model = model
        count = [
            len(model.param_names(include_tp=tp, include_gq=gq))
            for tp, gq in ((False, False), (True, False), (True, True))
        ]
        self.words = model.param_names(include_tp=True, include_gq=True)
        self.ends = count

    def names(self, transformed: bool = False, generated: bool = False) -> list[str]:
        """Names of the parameters; or of the transformed ones; or of the generated quantities."""
        low, high = (self.ends[1], self.ends[2]) if generated else self.ends[:2] if transformed else (0, self.ends[0])
        return list(dict.fromkeys(word.split(".")[0] for word in self.words[low:high]))

    def arrays(self, rows: np.ndarray, wanted: list[str]) -> dict[str, np.ndarray]:
        """By name, with their shapes, of rows [S, columns] whose first index moves fastest within a variable."""
        found = {}
        for name in wanted:
            places = [at for at, word in enumerate(self.words[: rows.shape[1]]) if word.split(".")[0] == name]
            shape = tuple(int(n) for n in self.words[places[-1]].split(".")[1:])
            values = rows[:, places]
            found[name] = (
                values.reshape(len(rows), *shape[::-1]).transpose(0, *range(len(shape), 0, -1))
                if shape
                else values[:, 0]
            )
        return found

    def natural(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """The parameters in their own space, of unconstrained draws [S, D]."""
        rows = np.stack(
            [np.array(self.model.param_constrain(np.ascontiguousarray(draw, np.float64))) for draw in draws]
        )
        return self.arrays(rows, self.names())

    def free(self, positions: PyTree) -> np.ndarray:
        """Unconstrained numbers [S, D] of draws in the space of the parameters."""
        count = len(next(iter(positions.values())))
        rows = np.concatenate(
            [np.reshape(_first_fastest(positions[name]), (count, -1)) for name in self.names()], axis=1
        )
        return np.stack([np.array(self.model.param_unconstrain(row)) for row in np.ascontiguousarray(rows, np.float64)])

    def written(self, positions: PyTree, generated: bool, seed: int = 0) -> np.ndarray:
        """All columns [S, ...] of draws in the space of the parameters."""
        rng = self.model.new_rng(seed) if generated else None
        found = []
        for free in self.free(positions):
            found.append(np.array(self.model.param_constrain(free, include_tp=True, include_gq=generated, rng=rng)))
        return np.stack(found)


def _first_fastest(values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values.transpose(0, *range(values.ndim - 1, 0, -1))


class _Quantities:
    """Some of the columns, as a function of draws that runs on the host."""

    on_host = True

    def __init__(self, columns: _Columns, wanted: list[str], generated: bool = False) -> None:
        self.columns, self.wanted, self.generated = columns, wanted, generated

    def __call__(self, positions: PyTree, *rest: PyTree) -> dict[str, np.ndarray]:
        return self.columns.arrays(self.columns.written(positions, self.generated), self.wanted)


class _Unconstrained:
    """The parameters in Stan's unconstrained space."""

    on_host = True

    def __init__(self, columns: _Columns) -> None:
        self.columns = columns

    def __call__(self, positions: PyTree, *rest: PyTree) -> np.ndarray:
        return self.columns.free(positions)


class _Generated:
    """The generated quantities, drawn anew for each draw of the parameters."""

    on_host = True

    def __init__(self, columns: _Columns, wanted: list[str]) -> None:
        self.columns, self.wanted = columns, wanted

    def __call__(self, key: Key, positions: PyTree, *rest: PyTree) -> dict[str, np.ndarray]:
        seed = int(np.ravel(jax.random.key_data(key))[-1]) % (2**31)
        return self.columns.arrays(self.columns.written(positions, True, seed), self.wanted)
