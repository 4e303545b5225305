"""The table of workarounds. Versions are those tried: jaxlib 0.9.0, 0.10.2 and 0.12.0 on a CPU with two cores."""

from elbojax.workarounds.base import Workaround

WORKAROUNDS = (
    Workaround(
        "lapack",
        versions="jaxlib 0.10",
        symptom="A program with several batched Cholesky factors or triangular solves never ends on a CPU with few cores: each "
        "call waits for threads that wait for it. fit_batch of GARCH windows did, and densities with Gaussian processes.",
        reproduction="""
import jax, jax.numpy as jnp

stacks = [jnp.broadcast_to(2 * jnp.eye(64) + i, (64, 64, 64)) for i in range(16)]
solve = lambda a: jax.scipy.linalg.solve_triangular(a, a, lower=True)
program = jax.jit(lambda *stacks: [solve(a) for a in stacks])
for _ in range(20):
    jax.block_until_ready(program(*stacks))
print("gone")
""",
        instead="Both operations are lowered to plain ones in the whole process; where two are left in one solver, one takes the "
        "result of the other.",
        places=(
            "workarounds/lapack.py",
            "solvers/pathfinder.py",
            "solvers/dadvi.py",
            "cascade/importance.py",
            "linalg.py",
        ),
        may_go="With jaxlib 0.10.",
        has_switch=True,
        hangs=True,
        seconds=15.0,
    ),
    Workaround(
        "constants",
        versions="jax 0.10 and later",
        symptom="A NumPy array of float64 that a function names is kept rounded to float32 once the function was traced in "
        "single precision, and used so in double precision: rounded data in fit without a word.",
        reproduction="""
import jax, jax.numpy as jnp, numpy as np

y = np.array([1e9 + 1])
f = lambda z: jnp.sum(y - z)
traced = jax.make_jaxpr(f)(jnp.float32(0))
with jax.enable_x64(True):
    again = jax.make_jaxpr(f)(jnp.float64(0))
print("needed" if again.consts[0].dtype == np.float32 else "gone")
""",
        instead="JAX is given a conversion of NumPy arrays that tells the two precisions apart.",
        places=("workarounds/constants.py",),
        may_go="With the last jax whose reproduction says needed; is_affected looks on import.",
        has_switch=True,
    ),
    Workaround(
        "ynn",
        versions="jaxlib 0.10.2 and later, CPU",
        symptom="XLA hands reductions of some thousand numbers to YNNPACK, which gives wrong numbers without a word: "
        "jnp.sum(jnp.log1p(x / 4) + jnp.log1p(x)) is twice its first part. Sums over products of a mapped matrix and a vector "
        "are wrong as well, and some reductions crash or hang (jax issues 39103 and 39257).",
        reproduction="""
import jax, jax.numpy as jnp, numpy as np

x = np.linspace(0, 1, 4096, dtype=np.float32)
found = jax.jit(lambda x: jnp.sum(jnp.log1p(x / 4) + jnp.log1p(x)))(x)
print("needed" if abs(found - np.sum(np.log1p(x / 4) + np.log1p(x))) > 1 else "gone")
""",
        instead="Programs for the CPU are compiled without YNNPACK, in the whole process. "
        "A sum of logarithms over 64 rows of 5,000 takes 0.24 ms of processor time for 0.12; "
        "products of matrices and gradients of regressions take as long as before.",
        places=("workarounds/ynn.py",),
        may_go="With the last jaxlib whose reproduction says needed.",
        has_switch=True,
    ),
    Workaround(
        "dataclasses",
        versions="jax 0.10 and later",
        symptom="Structures of two dataclasses registered by jax.tree_util.register_dataclass compare equal, so jit may hand one "
        "the compiled program of the other: 8 of 60 classes with two fields got another's.",
        reproduction="""
import dataclasses, jax

def made():
    @dataclasses.dataclass
    class Record:
        x: object

    return jax.tree_util.register_dataclass(Record, ["x"], [])

print("needed" if jax.tree.structure(made()(1.0)) == jax.tree.structure(made()(1.0)) else "gone")
""",
        instead="structures.register registers dataclasses by functions of their own. 0.9 microseconds to flatten for 0.4.",
        places=("structures.py",),
        may_go="When no supported jax says needed.",
    ),
    Workaround(
        "maxima",
        versions="jaxlib 0.10 and later, CPU",
        symptom="The maximum of some thousand numbers and more leaves NaN out, of fewer it does not. YNNPACK does: with the "
        'workaround "ynn" it keeps it.',
        reproduction="""
import jax, jax.numpy as jnp, numpy as np

x = np.zeros(100_000, np.float32)
x[5] = np.nan
print("gone" if np.isnan(jax.jit(jnp.max)(x)) else "needed")
""",
        instead="Rules compare every element and take jnp.all of that.",
        places=("solvers/stopping.py",),
        may_go="Never: the other form is as quick.",
    ),
    Workaround(
        "in place",
        versions="jaxlib 0.9 to 0.12, CPU",
        symptom="x.at[1:].add(y) with y computed from x[:-1] is wrong inside a larger program: x is updated in place before "
        "it is read.",
        reproduction="""
import jax, jax.numpy as jnp, numpy as np

def f(m, x, t, shifted):
    y = shifted(x, sum(m[:, :, j] * x[:-1, j, None] for j in range(2)))[..., None]
    first = y[:, 0] / t[:, 0, 0, None]
    second = (y[:, 1] - t[:, 1, 0, None] * first) / t[:, 1, 1, None]
    return jnp.stack([first, second], axis=-2)

added = jax.jit(lambda *a: f(*a, lambda x, d: x.at[1:].add(-d)))
padded = jax.jit(lambda *a: f(*a, lambda x, d: x - jnp.pad(d, ((1, 0), (0, 0)))))
numbers = np.full((2, 2, 2), 0.5), np.arange(1.0, 7.0).reshape(3, 2), np.stack([np.tril(np.ones((2, 2)))] * 3)
print("gone" if np.allclose(added(*numbers), padded(*numbers)) else "needed")
""",
        instead="x is added to a padded y.",
        places=("families/gaussian_chain.py",),
        may_go="Never: the other form is as quick.",
    ),
    Workaround(
        "callbacks",
        versions="jax 0.9 to 0.12",
        symptom="jax.pure_callback within jax.enable_x64(True) fails in a session of single precision (Expected: float64, "
        "Actual: float32), for the setting counts in the thread that made it and XLA calls from others.",
        reproduction="""
import jax, jax.numpy as jnp, numpy as np

twice = lambda x: jax.pure_callback(lambda x: 2 * np.asarray(x), x, x, vmap_method="sequential")
try:
    with jax.enable_x64(True):
        program = jax.jit(lambda x: jnp.sum(jax.vmap(twice)(jnp.sin(x @ x.T))))
        for _ in range(20):
            program(np.ones((400, 400))).block_until_ready()
    print("gone")
except Exception as error:
    print("needed" if "Expected: float64" in str(error) else f"another error: {error}")
""",
        instead="Double precision is on in all threads while such a density is fitted.",
        places=("workarounds/callbacks.py",),
        may_go="When callbacks take the setting of the thread that called the program.",
        has_switch=True,
    ),
    Workaround(
        "transfers",
        versions="jax 0.10 and later",
        symptom="jnp.asarray of a NumPy array compiles a program for each shape: some ten milliseconds each.",
        reproduction="""
import jax, jax.numpy as jnp, numpy as np

compiled = []
listen = lambda event, seconds, **rest: event.endswith("backend_compile_duration") and compiled.append(seconds)
jax.monitoring.register_event_duration_secs_listener(listen)
for size in range(3, 8):
    jnp.asarray(np.zeros(size, np.float32))
print("needed" if compiled else "gone")
""",
        instead="jax.device_put of an array that NumPy has narrowed.",
        places=("workarounds/transfers.py", "results/resolution.py", "results/handing.py"),
        may_go="When no supported jax says needed.",
        has_switch=True,
    ),
    Workaround(
        "options",
        versions="all; xla_cpu_use_fusion_emitters is unknown from jaxlib 0.11 on",
        symptom="Compiling takes longer than all that a small program computes: 6 to 12 seconds for what takes 1.5 to 3 with "
        "little effort (nine posteriors, jaxlib 0.10). A flag that a version does not know ends the compilation.",
        reproduction="""
import time, jax, jax.numpy as jnp

def f(x):
    for i in range(150):
        x = jnp.sin(x @ x.T + i) / (1 + jnp.sum(x**2)) + jnp.cumsum(x, 0)
    return x

def seconds(options):
    lowered = jax.jit(jax.grad(lambda x: jnp.sum(f(x)))).lower(jnp.ones((4, 4)))
    began = time.process_time()
    lowered.compile(compiler_options=options)
    return time.process_time() - began

seconds({})
default, light = seconds({"xla_cpu_parallel_codegen_split_count": 2}), seconds({"xla_backend_optimization_level": 0})
print("needed" if light < 0.8 * default else f"gone: {light:.1f} of {default:.1f} s")
""",
        instead="Programs of small models are compiled with the options of little effort that the version knows.",
        places=("workarounds/options.py", "cascade/programs.py", "cascade/evaluate.py", "cascade/evaluate_many.py"),
        may_go="When XLA compiles small programs quickly by itself.",
        has_switch=True,
        seconds=20.0,
    ),
    Workaround(
        "light first stage",
        versions="jaxlib 0.10, CPU",
        symptom="In single precision the first stage of fit_batch (eight schools, 8 lanes), compiled with the options LIGHT, "
        "never ended. Not seen again with the present first stage.",
        reproduction="""
import elbojax, jax, jax.numpy as jnp
from elbojax.cascade import batch
from elbojax.workarounds import options

batch.LIGHTER = options.LIGHT
y, s = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12]), jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])

def log_density(z, y):
    mu, log_tau, e = z[0], z[1], z[2:]
    error = (y - mu - jnp.exp(log_tau) * e) / s
    prior = -0.5 * e @ e - 0.5 * (mu / 5) ** 2 - jnp.log1p((jnp.exp(log_tau) / 5) ** 2) + log_tau
    return prior - 0.5 * jnp.sum(error**2)

elbojax.fit_batch(jax.random.key(0), log_density, jnp.zeros(10), jnp.stack([y + i for i in range(8)]), compiled=True)
print("gone")
""",
        instead="That stage is compiled with LIGHTER: one optimisation level more.",
        places=("cascade/batch.py",),
        may_go="With jaxlib 0.10; LIGHTER is the quicker one to run there anyway.",
        hangs=True,
        seconds=30.0,
    ),
    Workaround(
        "blas",
        versions="OpenBLAS as NumPy 2 brings it",
        symptom="The threads of OpenBLAS wait for each other by spinning. On two cores with other work on them, products of "
        "[16384, 21] took 0.5 seconds with two threads and 0.001 with one.",
        reproduction="""
import multiprocessing, os, time, numpy as np, threadpoolctl

def busy(end):
    while time.time() < end:
        pass

def longest(threads):
    a, b, times = np.ones((16384, 21)), np.ones((21, 21)), []
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        for _ in range(100):
            began = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - began)
    return sum(times)

others = [multiprocessing.get_context("fork").Process(target=busy, args=(time.time() + 6,)) for _ in range(os.cpu_count())]
for other in others:
    other.start()
one, all_ = longest(1), longest(os.cpu_count())
for other in others:
    other.terminate()
print("needed" if all_ > 1.5 * one else f"gone: {all_:.2f} s with all threads, {one:.2f} with one")
""",
        instead="Stages on the host compute with one thread of BLAS.",
        places=("workarounds/blas.py", "cascade/evaluate.py", "cascade/evaluate_many.py"),
        may_go="When OpenBLAS waits without spinning.",
        has_switch=True,
        seconds=8.0,
    ),
    Workaround(
        "equations",
        versions="jax 0.9",
        symptom="Primitive.get_bind_params returns functions and parameters up to jax 0.9, and parameters alone from 0.10 on.",
        reproduction="""
import jax

equation = jax.make_jaxpr(lambda x: 2 * x)(1.0).eqns[0]
print("needed" if isinstance(equation.primitive.get_bind_params(equation.params), tuple) else "gone")
""",
        instead="Both forms are taken.",
        places=("workarounds/equations.py", "loops/hoist.py"),
        may_go="With support for jax 0.9.",
    ),
    Workaround(
        "scans",
        versions="jax 0.12",
        symptom="The equation of a scan has no num_consts and num_carry any more; its inputs are told apart by ft_in.",
        reproduction="""
import jax

equation = jax.make_jaxpr(lambda x: jax.lax.scan(lambda x, _: (x + 1, None), x, length=2)[0])(1.0).eqns[0]
print("gone" if "num_carry" in equation.params else "needed")
""",
        instead="Both forms are taken.",
        places=("workarounds/equations.py",),
        may_go="The older form with the last supported jax that has it.",
    ),
    Workaround(
        "kept traces",
        versions="jax 0.9 to 0.12",
        symptom="JAX keeps traces of bodies of loops and branches by identity: a body that reads a global gives the old answer "
        "after the global has changed, in a new jit too.",
        reproduction="""
import jax

shift = 1.0
body = lambda x, _: (x + shift, None)
f = lambda x: jax.lax.scan(body, x, None, length=1)[0]
jax.jit(lambda x: f(x))(0.0)
shift = 2.0
print("needed" if jax.jit(lambda x: f(x))(0.0) == 1.0 else "gone")
""",
        instead="Where what an inner function reads has changed, JAX's caches are cleared; make_jaxpr is given a new function.",
        places=("xla.py", "loops/traces.py", "cascade/programs.py"),
        may_go="When JAX's caches count what functions read.",
    ),
    Workaround(
        "short loops",
        versions="jaxlib 0.9 and 0.10, CPU",
        symptom="A small step in a loop over more than a few hundred bytes of draws takes half as long again, for such a loop is "
        "run by XLA's scheduler. Measured inside run_batch; the program alone does not show it with jaxlib 0.9 and 0.10.",
        reproduction="""
import time, jax, jax.numpy as jnp

def seconds(piece):
    def step(x, e):
        return x * 0.99 + 0.01 * jnp.tanh(e), None

    def inner(x, draws):
        return jax.lax.scan(step, x, draws)[0], None

    program = jax.jit(lambda x, draws: jax.lax.scan(inner, x, draws)[0])
    x, draws = jnp.zeros(4), jnp.ones((20_000 // piece, piece, 4))
    program(x, draws).block_until_ready()
    times = []
    for _ in range(9):
        began = time.process_time()
        program(x, draws).block_until_ready()
        times.append(time.process_time() - began)
    return min(times)

short, long = seconds(10), seconds(1000)
print("needed" if short < 0.85 * long else f"gone: {short:.4f} s in pieces, {long:.4f} s whole")
""",
        instead="Steps are taken ten at a time in the innermost loop.",
        places=("loops/lane.py",),
        may_go="When no supported jaxlib gains by it; elsewhere it is a tie.",
    ),
    Workaround(
        "fused draws",
        versions="an early jaxlib 0.10, CPU",
        symptom="Small normal draws that are fused into what uses them cost 50 ns a number; drawn flat behind a barrier, 10. "
        "Measured inside objectives; the program alone does not show it with jaxlib 0.9 and 0.10.",
        reproduction="""
import time, jax, jax.numpy as jnp

def seconds(flat):
    def draws(key):
        if flat:
            return jax.lax.optimization_barrier(jax.random.normal(key, (8000,))).reshape(2000, 4)
        return jax.random.normal(key, (2000, 4))

    def use(key):
        z = draws(key)
        return jnp.sum(jnp.exp(-z) * z), jnp.sum(z**2), z @ z.T[:, :3]

    program, key, times = jax.jit(use), jax.random.key(0), []
    jax.block_until_ready(program(key))
    for _ in range(9):
        began = time.process_time()
        for _ in range(20):
            jax.block_until_ready(program(key))
        times.append(time.process_time() - began)
    return min(times)

flat, fused = seconds(True), seconds(False)
print("needed" if flat < 0.85 * fused else f"gone: {flat:.4f} s flat, {fused:.4f} s fused")
""",
        instead="Draws are one flat vector behind jax.lax.optimization_barrier.",
        places=("noise.py",),
        may_go="When the fused form is as quick.",
    ),
)
