"""Tables for the command line: every row is read as it stands, or is a fault with a name and exit code 2."""

import numpy as np
import pytest

from elbojax.__main__ import main
from elbojax.commands.fit import _table

MODEL = """
import jax.numpy as jnp
init = {"mu": 0.0}
def log_density(z, data):
    return jnp.sum(-0.5 * (data["y"] - z["mu"]) ** 2)
"""


def written(directory, text, encoding="utf-8"):
    path = directory / "data.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("y\n1\n\n2.5\n", {"y": [1, 2.5]}),
        ('y,x y\n"1.0", 2\n-1e3,3\n', {"y": [1, -1000], "x y": [2, 3]}),
        ("y,größe\n1,2\n", {"y": [1], "größe": [2]}),
        ("y\n1\n2#\n#3\n", {}),  # words, which are no comments
        ("y,x\n1,NA\n,2\n", {"y": [1, np.nan], "x": [np.nan, 2]}),
        ("id,name,y\n1,a,4\n2,b,5\n", {"id": [1, 2], "y": [4, 5]}),
        (",y\n0,1_000\n1,3\n", {"f0": [0, 1]}),
    ],
)
def test_what_is_in_a_table(tmp_path, capsys, text, wanted):
    found = _table(written(tmp_path, text))
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
    left_out = len(text.split("\n")[0].split(",")) - len(wanted)
    assert capsys.readouterr().err.count("is left out: line") == left_out


def test_marks_of_byte_order_are_no_part_of_a_name(tmp_path):
    assert set(_table(written(tmp_path, "y,x\n1,2\n", "utf-8-sig"))) == {"y", "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0\n2.0\n3.0\n", "first line .* are numbers, 1.0"),
        ("y\n", "no rows of data"),
        ("", "no rows of data"),
        ("y,y\n1,2\n", "two columns .* 'y'"),
        ("x,y\n1,2\n3\n", "line 3 .* has 1 cells.*the head has 2"),
        ("y\n1,000\n", "line 2 .* has 2 cells.*the head has 1"),
        ("y;x\n1,5;2\n", "line 2 .* has 2 cells"),
    ],
)
def test_tables_that_would_be_read_wrong(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        _table(written(tmp_path, text))


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (MODEL, "x\n1\n", "'y' is not among the data, which have 'x'"),
        (MODEL.replace("jnp.sum", "list"), "y\n1\n", "elbojax fit: "),
        ("import nothing_of_this_name", "y\n1\n", "nothing_of_this_name"),
        ("init = (", "y\n1\n", "SyntaxError"),
    ],
)
def test_faults_are_not_taken_for_answers_that_are_not_certified(tmp_path, capsys, model, data, message):
    (tmp_path / "model.py").write_text(model, encoding="utf-8")
    place = f"{tmp_path / 'model.py'}:log_density"
    assert main(["fit", place, "--data", str(written(tmp_path, data)), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_what_is_missing_is_no_answer(tmp_path, capsys):
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    place, path = f"{tmp_path / 'model.py'}:log_density", written(tmp_path, "y\n1\nNA\n")
    assert main(["fit", place, "--data", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "'y' has 1 of 2 numbers missing" in capsys.readouterr().err
