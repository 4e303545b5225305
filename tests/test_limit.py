"""A run of tests in a limited time: who has not begun by then is skipped, and which files come first is the seed's."""

import pathlib
import types

import pytest


@pytest.fixture
def settings(request):
    """The module tests/conftest.py."""
    return request.config.pluginmanager.get_plugin(str(pathlib.Path(__file__).parent / "conftest.py"))


def test_what_has_not_begun_in_time_is_skipped(settings, monkeypatch):
    """And runs before that."""
    limit = settings.Limit(10.0)
    limit.pytest_runtest_setup(None)
    monkeypatch.setattr(settings.time, "monotonic", lambda: limit.end + 1.0)
    with pytest.raises(pytest.skip.Exception, match="not run"):
        limit.pytest_runtest_setup(None)


def test_files_are_shuffled_and_stay_together(settings):
    """The order within a file stays; equal seeds give equal orders, as the workers need."""
    items = [types.SimpleNamespace(path=name, number=number) for name in "abcdefgh" for number in range(3)]

    def order(seed):
        mixed = list(items)
        settings.FilesInOrderOf(seed).pytest_collection_modifyitems(mixed)
        return [(item.path, item.number) for item in mixed]

    orders = [order(str(seed)) for seed in range(5)]
    assert orders == [order(str(seed)) for seed in range(5)]
    assert len({tuple(found) for found in orders}) == 5
    for found in orders:
        assert sorted(found) == [(item.path, item.number) for item in items]
        assert [number for _, number in found] == [0, 1, 2] * 8
