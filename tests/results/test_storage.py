"""Files: every fit comes back as it was, bit by bit; what is not such a file is refused; the old file outlives a crash."""

import collections
import json
import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import made

import elbojax
from elbojax import former
from elbojax.results import storage

D = made.SIZE
EYE = np.eye(D)


def gaussian():
    return elbojax.full_rank(jnp.arange(float(D)), jnp.asarray(EYE + np.tri(D, k=-1)))


FAMILIES = {
    "full_rank": gaussian,
    "mean_field": lambda: elbojax.mean_field(jnp.zeros(D), 2.0),
    "low_rank": lambda: elbojax.low_rank(jnp.zeros(D), jnp.ones((D, 2)), 0.5),
    "student_t": lambda: elbojax.student_t(jnp.zeros(D), jnp.asarray(EYE), df=7),
    "tailed": lambda: elbojax.families.with_student_t_tails(
        elbojax.low_rank(jnp.zeros(D), jnp.ones((D, 2)), 0.5), df=9
    ),
    "mixture": lambda: elbojax.mixture(jnp.array([0.0, 1.0]), [gaussian(), gaussian()]),
    "particles": lambda: elbojax.families.particles(jnp.ones((5, D)), 0.3),
    "blocks": lambda: elbojax.blocks(
        elbojax.mean_field(jnp.zeros(3), 1.0), elbojax.student_t(jnp.zeros(4), jnp.eye(4))
    ),
    "product": lambda: elbojax.families.product({"a": gaussian(), "b": (gaussian(),)}),
    "banded": lambda: elbojax.families.BandedPrecision(jnp.zeros(D), jnp.zeros(D), jnp.ones((2, D))),
    "gaussian_chain": lambda: elbojax.gaussian_chain(jnp.zeros((1, D)), jnp.asarray(EYE), jnp.zeros((0, D, D))),
    "funnel": lambda: elbojax.families.Funnel(
        jnp.arange(4.0), jnp.zeros(4), jnp.ones((4, D - 1)), jnp.zeros((4, D - 1)), jnp.ones((4, D - 1, D - 1)), EYE, 6
    ),
}


def same(a, b):
    """Equal leaves of equal dtypes, and equal everything else that a fit holds."""
    assert jax.tree.structure((a.q, a.moments)) == jax.tree.structure((b.q, b.moments))
    assert a.target.constrain == b.target.constrain and a.target.names == b.target.names and a.note == b.note
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.asarray(x).dtype == jnp.asarray(y).dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.npz"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "fit.npz"
    made.fit(gaussian()).save(path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back(family, path):
    fit = made.fit(FAMILIES[family](), note="a note: ± ü")
    fit.save(path)
    held = elbojax.load(path)
    same(held, fit)
    assert held.certificate.status is elbojax.Status.CONVERGED and held.certificate.certified is True
    assert str(held) == str(fit)


def test_all_families_of_a_file_have_names_of_their_own():
    classes = [type(make()) for make in FAMILIES.values()]
    assert len(set(classes)) == len(FAMILIES)
    assert all(storage._classes()[kind.__name__] is kind for kind in classes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_comes_back_in_its_precision(dtype, path):
    q = jax.vmap(lambda x: elbojax.full_rank(x * jnp.ones(D, dtype), jnp.asarray(EYE, dtype)))(
        jnp.arange(3.0, dtype=dtype)
    )
    fits = made.fit(q, models=3, dtype=dtype, moments=True, khat=np.array([0.1, np.nan, np.inf]))
    fits.save(str(path))
    held = elbojax.load(str(path))
    same(held, fits)
    assert held.draws.dtype == dtype and len(held) == 3
    same(held[1], fits[1])
    key = jax.random.key(3)
    jax.tree.map(np.testing.assert_array_equal, held.sample(key, 10), fits.sample(key, 10))


def test_what_was_double_is_single_outside_where_the_session_is(saved):
    with jax.enable_x64(False):
        held = elbojax.load(saved)
        assert held.q.loc.dtype == held.mean()["b"]["tau"].dtype == np.float32
        assert held.sample(jax.random.key(0), 3)["a"].dtype == np.float32
        assert held.draws.dtype == held.log_weights.dtype == np.float64


def test_the_log_density_comes_back_with_its_function(saved):
    flat = jnp.linspace(-1.0, 1.0, D)
    fit = made.fit(gaussian())
    held = elbojax.load(saved, made.log_density, made.INIT, made.SUPPORT)
    assert held.target == fit.target
    assert held.target.log_density(flat, 2.0) == fit.target.log_density(flat, 2.0)
    with pytest.raises(ValueError, match="without its log-density"):
        elbojax.load(saved).target.log_density(flat, 2.0)


@pytest.mark.parametrize(
    ("init", "support", "match"),
    [
        ({"b": {"tau": 1.0}, "a": np.zeros((2, 3)), "w": np.ones(3)}, None, r"init is not that of.*\(2, 3\)"),
        ({"b": {"rho": 1.0}, "a": np.zeros((2, 2)), "w": np.ones(3)}, None, "init is not that of.*rho"),
        (None, {"b": {"tau": "positive"}}, r"wanted init\['w'\].*got finite"),
        (
            made.INIT,
            {"b": {"tau": elbojax.bijectors.lower_bounded(0.5)}, "w": "simplex"},
            r"wanted init\['b'\]\['tau'\]",
        ),
    ],
)
def test_another_model_is_refused(saved, init, support, match):
    with pytest.raises(ValueError, match=match):
        elbojax.load(saved, init=init, support=support)


def test_bijectors_with_numbers_of_their_own(path):
    support = {
        "a": elbojax.bijectors.interval(-1.0, np.array([1.0, 2.0])),
        "b": {"tau": elbojax.bijectors.chain(elbojax.bijectors.positive(), elbojax.bijectors.affine(1.0, 2.0))},
    }
    init = made.INIT | {"b": {"tau": 2.0}}
    fit = made.fit(elbojax.mean_field(jnp.zeros(8), 1.0), init=init, support=support)
    fit.save(path)
    same(elbojax.load(path), fit)
    with pytest.raises(ValueError, match="support is not that of"):
        elbojax.load(path, support=support | {"a": elbojax.bijectors.interval(-1.0, np.array([1.0, 3.0]))})


Point = collections.namedtuple("Point", ["x", "y"])


def test_containers_and_bijectors_that_are_not_ours(path):
    class Cubed(elbojax.bijectors.Real):
        def __str__(self):
            return "cubed"

    jax.tree_util.register_dataclass(Cubed, data_fields=[], meta_fields=[])
    init, support = Point(1.0, np.zeros(2)), Point("positive", Cubed())
    fit = made.fit(elbojax.mean_field(jnp.zeros(3), 1.0), init=init, support=support)
    fit.save(path)
    with pytest.raises(ValueError, match="needs init"):
        elbojax.load(path)
    with pytest.raises(ValueError, match=r"needs support: that of init\.y, cubed"):
        elbojax.load(path, init=init)
    same(elbojax.load(path, init=init, support=support), fit)


def test_a_family_that_is_not_ours_is_refused_and_nothing_is_written(path):
    @elbojax.families.family
    class Foreign(elbojax.families.MeanField):
        pass

    path.write_text("what was there")
    with pytest.raises(TypeError, match="Foreign cannot be stored"):
        made.fit(Foreign(jnp.zeros(D), jnp.zeros(D))).save(path)
    assert path.read_text() == "what was there" and os.listdir(path.parent) == ["fit.npz"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_cut_off_is_refused(saved, path, share):
    whole = saved.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="no saved fit, or a damaged one"):
        elbojax.load(path)


def test_a_damaged_file_is_refused(saved, path):
    whole = bytearray(saved.read_bytes())
    draws = made.fit(gaussian()).draws
    place = whole.index(np.asarray(draws).tobytes()[:64])
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged one.*CRC"):
        elbojax.load(path)


def test_what_is_no_fit_is_refused(path):
    with pytest.raises(FileNotFoundError):
        elbojax.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match="no saved fit"):
        elbojax.load(path)
    np.savez(path, header=np.array([print], object))  # a pickle
    with pytest.raises(ValueError, match="no saved fit.*allow_pickle=False"):
        elbojax.load(path)


def rewrite(source, path, change):
    """The same file with another header."""
    with np.load(source) as held:
        arrays = dict(held)
    header = json.loads(arrays.pop("header").tobytes())
    change(header)
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def test_a_newer_format_is_refused(saved, path):
    rewrite(saved, path, lambda header: header.update(format=storage.FORMAT + 1, elbojax="9.9", contents="?"))
    with pytest.raises(
        ValueError, match=rf"format {storage.FORMAT + 1}, written by elbojax 9.9.*up to format {storage.FORMAT}"
    ):
        elbojax.load(path)


def test_a_file_names_nothing_but_families_and_bijectors(saved, path):
    for name in ("Popen", "Fit", "Unheard"):
        rewrite(saved, path, lambda header, name=name: header["contents"]["q"].update(object=name))
        with pytest.raises(ValueError, match=f"not understood.*{name}"):
            elbojax.load(path)


def test_other_fields_are_refused(saved, path):
    rewrite(saved, path, lambda header: header["contents"]["certificate"]["dict"].pop("khat"))
    with pytest.raises(ValueError, match="not understood.*khat"):
        elbojax.load(path)
    rewrite(saved, path, lambda header: header["contents"]["q"]["fields"].pop("loc"))
    with pytest.raises(ValueError, match="not understood.*loc"):
        elbojax.load(path)


def test_a_crash_leaves_the_old_file(saved, path, monkeypatch):
    path.write_bytes(saved.read_bytes())

    def torn(file, **arrays):
        file.write(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(OSError, match="no space"):
        made.fit(FAMILIES["particles"]()).save(path)
    monkeypatch.undo()
    assert os.listdir(path.parent) == ["fit.npz"]
    same(elbojax.load(path), made.fit(gaussian()))


def test_the_file_is_an_ordinary_archive(saved):
    assert zipfile.ZipFile(saved).testzip() is None
    with np.load(saved, allow_pickle=False) as held:
        header = json.loads(held["header"].tobytes())
    assert header["elbojax"] == elbojax.__version__ and header["contents"]["q"]["object"] == "FullRank"


def test_chains_are_held(path):
    made.fit(gaussian(), stage=elbojax.Stage.NUTS, chains=8).save(path)
    assert elbojax.load(path).chains == 8
    made.fit(gaussian(), stage=elbojax.Stage.NUTS).save(path)  # as earlier versions wrote it
    assert elbojax.load(path).chains == 4
    made.fit(gaussian()).save(path)
    assert elbojax.load(path).chains == 1


def test_pickles_of_other_versions():
    fit = made.fit(gaussian())
    again = pickle.loads(pickle.dumps(fit))
    same(again, fit)
    older = object.__new__(elbojax.Fit)
    older.__setstate__({name: value for name, value in vars(fit).items() if name not in ("model", "chains")})
    assert older.model is None and older.chains == 1
    with pytest.raises(ValueError, match=r"another version of elbojax than .*: it lacks target.*Fit again"):
        older.__setstate__({name: value for name, value in vars(fit).items() if name != "target"})
    with pytest.raises(ValueError, match="it has weights"):
        older.__setstate__(vars(fit) | {"weights": 1})
    assert np.isnan(elbojax.Certificate(*fit.certificate[:-1]).sd_error)


def test_pickles_that_name_modules_which_have_moved():
    fit = made.fit(gaussian())
    now = pickle.dumps(fit, protocol=2)
    for name in ("fit", "certificate"):
        assert f"celbojax.results.{name}\n".encode() in now
    old = now.replace(b"celbojax.results.fit\n", b"celbojax.cascade.posterior\n")
    same(pickle.loads(old.replace(b"celbojax.results.certificate\n", b"celbojax.cascade.certificate\n")), fit)


@pytest.mark.parametrize(("old", "new"), [pair for pair in former.RENAMED.items() if pair[0][0].isupper()])
def test_files_name_classes_that_were_renamed(old, new, tmp_path):
    if not hasattr(elbojax.families, new):
        pytest.skip(f"{new} is no family, and in no file")
    fit = made.fit(elbojax.families.with_student_t_tails(gaussian(), df=5))
    fit.save(tmp_path / "fit.npz")
    rewrite(tmp_path / "fit.npz", tmp_path / "old.npz", lambda header: renamed(header["contents"]["q"], new, old))
    storage.seal(tmp_path / "old.npz")
    same(elbojax.load(tmp_path / "old.npz"), fit)


def renamed(node, new, old):
    assert node["object"] == new
    node["object"] = old
