"""The outage proof: real processes, broker and database taken away and brought back.

    python -m gateway.testing.outage --minutes 30

    dams ─▶ on-site broker ─┐                          ┌─▶ recorder ─▶ influxd      taken away
    vehicles, mine files ───┼─▶ hazard-gateway run ────┼─▶ supervision broker       taken away
    probe ─▶ on-site broker ┘                          └─▶ on-site broker ─▶ siren (the probe)

Everything is judged by outside evidence: what devices saw acknowledged by their protocols, the
requests that reached the database (recorder.py), its rows afterwards, the retained states a new
subscriber sees, and a probe that raises a real alarm every second and hears it from the siren's
broker, before, during and after.

`run.py` has the phases, `process.py` the gateway, `evidence.py` the arithmetic, `probe.py` the
latency. No embedded store is in it: what an engine keeps in memory would hide what the outage
costs. Not here: how faults look from inside (the seeded simulation), and short cuts through the
network (fault proxies).
"""
