"""Options that a version of XLA does not know are not given to it."""

from elbojax.workarounds.options import LIGHT, accepted


def test_options_unknown_to_this_version_are_left_out():
    known = dict(accepted("cpu"))
    assert known.items() <= LIGHT.items() and "xla_backend_optimization_level" in known
    assert accepted("cpu", LIGHT | {"xla_no_such_option": True}) == tuple(known.items())
    assert accepted("cpu", {"xla_no_such_option": True}) == () == accepted("gpu")
