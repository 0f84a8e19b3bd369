"""Ways out: one folder each. `repeats.py` is what stores share: new samples or repeats."""
