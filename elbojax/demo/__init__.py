"""The main job, run by `python -m elbojax`: the identity, a thousand volatility models, and one of them by NUTS."""
