"""What a person is shown: scales first, nothing left out without a word, tables in notebooks."""

import html.parser

import jax.numpy as jnp
import numpy as np
from results import made

import elbojax
from elbojax.results import display


def test_few_numbers_come_before_many():
    names = [f"beta[{i}]" for i in range(40)] + ["sigma"] + ["w[0]", "w[1]"]
    found = display.parts(names, np.arange(43.0), np.ones(43))
    assert [part.rows for part in found] == [(40,), (41, 42), tuple(range(9))]
    assert found[-1].rest == "... and 31 more of beta: means from 9 to 39, sds from 1 to 1" and not found[0].rest


def test_each_leaf_has_a_few_even_without_room():
    names = [f"{leaf}[{i}]" for leaf in "abc" for i in range(20)]
    found = display.parts(names, np.zeros(60), np.ones(60))
    assert [len(part.rows) for part in found] == [12, 3, 3]
    assert sum(len(part.rows) for part in found) + sum(int(part.rest.split()[2]) for part in found) == 60


def test_constants_are_counted_and_missing_moments_shown():
    names = ["L[0,0]", "L[0,1]", "L[1,0]", "L[1,1]"]
    (part,) = display.parts(names, np.array([1.0, 0, 0.2, 0.9]), np.array([0.0, 0, 0.1, 0.1]))
    assert part.rows == (2, 3) and part.rest == "... 2 of L are constant"
    (part,) = display.parts(["tau"], np.ones(1), np.zeros(1))
    assert part.rows == (0,) and not part.rest
    (part,) = display.parts(["z[0]", "z[1]"], np.full(2, np.nan), np.full(2, np.nan))
    assert part.rows == (0, 1)


class Cells(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.words.append(data.strip())


def test_notebooks_get_a_table():
    fit = made.fit(elbojax.mean_field(jnp.zeros(made.SIZE), 1.0))
    found = Cells(fit._repr_html_())
    assert not found.open and "b.tau" in found.words and "certified" in found.words
    assert found.words.index("b.tau") < found.words.index("a[0,0]")  # few numbers first
    assert any("log p(x)" in word for word in found.words)
    refused = made.fit(elbojax.mean_field(jnp.zeros(made.SIZE), 1.0), certified=False, note="<b>no</b>")
    assert any(word.startswith("NOT certified") for word in Cells(refused._repr_html_()).words)
    assert "<b>no</b>" not in refused._repr_html_()


def test_the_last_line_of_a_cell_is_the_report():
    fit = made.fit(elbojax.mean_field(jnp.zeros(made.SIZE), 1.0))
    assert repr(fit) == str(fit) and len(repr(fit).splitlines()) < 30
    frame = fit.summary().to_dataframe()
    assert list(frame.columns) == ["mean", "sd", "5%", "50%", "95%"] and frame.index[-1] == "w[2]"
    np.testing.assert_array_equal(frame["mean"], fit.summary().mean)
