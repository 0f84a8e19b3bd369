"""Rule kinds: one file each, found by entry point."""
