"""A checkpoint is gone on with by the very same problem alone, and by one run at a time."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax.loops.shards import Shards, fingerprint

KEY = jax.random.key(0)
Z = np.zeros(3, np.float32)
TABLE = np.zeros(3)


def host(function):
    """A function of a vector that runs on the host, with the gradient of a standard normal."""

    @jax.custom_vjp
    def log_density(z):
        shape = jax.ShapeDtypeStruct((), z.dtype)
        return jax.pure_callback(lambda z: np.asarray(function(z), z.dtype), shape, z, vmap_method="sequential")

    log_density.defvjp(lambda z: (log_density(z), z), lambda z, c: (-c * z,))
    return log_density


def jvp_rule(factor):
    """The identity with a tangent of its own."""

    @jax.custom_jvp
    def function(z):
        return z

    function.defjvp(lambda primals, tangents: (function(*primals), factor * tangents[0]))
    return function


def vjp_rule(factor):
    """The identity with a cotangent of its own."""

    @jax.custom_vjp
    def function(z):
        return z

    function.defvjp(lambda z: (z, None), lambda residuals, c: (factor * c,))
    return function


class Simulator:
    """A host function that is an object."""

    def __init__(self, centre):
        self.centre = centre

    def __call__(self, z):
        """The log-density."""
        return -np.sum((z - self.centre) ** 2)

    def method(self, z):
        """The same."""
        return self(z)


def closed_over(centre):
    """A host function that closes over an array."""
    centre = np.full(3, centre)
    return lambda z: -np.sum((z - centre) ** 2)


def through_another(centre):
    """A host function that calls another."""
    inner = closed_over(centre)
    return lambda z: inner(z)


def io(function):
    """The same by io_callback."""
    return lambda z: jax.experimental.io_callback(function, jax.ShapeDtypeStruct((), jnp.float32), z)


def looped(inner):
    """Within a loop within jit."""
    return lambda z: jax.jit(lambda z: jax.lax.fori_loop(0, 2, lambda i, z: inner(z), z))(z)


DIFFERENT = {
    "code of a callback": lambda i: host([lambda z: -np.sum(z**2), lambda z: -np.sum(z**4)][i]),
    "constant of a callback": lambda i: host([lambda z: -2.0 * np.sum(z), lambda z: -3.0 * np.sum(z)][i]),
    "closure of a callback": lambda i: host(closed_over(i)),
    "closure of a callback's callee": lambda i: host(through_another(i)),
    "default of a callback": lambda i: host([lambda z, a=0: a, lambda z, a=1: a][i]),
    "partial": lambda i: host(functools.partial(lambda a, z: np.sum(z) + a, i)),
    "bound method": lambda i: host(Simulator(i).method),
    "object": lambda i: host(Simulator(i)),
    "io_callback": lambda i: io(closed_over(i)),
    "jvp rule": jvp_rule,
    "vjp rule": vjp_rule,
    "jvp rule in a loop": lambda i: looped(jvp_rule(i)),
    "vjp rule in a loop": lambda i: looped(vjp_rule(i)),
    "rule under vmap": lambda i: jax.vmap(jvp_rule(i)),
}


@pytest.mark.filterwarnings("ignore:the log-density or loss calls Python")
@pytest.mark.parametrize("name", DIFFERENT)
def test_fingerprints_differ(name, precision):
    make = DIFFERENT[name]
    assert fingerprint(make(0), Z) != fingerprint(make(1), Z)
    assert fingerprint(make(0), Z) == fingerprint(make(0), Z)


@pytest.mark.filterwarnings("ignore:the log-density or loss calls Python")
def test_fingerprints_see_globals_of_a_callback(monkeypatch, precision):
    function = host(lambda z: -np.sum((z - TABLE) ** 2))
    before = fingerprint(function, Z)
    monkeypatch.setitem(globals(), "TABLE", np.ones(3))
    assert fingerprint(function, Z) != before


def test_fingerprints_see_shapes_and_names_of_results_and_the_version(monkeypatch, precision):
    of = lambda results: fingerprint(jnp.sin, Z, results=results)  # noqa: E731
    kinds = [{"a": Z}, {"b": Z}, {"a": Z[:2]}, {"a": Z.astype(int)}, {"a": Z, "b": Z}, [Z]]
    assert len({of(kind) for kind in kinds}) == len(kinds)
    before = of(kinds[0])
    monkeypatch.setattr(elbojax, "__version__", "77")
    assert of(kinds[0]) != before


def test_fingerprints_are_the_same_in_another_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import warnings
        import jax, jax.numpy as jnp, numpy as np
        from elbojax.loops.shards import fingerprint
        warnings.simplefilter("ignore")
        table = {"a": np.arange(3.0), "b": [1, "two"]}
        def helper(z):
            return np.sum(z * table["a"])
        @jax.custom_jvp
        def f(z):
            return jax.pure_callback(lambda z: np.float32(helper(z)), jax.ShapeDtypeStruct((), jnp.float32), z)
        f.defjvp(lambda p, t: (f(*p), jnp.sum(t[0])))
        print(fingerprint(f, np.zeros(3, np.float32)))
        """)
    )
    runs = [
        subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=True, env=os.environ | seed
        ).stdout
        for seed in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    ]
    assert runs[0] == runs[1] and len(runs[0].strip()) == 64


def density(z, y):
    """One mean."""
    return -0.5 * jnp.sum((y - z) ** 2) - 0.5 * z**2


def loss(key, q, y):
    """A squared distance."""
    return jnp.sum((q - jnp.mean(y)) ** 2)


SOLVER = elbojax.svi(loss, optax.sgd(0.1))
ADAM = optax.adam(0.1)


def fit_batch(folder, **more):
    """Two means."""
    return elbojax.fit_batch(KEY, density, 0.0, np.ones((2, 3), np.float32), checkpoint=folder, **more)


def run_batch(folder):
    """Two descents."""
    return elbojax.run_batch(
        KEY, SOLVER, np.zeros(2, np.float32), np.ones(2, np.float32), max_steps=10, checkpoint=folder
    )


def train(folder):
    """One training."""
    data = np.ones(4, np.float32)
    return elbojax.train(KEY, loss, np.float32(0), data, optimizer=ADAM, batch_size=2, num_epochs=2, checkpoint=folder)


def fit_ragged(folder):
    """Two data sets."""
    log_density = lambda z, d: density(z, d.data)  # noqa: E731
    return elbojax.fit_ragged(KEY, log_density, 0.0, [[1.0, 1.0], [2.0, 2.0]], checkpoint=folder)


CALLS = {"fit_batch": fit_batch, "run_batch": run_batch, "train": train}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_another_version_is_refused(call, tmp_path, monkeypatch):
    first = call(str(tmp_path / "run"))
    again = call(tmp_path / "run")
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(elbojax, "__version__", "77")
    with pytest.raises(ValueError, match="another problem.*version"):
        call(str(tmp_path / "run"))


def test_another_callback_is_refused(tmp_path):
    def centred(at):
        function = host(lambda z: -0.5 * (z - at) ** 2)
        return lambda z, y: function(z) + 0.0 * y

    def call(at):
        return elbojax.run_batch(
            KEY,
            elbojax.svi(lambda key, q, y: -centred(at)(q, y), optax.sgd(0.1)),
            np.zeros(2, np.float32),
            np.ones(2, np.float32),
            max_steps=2,
            checkpoint=str(tmp_path),
        )

    with pytest.warns(UserWarning, match="pure_callback"):
        call(0.0)
    with pytest.warns(UserWarning, match="pure_callback"), pytest.raises(ValueError, match="another problem"):
        call(5.0)
    with pytest.warns(UserWarning, match="pure_callback"):
        call(0.0)


HOLDER = """
import sys, time
from elbojax.loops.shards import Shards
note = sys.argv[2] if len(sys.argv) > 2 else ""
with Shards(sys.argv[1], note, slice(0, 1)):
    print("inside", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts processes that hold a folder."""
    processes = []

    def start(folder, note):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), note], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline().strip() == "inside"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_folder_in_use_is_refused_until_its_process_is_dead(call, tmp_path, holder):
    folder = tmp_path / "run"
    call(folder)
    process = holder(folder, (folder / "problem.txt").read_text())
    with pytest.raises(RuntimeError, match=f"in use by process {process.pid} on host"):
        call(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    call(folder)
    assert not [path for path in folder.iterdir() if path.name.startswith("in-use")]


def test_a_process_that_holds_a_folder_keeps_what_it_writes(tmp_path, holder):
    holder(tmp_path, "problem")
    (tmp_path / "stage-000000000-000000000-000009.orbax-checkpoint-tmp").mkdir()
    Shards(tmp_path, "problem", slice(0, 1)).load("stage")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    with pytest.raises(RuntimeError, match="in use"), Shards(tmp_path, "problem", slice(0, 1)):
        pass
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_two_calls_of_one_process(tmp_path):
    failures = []

    def second():
        try:
            with Shards(tmp_path, "problem", slice(0, 1)):
                pass
        except RuntimeError as error:
            failures.append(str(error))

    with Shards(tmp_path, "problem", slice(0, 1)):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    (message,) = failures
    assert "this very process" in message
    second()
    assert len(failures) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_lock_is_released_on_exceptions(tmp_path, error):
    with pytest.raises(error), Shards(tmp_path, "problem", slice(0, 1)):
        raise error
    with Shards(tmp_path, "problem", slice(0, 1)):
        assert (tmp_path / "in-use.0").exists()
    assert not (tmp_path / "in-use.0").exists()


def test_processes_of_one_run_share_a_folder_and_those_of_another_do_not(tmp_path, monkeypatch):
    def as_process(index, count):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(jax, "process_count", lambda: count)
        return Shards(tmp_path, "problem", slice(index, index + 1))

    with as_process(0, 2), as_process(1, 2):
        for index, count in ((0, 2), (1, 2), (0, 1), (2, 3)):
            with pytest.raises(RuntimeError, match="in use"), as_process(index, count):
                pass
    with as_process(0, 1):
        pass


def test_a_lock_left_by_hand_or_by_a_dead_process_is_taken_over(tmp_path):
    (tmp_path / "in-use.0").write_text('{"host": "elsewhere", "pid": 1}')
    with Shards(tmp_path, "problem", slice(0, 1)):
        pass
    (tmp_path / "in-use.0").write_bytes(b"\xff\x00")
    with Shards(tmp_path, "problem", slice(0, 1)):
        pass


@pytest.mark.parametrize("call", [*CALLS.values(), fit_ragged], ids=[*CALLS, "fit_ragged"])
@pytest.mark.parametrize("folder", ["", 3, True])
def test_what_is_no_folder_is_refused(call, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match="checkpoint must be the path of a folder"):
        call(folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [*CALLS.values(), fit_ragged], ids=[*CALLS, "fit_ragged"])
def test_a_file_in_place_of_the_folder(call, tmp_path):
    (tmp_path / "file").write_text("a thesis")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="file, where a folder is wanted"):
            call(path)
    assert (tmp_path / "file").read_text() == "a thesis"


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\x00", "ü".encode("latin-1")])
def test_a_damaged_note_is_said_to_be_one(tmp_path, damage):
    run_batch(tmp_path)
    (tmp_path / "problem.txt").write_bytes(damage)
    with pytest.raises(ValueError, match="is damaged"):
        run_batch(tmp_path)


@pytest.mark.parametrize("name", [".DS_Store", ".nfs0001", "lost+found", ".gitignore"])
def test_what_systems_leave_in_a_new_folder_is_no_thesis(tmp_path, name):
    (tmp_path / name).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_batch(tmp_path)
        run_batch(tmp_path)
    assert (tmp_path / name).exists()
