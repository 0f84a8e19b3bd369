"""A seeded simulation of the whole gateway in virtual time: one process, one thread, no waiting.

    loop.py      an event loop whose time jumps; domains that are killed or stopped; no threads
    network.py   TCP between domains: delay, cut, silence
    clock.py     the gateway's wall clock, which steps
    files.py     the gateway's disk: power cuts by tape, errors at the n-th call
    drive.py     the turns of the spool's writer
    devices.py   devices with a history of their own, and the adapter they speak to
    peers.py     the far side of the sinks: a database and a broker with faults
    plan.py      what one seed means: site, histories, faults
    world.py     all of it, run: `simulate(seed)`
    check.py     the laws, from outside evidence only
    mutants.py   deliberate faults of the gateway that the laws must find
    outage.py    hours without broker and database, and the same hours with them
    verdicts.py  what must hold of those

The gateway is the real one, from `open_core` down to SQLite's files; what it is given is its clock,
its disk, its loop and its far sides. A seed decides everything: two runs of one seed leave the same
log, byte for byte.

    python -m gateway.testing.sim --seeds 1000 --seed 0
    python -m gateway.testing.sim --outage 72

Shipped, never imported at run time.
"""
