"""Real faults on real processes: the fault table as commands, each with its pass criterion.

    python -m gateway.testing.faults list
    python -m gateway.testing.faults run [F1 F8 …] [--seed N] [--quick] [--json]
    python -m gateway.testing.faults soak --seconds N

The checker believes only what can be seen from outside: what a device was told, what the broker,
the database and a subscriber hold, `journal export`, `/api` and the local link. Never an internal.

Not here: power cuts (gateway/testing/powercut.py) and everything in virtual time
(gateway/testing/sim).
"""
