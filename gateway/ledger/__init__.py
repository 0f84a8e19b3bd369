"""The completeness ledger: what was expected, received, judged, stored and forwarded, and why not.

    cells.py    Cells: what was counted of one minute, over all points; packed arrays
    count.py    Counter: rows of the spool -> cells. Pure
    store.py    Store: one SQLite file; counts and the offset they reach in one transaction
    ledger.py   Ledger: what the runtime holds: counts, beats, notes exceptions, flushes
    settle.py   due, got, and the one reason of a gap. Pure; the online rate is defined here
    books.py    Books: a span of minutes read from the store, settled and summed

The one surprising thing: nobody tells the ledger that a sample was judged or stored. Consumers are
cursors over the same rows, so how far a cursor is, less the rows it is known to have refused or
dropped, says exactly what it has.

Not here: reading the spool and the clock (gateway.runtime.ledger_keeper).
"""
