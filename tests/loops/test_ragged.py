"""Padding: every row where it was, no other row in a sum, few lengths, and errors that name the data set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.loops import ragged


def some(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(n, 2)), "y": rng.poisson(3, size=n), "scale": rng.gamma(2.0)} for n in sizes]


def log_density(z, datum):
    """Infinite, with a gradient of NaN, where a row of zeros is not left out: the logarithm of x[:, 0]^2."""
    x, y = datum.data["x"], datum.data["y"]
    rate = jnp.log(x[:, 0] ** 2) * z[0] + x[:, 1] / z[1]
    return elbojax.masked_sum(y * rate - jnp.exp(0.1 * rate), datum.mask) - z @ z / datum.data["scale"]


one = jax.jit(jax.value_and_grad(log_density))
many = jax.jit(jax.vmap(jax.value_and_grad(log_density), in_axes=(None, 0)))


@pytest.mark.parametrize("seed", range(3))
def test_log_density_and_gradient_are_those_of_the_data(seed):
    sizes = np.random.default_rng(seed).permutation([1, 2, 5, 7, 9, 40, 41, 130])
    datasets, z = some(sizes, seed), jnp.array([0.4, 1.3])
    for padded, models in elbojax.pad_ragged(datasets, num_buckets=4):
        found = many(z, padded)
        for place, model in enumerate(models):
            alone = elbojax.loops.Padded(datasets[model], np.ones(sizes[model], bool))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(one(z, alone)), strict=True):
                np.testing.assert_allclose(a[place], b, rtol=1e-13, atol=1e-12)


def test_every_row_is_where_it_was_and_no_other_counts():
    sizes = [3, 0, 17, 1, 64, 5, 0, 33]
    datasets = some(sizes)
    seen = []
    for padded, models in elbojax.pad_ragged(datasets, num_buckets=4):
        assert list(models) == sorted(models)
        for place, model in enumerate(models):
            seen.append(model)
            assert padded.mask[place].sum() == sizes[model]
            for name in ("x", "y"):
                np.testing.assert_array_equal(padded.data[name][place][padded.mask[place]], datasets[model][name])
                filler = padded.data[name][place][~padded.mask[place]]
                own = datasets[model][name][:1] if sizes[model] else datasets[0][name][:1]
                np.testing.assert_array_equal(filler, np.broadcast_to(own, filler.shape))
            assert padded.data["scale"][place] == datasets[model]["scale"]
        assert padded.data["y"].dtype == datasets[0]["y"].dtype
    assert sorted(seen) == list(range(len(sizes)))


def test_a_data_set_without_rows_borrows_one_without_nan():
    first, second = some([2, 3])
    first["x"][0, 1] = np.nan
    (bucket,) = elbojax.pad_ragged([{"x": [], "y": [], "scale": 1.0}, first, second], num_buckets=1)
    np.testing.assert_array_equal(bucket.padded.data["x"][0], np.broadcast_to(first["x"][1], (3, 2)))
    np.testing.assert_array_equal(bucket.padded.data["x"][2], second["x"])
    assert bucket.padded.data["y"].dtype == first["y"].dtype and not bucket.padded.mask[0].any()
    (alone,) = elbojax.pad_ragged([np.zeros((0, 2)), np.zeros((0, 2))])
    assert alone.padded.data.shape == (2, 1, 2) and not alone.padded.mask.any()


def test_data_sets_of_one_length_are_not_padded():
    datasets = some([13] * 4)
    (bucket,) = elbojax.pad_ragged(datasets)
    assert bucket.padded.mask.shape == (4, 13) and bucket.padded.mask.all()
    np.testing.assert_array_equal(bucket.padded.data["x"], np.stack([d["x"] for d in datasets]))


@pytest.mark.parametrize("seed", range(3))
def test_each_length_pays(seed, monkeypatch):
    sizes = np.random.default_rng(seed).lognormal(4, 1.5, size=200).astype(int)
    found = {most: elbojax.pad_ragged([np.zeros(n) for n in sizes], num_buckets=most) for most in (1, 3, 100, None)}
    rows = {most: sum(bucket.padded.mask.size for bucket in each) for most, each in found.items()}
    assert [len(found[most]) for most in (1, 3)] == [1, 3]
    assert len(found[100]) == len({ragged._rounded(int(n)) for n in sizes})
    assert sizes.sum() < rows[100] < 1.5 * sizes.sum() and rows[100] < rows[3] < rows[1]
    for worth in (100, 2000, 10**9):
        monkeypatch.setattr(ragged, "WORTH", worth)
        buckets = elbojax.pad_ragged([np.zeros(n) for n in sizes])
        counts, lengths = zip(*[bucket.padded.mask.shape for bucket in buckets], strict=True)
        assert all(n * (high - low) >= worth for n, low, high in zip(counts, lengths, lengths[1:], strict=False))
        assert 1 < len(buckets) < len(found[100]) or worth == 10**9 and len(buckets) == 1
    # Of two merges the one is made that pads less.
    lengths = [b.padded.mask.shape[1] for b in elbojax.pad_ragged([np.zeros(n) for n in (4, 6, 64)], num_buckets=2)]
    assert lengths == [6, 64]


def test_lengths_are_few_whatever_the_sizes():
    rounded = [ragged._rounded(n) for n in range(1, 2000)]
    assert all(n <= r < 1.5 * n + 1 for n, r in enumerate(rounded, 1)) and sorted(set(rounded))[:8] == [
        1,
        2,
        3,
        4,
        6,
        8,
        12,
        16,
    ]
    assert ragged._rounded(0) == 1


def test_masked_sum_of_any_rank_and_without_rows():
    values = jnp.arange(6.0).reshape(3, 2)
    assert elbojax.masked_sum(values, jnp.array([True, False, True])) == 0 + 1 + 4 + 5
    assert elbojax.masked_sum(values.at[1].set(jnp.nan), jnp.array([True, False, True])) == 10
    assert elbojax.masked_sum(values, jnp.zeros(3, bool)) == 0
    with pytest.raises(ValueError, match=r"mask \(2,\), got shape \(3, 2\)"):
        elbojax.masked_sum(values, jnp.ones(2, bool))


@pytest.mark.parametrize(
    ("datasets", "error", "match"),
    [
        ([], ValueError, "empty"),
        (np.zeros((3, 4)), TypeError, "list of pytrees.*ndarray"),
        ([{"x": [1.0]}, {"z": [1.0]}], ValueError, r"datasets\[1\] must be a pytree like"),
        ([{"x": [1.0], "y": [1.0, 2.0]}], ValueError, r"datasets\[0\]\['x'\] has 1, datasets\[0\]\['y'\] has 2"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], ValueError, r"datasets\[1\] must have shape \[N, 3\].*\(2, 4\)"),
        ([(1.0, [2.0]), ([1.0], [2.0])], ValueError, r"datasets\[1\]\[0\] must be a scalar"),
        ([1.0, 2.0], ValueError, r"datasets\[0\] must have an array.*scalars only"),
        ([{}, {}], ValueError, "no leaves"),
    ],
)
def test_misuse_names_the_data_set(datasets, error, match):
    with pytest.raises(error, match=match):
        elbojax.pad_ragged(datasets)


def test_at_least_one_bucket():
    with pytest.raises(ValueError, match="num_buckets.*0"):
        elbojax.pad_ragged([[1.0]], num_buckets=0)
