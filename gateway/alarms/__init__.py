"""The book of live alarms (book.py) and the journal of what happened to them (journal.py)."""
