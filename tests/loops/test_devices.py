"""One batch on several devices and in several processes: the numbers of one device, each with its share of the work."""

import socket

import jax
import numpy as np
import pytest
from loops import worker

import elbojax
from elbojax.loops.hosts import gather, local, process_slice
from elbojax.loops.places import deal

DEVICES = 8


def close(found, wanted):
    for x, y in zip(found, wanted, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(tmp_path):
    results = tmp_path / "results.npz"
    worker.finish(worker.start(results, "--mesh", devices=DEVICES))
    close(worker.leaves(results, "all"), worker.reference())
    close(worker.leaves(results, "one"), worker.reference(1))
    (work,) = worker.leaves(results, "work")
    assert len(work) == DEVICES and np.sum(work) == np.sum(worker.walk(1000).num_steps)
    assert np.max(work) < 1.05 * np.mean(work)  # 1,000 models: 7.6 times as fast as on one device, or more


def _free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
def test_two_processes_with_two_devices_each(tmp_path, monkeypatch):
    port, folder = _free_port(), tmp_path / "checkpoint"
    results = [tmp_path / f"{i}.npz" for i in range(worker.PROCESSES)]
    processes = [
        worker.start(path, "--mesh", "--checkpoint", folder, "--process", i, "--port", port, devices=2)
        for i, path in enumerate(results)
    ]
    worker.finish(*processes)
    for path in results:
        close(worker.leaves(path, "all"), worker.reference())
        close(worker.leaves(path, "one"), worker.reference(1))
    for path, mine in zip(results, (slice(0, 6), slice(6, 13)), strict=True):
        close(worker.leaves(path, "share"), [x[mine] for x in worker.reference()])

    # What two processes have written serves one, which has nothing left to do.
    def again(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(worker.batch, "_program", lambda *args: again)
    monkeypatch.setattr(worker.walks, "_advance", again)
    worker.often(monkeypatch.setattr)
    close(jax.tree.leaves(worker.answers(*worker.both(folder))), worker.reference())


def test_shares_are_all_models_once(monkeypatch):
    for num_models, processes in ((13, 4), (3, 8), (1, 2)):
        shares = []
        for process in range(processes):
            monkeypatch.setattr(jax, "process_index", lambda process=process: process)
            monkeypatch.setattr(jax, "process_count", lambda processes=processes: processes)
            shares.append(np.arange(num_models)[process_slice(num_models)])
        np.testing.assert_array_equal(np.concatenate(shares), np.arange(num_models))
        sizes = [len(each) for each in shares]
        assert max(sizes) - min(sizes) <= 1


class Mesh:
    """Only as many devices."""

    def __init__(self, size):
        self.size = size


@pytest.mark.parametrize(("num_models", "devices"), [(13, 8), (16, 8), (3, 8), (1, 2), (1, 1)])
def test_every_model_has_one_place(num_models, devices):
    places = deal(num_models, Mesh(devices))
    models = places.models.reshape(devices, places.depth)
    assert sorted(models[models < num_models]) == list(range(num_models))
    assert places.depth == -(-num_models // devices)
    for device in range(devices):
        assert all(model == num_models or model % devices == device for model in models[device])


def test_a_process_alone_has_everything():
    run = worker.walk(3)
    assert gather(run) is run and local(None) is None and process_slice(5) == slice(0, 5)


@pytest.mark.parametrize("axis", (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit), ids=str)
def test_axes_of_both_types_and_more_than_one(axis):
    mesh = jax.make_mesh((1, 1), ("a", "b"), axis_types=(axis, axis))
    close(jax.tree.leaves(worker.walk(3, mesh=mesh)), jax.tree.leaves(worker.walk(3)))


def test_gather_refuses_what_is_no_batch(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="leading axis of models"):
        elbojax.loops.gather((np.zeros(3), np.zeros(4)))
