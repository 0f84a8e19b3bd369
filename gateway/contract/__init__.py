"""What a plugin offers: adapter, sink, rule kind, simulator. Each file is one page to read.

A plugin package exposes one `KIND`, found by entry point. `KIND.build` imports what it needs when
it is called, so that listing plugins loads no protocol library.
"""
