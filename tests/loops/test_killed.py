"""A run that is killed, however often and whenever, ends with the numbers of one that is not."""

import os
import signal
import time

import numpy as np
import pytest
from loops import worker

from elbojax.loops.shards import NAME


def pieces_written(folder):
    """So far, by all processes; the name of each carries its number."""
    if not folder.exists():
        return 0
    matches = [NAME.fullmatch(path.name) for path in folder.iterdir()]
    return max((int(match["number"]) for match in matches if match and not match["torn"]), default=0)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
    folder, results = tmp_path / "checkpoint", tmp_path / "results.npz"
    cache = "JAX_COMPILATION_CACHE_DIR"
    environment = {cache: os.environ.get(cache, str(tmp_path / "cache"))}  # or each life would compile anew
    rng = np.random.default_rng(4)
    deaths = []
    for batch, pieces in (("walk", 20), ("walk", 60), ("posteriors", 2), ("posteriors", 4)):
        process = worker.start(results, "--checkpoint", folder, **environment)
        while process.poll() is None and pieces_written(folder / batch) < pieces:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        output, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), output
        deaths.append(process.returncode)
    assert deaths.count(-signal.SIGKILL) >= 3
    worker.finish(worker.start(results, "--checkpoint", folder, **environment))
    for found, wanted in zip(worker.leaves(results, "share"), worker.reference(), strict=True):
        np.testing.assert_array_equal(found, wanted)
