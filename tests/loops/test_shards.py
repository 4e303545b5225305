"""Pieces of checkpoints: whole or not at all, and whatever happens to them the rest is of use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.loops import shards
from elbojax.loops.shards import Shards, fingerprint

ALL = slice(0, 10)


def rows(models):
    return [np.asarray(models, float), np.zeros((len(models), 0)), np.asarray(models) % 2 == 0]


def open_shards(folder, share=ALL, problem="problem"):
    return Shards(str(folder), problem, share)


def loaded(folder, share=ALL, stage="stage"):
    """Models of the share, with the numbers that were kept of each."""
    return {
        int(model): float(number)
        for models, (numbers, *_) in open_shards(folder, share).load(stage)
        for model, number in zip(models, numbers, strict=True)
    }


def folders(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_what_is_added_is_found_by_any_number_of_processes(tmp_path):
    for share in (slice(0, 4), slice(4, 10)):
        with open_shards(tmp_path, share) as mine:
            models = np.arange(share.stop - share.start)
            mine.add("stage", models[::2], rows(models[::2] + share.start))
            mine.flush()
            mine.add("stage", models[1::2], rows(models[1::2] + share.start))
    assert loaded(tmp_path) == {i: float(i) for i in range(10)}
    assert loaded(tmp_path, slice(3, 6)) == {0: 3.0, 1: 4.0, 2: 5.0}
    assert loaded(tmp_path, stage="other") == {}
    ((models, leaves), *_) = open_shards(tmp_path).load("stage")
    for found, wanted in zip(leaves, rows(models), strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype


def test_they_are_written_together_when_it_is_time(tmp_path, monkeypatch):
    with open_shards(tmp_path) as mine:
        for i in range(5):
            mine.add("stage", np.array([i]), rows([i]))
        assert folders(tmp_path) == []
        monkeypatch.setattr(shards, "SECONDS_BETWEEN", 0.0)
        mine.add("stage", np.array([5]), rows([5]))
        assert folders(tmp_path) == ["stage-000000000-000000005-000001"]
        monkeypatch.setattr(shards, "PART", 1e-9)  # what was just written took too long for the next to be due
        assert not mine.due


def test_the_last_two_of_what_changes_are_kept(tmp_path):
    with open_shards(tmp_path) as mine:
        for value in range(4):
            mine.replace("now", np.array([1, 2]), [np.full(2, value)])
        assert len(folders(tmp_path)) == 2 and loaded(tmp_path, stage="now") == {1: 3, 2: 3}
    (tmp_path / folders(tmp_path)[-1] / "arrays.npz").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="000004 is damaged"):
        assert loaded(tmp_path, stage="now") == {1: 2, 2: 2}
    other = open_shards(tmp_path, slice(2, 10))
    other.forget("now")
    assert len(folders(tmp_path)) == 1  # another process may need it
    open_shards(tmp_path).forget("now")
    assert folders(tmp_path) == []


@pytest.mark.parametrize("damage", ("cut", "flip", "empty", "gone"))
def test_a_damaged_piece_is_left_out(tmp_path, damage):
    with open_shards(tmp_path) as mine:
        for models in ([0, 1], [2, 3]):
            mine.add("stage", np.array(models), rows(models))
            mine.flush()
    file = tmp_path / folders(tmp_path)[0] / "arrays.npz"
    whole = file.read_bytes()
    at = whole.index(np.array([0.0, 1.0]).tobytes()) + 12
    torn = {"cut": whole[:-200], "flip": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], "empty": b""}
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(torn[damage])
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert loaded(tmp_path) == {2: 2.0, 3: 3.0}
    assert loaded(tmp_path) == {2: 2.0, 3: 3.0}  # without a warning: it is gone


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    with open_shards(tmp_path) as mine:
        mine.add("stage", np.array([7]), rows([7]))
    (tmp_path / "stage-000000001-000000002-000009.orbax-checkpoint-tmp").mkdir()
    open_shards(tmp_path, slice(2, 10))
    assert len(folders(tmp_path)) == 2  # another process may be writing it
    assert loaded(tmp_path) == {7: 7.0}
    assert folders(tmp_path) == ["stage-000000007-000000007-000001"]


def test_what_could_not_be_written_is_written_when_it_can(tmp_path, monkeypatch):
    class Full:
        def save(self, path, **arrays):
            path.with_suffix(".orbax-checkpoint-tmp").mkdir()
            raise OSError("No space left on device")

    working = shards._checkpointer
    with open_shards(tmp_path) as mine:
        monkeypatch.setattr(shards, "_checkpointer", Full)
        with pytest.warns(RuntimeWarning, match="No space left"):
            mine.add("stage", np.array([0]), rows([0]))
            mine.flush()
        assert folders(tmp_path) == []
        monkeypatch.setattr(shards, "_checkpointer", working)
        mine.add("stage", np.array([1]), rows([1]))
    assert loaded(tmp_path) == {0: 0.0, 1: 1.0}


def test_a_folder_of_another_problem_or_of_something_else_is_refused(tmp_path):
    open_shards(tmp_path / "run")
    with pytest.raises(ValueError, match="of another problem"):
        open_shards(tmp_path / "run", problem="other")
    (tmp_path / "run" / "problem.txt").unlink()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="something else"):
        open_shards(tmp_path / "run")


def test_without_a_folder_nothing_is_written():
    with Shards(None, "", ALL) as mine:
        mine.add("stage", np.array([0]), rows([0]))
        mine.replace("stage", np.array([0]), rows([0]))
        mine.forget("stage")
        assert mine.load("stage") == [] and not mine.due


def test_fingerprints_tell_functions_and_what_they_close_over():
    def inside_jit(constant):
        inner = jax.jit(lambda z: z @ constant)
        return lambda z: 2 * inner(z)

    def inside_loop(constant):
        return lambda z: jax.lax.fori_loop(0, 3, lambda i, z: jnp.where(z > 0, z + constant, z), z)

    z = jnp.zeros(20)
    for function in (inside_jit, inside_loop):
        for one, other in ((np.arange(20.0), np.ones(20)), (jnp.arange(20.0), jnp.ones(20))):
            assert fingerprint(function(one), z) == fingerprint(function(one), z)
            assert fingerprint(function(one), z) != fingerprint(function(other), z)
    keys = jax.random.key(0), jax.random.key(1)
    assert fingerprint(jnp.sin, z, values=keys[0]) != fingerprint(jnp.sin, z, values=keys[1])
    assert fingerprint(jnp.sin, z) != fingerprint(jnp.sin, z.astype("float32"))
