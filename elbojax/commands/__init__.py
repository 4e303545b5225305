"""The verbs of `python -m elbojax`."""
