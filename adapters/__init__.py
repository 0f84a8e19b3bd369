"""Field protocols: one folder each, of the same shape (see ARCHITECTURE.md)."""
