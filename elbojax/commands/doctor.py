"""`python -m elbojax doctor`: what is installed, on what it runs, and whether a fit comes out right."""

import argparse
import importlib.metadata
import platform
import time

HELP = "versions, devices, precision, extras, and a fit whose answer is known"
NEEDED = ("jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "threadpoolctl", "tqdm", "numpy")
EXTRAS = {
    "interop": ("numpyro", "blackjax", "flowjax", "arviz-base", "arviz-stats", "funsor"),
    "examples": ("arch", "matplotlib", "scikit-image", "scikit-learn"),
    "PyMC": ("pymc",),
    "Stan": ("stanli", "bridgestan"),
}
TOLERANCE = 0.05
"""Standard deviations by which the means may differ from those known, and share by which the sds may. The fit of the
self-test errs by 0.01."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes: nothing."""


def run(arguments: argparse.Namespace) -> int:
    """Print what there is; the exit code is 1 where something needed is missing or the fit is wrong."""
    import jax
    import jax.numpy as jnp

    missing = [name for name in NEEDED if _version(name) is None]
    print(
        f"elbojax {_version('elbojax') or 'not installed'}, Python {platform.python_version()}, {platform.platform()}"
    )
    print("  needed     " + ", ".join(f"{name} {_version(name) or 'MISSING'}" for name in NEEDED))
    for extra, names in EXTRAS.items():
        there = ", ".join(f"{name} {_version(name) or '-'}" for name in names)
        print(f"  {extra:<10} {there}")
    print(
        "  devices    " + ", ".join(f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices())
    )
    x64 = bool(jax.config.read("jax_enable_x64"))
    print(f"  precision  {jnp.result_type(float)} outside of fits, float64 within them; jax_enable_x64 is {x64}")
    error = self_test()
    right = error < TOLERANCE
    print(f"  self-test  {'right' if right else 'WRONG'}: means and sds within {error:.3f} of those known{_seconds()}")
    return int(bool(missing) or not right)


_TOOK: list[float] = []


def _seconds() -> str:
    return "".join(f", {what} {seconds:.2f} s" for what, seconds in zip(("first fit", "second"), _TOOK, strict=False))


def self_test() -> float:
    """The largest error of two fits of a normal regression, in sds, or of an sd, relative."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from elbojax.cascade import fit

    x = np.linspace(-1, 1, 20)
    y = 1 + 2 * x + 0.3 * np.sin(7 * np.arange(20))
    design = np.stack([np.ones_like(x), x], axis=1)
    covariance = np.linalg.inv(np.eye(2) + design.T @ design / 0.09)
    mean, sd = covariance @ design.T @ y / 0.09, np.sqrt(np.diag(covariance))

    def log_density(z, data):
        x, y = data
        return -0.5 * jnp.sum(((y - z[0] - z[1] * x) / 0.3) ** 2) - 0.5 * jnp.sum(z**2)

    _TOOK.clear()
    worst = 0.0
    for seed in range(2):
        start = time.perf_counter()
        found = fit(jax.random.key(seed), log_density, np.zeros(2), data=(x, y))
        _TOOK.append(time.perf_counter() - start)
        off = [np.max(np.abs(found.mean() - mean) / sd), np.max(np.abs(found.sd() / sd - 1))]
        worst = max(worst, *map(float, off), 0.0 if found.certificate.certified else np.inf)
    return worst


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
