"""The posteriors of the structured pack are those that it states; skipped where the pack is not here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.models import structured
from benchmarks.problem import of_model


@pytest.mark.parametrize("name", structured.NAMES)
def test_log_density_is_that_of_the_pack(name):
    try:
        model, said = structured.load(name), structured.check(name)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    values = []
    density = jax.jit(model.log_density)
    for point in (said["points"]["A"], said["points"]["B"]):
        position = {
            key: jnp.reshape(jnp.asarray(point[key], float), np.shape(start)) for key, start in model.init.items()
        }
        values.append(float(density(position, model.data)))
    assert values[1] - values[0] == pytest.approx(said["difference"], rel=1e-9, abs=1e-6)
    problem = of_model(model)
    assert problem.size == said["D"]
    value, slope = jax.jit(jax.value_and_grad(problem.density(model.data)))(problem.start)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_a_missing_pack_is_said(monkeypatch):
    monkeypatch.delenv(structured.VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="set ELBOJAX_STRUCTURED to its folder"):
        structured.load(structured.NAMES[0])
